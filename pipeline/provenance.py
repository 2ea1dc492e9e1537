"""What a stage's result depends on, as text: its slice of the configuration and digests of the code and data it reads.

Snakemake does not see edits of imported modules and compares parameters as a set, so every rule has exactly one
parameter: the canonical JSON made here. It changes when, and only when, the stage would compute something else:

- the code digest covers the syntax trees, without docstrings, of the stage's module, of every `pygan` and `pipeline`
  module it imports (transitively, imports inside functions included) and of the files of the kinds in its slice of the
  configuration: comments, formatting, touched files and unused methods do not count;
- a stage whose code reaches `pygan.ops` also carries the digest of `csrc/`;
- a stage that reads raw data also carries a digest of that data.

Only the standard library is used, so that the workflow is parsed without importing torch.
"""

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("pygan", "pipeline")


def stage_json(stage: str, config: dict[str, Any], *, root: Path = ROOT, **more: Any) -> str:
    """Return the canonical JSON of one job: the only parameter of its rule and the `--spec` of its command.

    Args:
        stage: module name inside `pipeline`.
        config: what the job's result depends on, of the configuration.
        root: the source tree.
        more: further entries of the top level, for example `threads` or `raw`.
    """
    return canonical({"stage": stage, "config": config, **digests(stage, config, root=root), **more})


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digests(stage: str, config: Any, *, root: Path = ROOT) -> dict[str, str]:
    """Return `{"code": ...}` of a stage, with `"csrc"` where its code reaches `pygan.ops`."""
    modules = closure(f"pipeline.{stage}", kinds_in(config), root=root)
    result = {"code": _digest_of(modules)}
    if any(name.startswith("pygan.ops") for name in modules):
        result["csrc"] = csrc_digest(root)
    return result


def code_digest(module: str, kinds: Iterable[str] = (), *, root: Path = ROOT) -> str:
    """Return the digest of the code that `module` and the files of `kinds` reach."""
    return _digest_of(closure(module, kinds, root=root))


def _digest_of(modules: dict[str, str]) -> str:
    return hashlib.sha256(canonical(modules).encode()).hexdigest()[:16]


def closure(module: str, kinds: Iterable[str] = (), *, root: Path = ROOT) -> dict[str, str]:
    """Return the sha256 of the syntax tree of every module reached, by module name."""
    found: dict[str, str] = {}
    _follow(list(_with_parents(module)), found, root)
    if "pygan.spec" in found:  # else the stage builds no methods: to the report a kind is a word
        _follow([name for kind in kinds for name in _kind_modules(kind, root)], found, root)
    return dict(sorted(found.items()))


def _follow(todo: list[str], found: dict[str, str], root: Path) -> None:
    """Add the modules of `todo` and all that they import to `found`."""
    while todo:
        name = todo.pop()
        if name in found or (parsed := _parse(name, root)) is None:
            continue
        found[name], imported = parsed
        todo.extend(imported)


def kinds_in(value: Any) -> set[str]:
    """Return every `kind` that a nested configuration value names."""
    if isinstance(value, dict):
        own = {value["kind"]} if isinstance(value.get("kind"), str) else set()
        return own.union(*map(kinds_in, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(kinds_in, value))
    return set()


@cache
def _kind_modules(kind: str, root: Path) -> tuple[str, ...]:
    """The method file of a kind; empty for the kinds that live inside one module (those of pygan.data.subset)."""
    files = sorted(root.glob(f"pygan/**/{kind}.py"))
    names = (".".join(file.relative_to(root).with_suffix("").parts) for file in files)
    return tuple(part for name in names for part in _with_parents(name))


def _file(module: str, root: Path) -> Path | None:
    """The source file of `module`, None where it is no module of this tree."""
    parts = module.split(".")
    if parts[0] not in _PACKAGES:
        return None
    path = root.joinpath(*parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@cache
def _parse(module: str, root: Path) -> tuple[str, tuple[str, ...]] | None:
    """The digest of a module and the names it may import; None where it is no module of this tree."""
    file = _file(module, root)
    if file is None:
        return None
    tree = ast.parse(file.read_bytes(), filename=str(file))
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    imported = tuple(dict.fromkeys(_imports(tree, package)))
    _strip(tree, drop_kinds=file.name == "__init__.py")
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every dotted name that importing the module may load, parent packages included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield from _with_parents(name)


def _with_parents(module: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`: importing a module runs the packages around it."""
    parts = module.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _strip(tree: ast.AST, *, drop_kinds: bool) -> None:
    """Remove what computes nothing: docstrings, those of fields too, and the list of kinds of a package."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, [s for s in statements if not _is_text(s) and not (drop_kinds and _is_kinds(s))])


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_kinds(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and [getattr(t, "id", None) for t in statement.targets] == ["KINDS"]


@cache
def _load(file: Path) -> Any:
    """Import one file by its path, without the package around it (which may import torch)."""
    spec = importlib.util.spec_from_file_location(f"_provenance_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def csrc_digest(root: Path = ROOT) -> str:
    """Return the digest of the kernels' source, the one that is compiled into `pygan._C`."""
    return _load(root / "pygan" / "ops" / "source_hash.py").csrc_digest(root)


def raw_digest(source: dict[str, Any], *, root: Path = ROOT) -> str:
    """Return the digest of the files behind a data source."""
    return _load(root / "pygan" / "data" / "raw_digest.py").raw_digest(source)
