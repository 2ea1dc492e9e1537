"""Digests: what changes them, what does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import provenance
from pipeline.provenance import ROOT

STAGE = "from pipeline import runner\nfrom pygan.core import used\n\n\ndef main():\n    from pygan.late import lazily\n"
TREE = {
    "pipeline/__init__.py": "",
    "pipeline/work.py": STAGE,
    "pipeline/page.py": "def main():\n    return 1\n",
    "pipeline/runner.py": "import json\n",
    "pygan/__init__.py": '"""A library."""\n',
    "pygan/core.py": '"""Core."""\nfrom pygan import spec\n\n\ndef used(x=1):\n    """Use."""\n    return x  # why\n',
    "pygan/late.py": "import pygan.deep\nlazily = 1\n",
    "pygan/deep.py": "x = 1\n",
    "pygan/spec.py": "",
    "pygan/unused.py": "x = 1\n",
    "pygan/methods/__init__.py": 'KINDS = ("apple", "pear")\n',
    "pygan/methods/apple.py": 'class Spec:\n    kind = "apple"\n    size: int = 1\n    """How big."""\n',
    "pygan/methods/pear.py": "from pygan.ops import fused\nfrom pygan.methods import KINDS\n",
    "pygan/ops/__init__.py": "from pygan.ops.fused import fused\n",
    "pygan/ops/fused.py": "fused = 1\n",
    "CMakeLists.txt": "project(x)\n",
    "csrc/fused.cpp": "int x;\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copy(ROOT / "pygan" / "ops" / "source_hash.py", tmp_path / "pygan" / "ops")
    return tmp_path


def forget() -> None:
    """Drop what was parsed, as a new process has."""
    for function in (provenance._parse, provenance._kind_modules, provenance._load, provenance.csrc_digest):
        function.cache_clear()


def spec_of(tree: Path, config: dict) -> str:
    forget()
    return provenance.stage_json("work", config, root=tree)


def test_the_closure_follows_imports_and_kinds(tree: Path) -> None:
    forget()
    plain = {"pipeline", "pipeline.work", "pipeline.runner", "pygan", "pygan.core", "pygan.spec", "pygan.late"}
    assert set(provenance.closure("pipeline.work", root=tree)) == plain | {"pygan.deep"}
    with_apple = set(provenance.closure("pipeline.work", {"apple", "n_shot"}, root=tree))
    assert with_apple == plain | {"pygan.deep", "pygan.methods", "pygan.methods.apple"}


def test_a_stage_that_loads_no_specs_does_not_depend_on_kinds(tree: Path) -> None:
    forget()
    assert set(provenance.closure("pipeline.page", {"apple"}, root=tree)) == {"pipeline", "pipeline.page"}


def test_kinds_are_found_at_any_depth() -> None:
    value = {"a": [{"kind": "apple", "b": {"kind": "pear"}}], "kind": None, "c": ({"kind": "plum"},), "d": "kind"}
    assert provenance.kinds_in(value) == {"apple", "pear", "plum"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pygan/core.py", "# why", "# because"),
        ("pygan/core.py", '"""Use."""', '"""Use it well."""'),
        ("pygan/core.py", "def used(x=1)", "def used( x = 1 )"),
        ("pygan/methods/apple.py", '"""How big."""', '"""How large."""'),
        ("pygan/methods/__init__.py", '"pear")', '"pear", "plum")'),
        ("pygan/unused.py", "x = 1", "x = 2"),
        ("pygan/methods/pear.py", "fused", "fused as f"),
        ("csrc/fused.cpp", "int", "long"),
    ],
)
def test_what_computes_nothing_else_leaves_the_json_alone(tree: Path, name: str, old: str, new: str) -> None:
    before = spec_of(tree, {"method": {"kind": "apple"}})
    assert old in TREE[name]
    (tree / name).write_text(TREE[name].replace(old, new))
    assert spec_of(tree, {"method": {"kind": "apple"}}) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pygan/core.py", "x=1", "x=2"),
        ("pygan/deep.py", "x = 1", "x = 2"),
        ("pipeline/runner.py", "json", "os"),
        ("pygan/methods/apple.py", "= 1", "= 2"),
    ],
)
def test_code_that_the_stage_reaches_changes_the_json(tree: Path, name: str, old: str, new: str) -> None:
    before = spec_of(tree, {"method": {"kind": "apple"}})
    (tree / name).write_text(TREE[name].replace(old, new))
    assert spec_of(tree, {"method": {"kind": "apple"}}) != before


def test_kernels_belong_to_the_stages_that_reach_the_operators(tree: Path) -> None:
    assert "csrc" not in json.loads(spec_of(tree, {"method": {"kind": "apple"}}))
    before = json.loads(spec_of(tree, {"method": {"kind": "pear"}}))
    (tree / "csrc" / "fused.cpp").write_text("long x;\n")
    after = json.loads(spec_of(tree, {"method": {"kind": "pear"}}))
    assert before["csrc"] != after["csrc"]
    assert before["code"] == after["code"]


def test_the_json_is_canonical() -> None:
    assert provenance.canonical({"b": 1, "a": {"d": [1, 2], "c": "ü"}}) == '{"a":{"c":"ü","d":[1,2]},"b":1}'


def test_swapped_values_differ_and_reordered_keys_do_not(tree: Path) -> None:
    assert spec_of(tree, {"a": 1, "b": 2}) == spec_of(tree, {"b": 2, "a": 1})
    assert spec_of(tree, {"a": 1, "b": 2}) != spec_of(tree, {"a": 2, "b": 1})


def test_the_real_stages_and_the_kernels() -> None:
    """Which stages a changed kernel reruns: those that train, generate or build networks."""
    forget()
    base = {"base": {"kind": "dcgan"}}
    for stage in ("train", "prune_round", "probe", "select", "evaluate"):
        assert "csrc" in provenance.digests(stage, base), stage
    for stage, config in (
        ("prepare_data", {"source": {"kind": "earthcover"}}),
        ("reference", {"network": {"kind": "mobilenet_v2"}}),
        ("report", {"runs": base}),
    ):
        assert "csrc" not in provenance.digests(stage, config), stage


def test_digests_do_not_depend_on_process_or_folder(tmp_path: Path) -> None:
    forget()
    expected = provenance.stage_json("train", {"base": {"kind": "dcgan"}})
    code = "from pipeline.provenance import stage_json; print(stage_json('train', {'base': {'kind': 'dcgan'}}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == expected
