"""The rules of the tree: who may import whom, how kinds are named, and that a package's `__init__` only lists."""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for name in ("pygan", "pipeline") for path in (ROOT / name).rglob("*.py"))

ROWS = (
    (
        "pygan.errors",
        "pygan.spec",
        "pygan.wording",
        "pygan.draws",
        "pygan.context",
        "pygan.assets",
        "pygan.weights",
        "pygan.memory",
        "pygan.lock",
        "pygan.allocator",
        "pygan.devices",
        "pygan.gpu_claims",
        "pygan.ops",
        "pygan.optional",
    ),
    ("pygan.data", "pygan.networks", "pygan.features", "pygan.augment", "pygan.losses"),
    ("pygan.discriminators", "pygan.regularizers", "pygan.pruning", "pygan.diffusion"),
    (
        "pygan.checkpoint",
        "pygan.sampling",
        "pygan.sheets",
        "pygan.bank",
        "pygan.animation",
        "pygan.export",
        "pygan.generated",
        "pygan.snapshot_facts",
        "pygan.environment",
        "pygan.nvlabs",
        "pygan.metrics",
    ),
    ("pygan.training",),
    ("pygan.config", "pygan.config_reading", "pygan.config_combinations", "pygan.config_measurements", "pygan.recipes"),
    ("pygan.report",),
    (
        "pipeline",
        "pygan.cli",
        "pygan.cli_models",
        "pygan.cli_weights",
        "pygan.folder_pictures",
        "pygan.folder_bank",
        "pygan.folder_plan",
        "pygan.folder_settings",
        "pygan.folder_training",
        "pygan.folder_verdict",
        "pygan.train_folder",
        "pygan.plan",
        "pygan.speeds",
        "pygan.advise",
        "pygan.doctor",
        "pygan.__main__",
    ),
)
FREE_WITHIN_ROW = (0, 3, 5, 7)
"""Rows of single modules that build on one another."""
FORBIDDEN = {"pygan.training": ("pygan.metrics",), "pygan.report": ("pygan",), "pygan.checkpoint": ("pygan.metrics",)}
STANDARD_LIBRARY_ONLY = (
    "pipeline/provenance.py",
    "pipeline/progress.py",
    "pygan/ops/source_hash.py",
    "pygan/data/raw_digest.py",
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Absolute names that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def is_part_of(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def place_of(name: str) -> tuple[int, str] | None:
    """Row and entry of a module; None for what is not listed (the package `pygan` itself)."""
    return next(
        ((row, entry) for row, entries in enumerate(ROWS) for entry in entries if is_part_of(name, entry)), None
    )


def packages() -> list[Path]:
    return [path for path in FILES if path.name == "__init__.py"]


def kinds_of(path: Path) -> dict[str, tuple[str, ...]]:
    """The literal tuples KINDS (and METRIC_KINDS) of a package."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and "KINDS" in node.targets[0].id:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_rows_above_its_own(path: Path) -> None:
    module = module_of(path)
    if (own := place_of(module)) is None:
        assert module == "pygan", f"{module} has no row in ROWS"
        return
    for name in imports_of(path):
        other = place_of(name)
        if other is None or other == own:
            continue
        above = other[0] < own[0] or (other[0] == own[0] and own[0] in FREE_WITHIN_ROW)
        assert above, f"{module} imports {name}, which is not above it"
        for forbidden in FORBIDDEN.get(own[1], ()):
            assert not is_part_of(name, forbidden), f"{module} imports {name}"


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY)
def test_what_the_workflow_loads_needs_the_standard_library_only(name: str) -> None:
    tops = {imported.partition(".")[0] for imported in imports_of(ROOT / name)}
    assert tops <= sys.stdlib_module_names


def test_only_the_command_line_imports_typer() -> None:
    users = {module_of(path) for path in FILES if any(is_part_of(name, "typer") for name in imports_of(path))}
    assert users == {"pygan.cli", "pygan.cli_models", "pygan.cli_weights"}


def test_the_library_knows_no_snakemake() -> None:
    assert not [module_of(path) for path in FILES if any(is_part_of(n, "snakemake") for n in imports_of(path))]


def test_the_report_imports_no_torch() -> None:
    for path in (ROOT / "pygan" / "report").glob("*.py"):
        assert not any(is_part_of(name, "torch") for name in imports_of(path)), path


@pytest.mark.parametrize("path", packages(), ids=module_of)
def test_an_init_lists_and_does_not_act(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        literal = isinstance(node, ast.Assign) and all(
            isinstance(part, (ast.Constant, ast.Tuple, ast.List, ast.Load)) for part in ast.walk(node.value)
        )
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        deferred = isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
        refusal = isinstance(node, ast.If) and [type(part) for part in node.body] == [ast.Raise]
        allowed = literal or text or deferred or refusal or isinstance(node, ast.ImportFrom)
        assert allowed, f"{path}:{node.lineno}"


def test_kinds_are_file_names_with_a_spec_of_that_kind() -> None:
    for init in packages():
        for kind in (kind for kinds in kinds_of(init).values() for kind in kinds):
            tree = ast.parse((init.parent / f"{kind}.py").read_text())
            specs = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Spec"]
            assert len(specs) == 1, f"{kind} has no Spec"
            fields = {n.target.id: n for n in specs[0].body if isinstance(n, ast.AnnAssign)}
            assert ast.unparse(fields["kind"].annotation) == f"Literal['{kind}']"
            assert ast.literal_eval(fields["kind"].value) == kind


def test_kinds_are_unique_file_names_of_the_whole_tree() -> None:
    kinds = Counter(kind for init in packages() for kinds in kinds_of(init).values() for kind in kinds)
    names = Counter(path.stem for path in FILES if path.parts[len(ROOT.parts)] == "pygan")
    assert kinds, "no package lists kinds"
    assert {kind: count for kind, count in kinds.items() if count > 1 or names[kind] > 1} == {}


def test_there_is_no_drawer_for_leftovers() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "misc")]
