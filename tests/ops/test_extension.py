import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pygan import ops
from pygan.errors import ConfigError
from pygan.ops import check_build, csrc_digest
from pygan.ops.extension import DISTRIBUTION, NOT_BUILT

ROOT = Path(__file__).resolve().parents[2]
INFORMATION = f"{DISTRIBUTION.replace('-', '_')}-0.0.dist-info"

CALL_THREE_TIMES = """
import torch
from pygan import ops
for _ in range(3):
    ops.bias_act(torch.ones(2, 3), act="lrelu")
print(ops.backend(), "|", ops.backend_reason(), "|", ops.build_info())
"""


def run(package_parent: Path, choice: str) -> subprocess.CompletedProcess[str]:
    """Call the operators in a fresh interpreter that sees only the package under `package_parent`."""
    paths = [str(package_parent), *filter(None, sys.path)]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{CALL_THREE_TIMES}"]
    environment = {**os.environ, "PYGAN_OPS": choice}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the package as it is where no compiler was there: without the extension, and not installed."""
    shutil.copytree(ROOT / "pygan", tmp_path / "pygan", ignore=shutil.ignore_patterns("_C.*", "__pycache__"))
    information = tmp_path / INFORMATION
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: 0.0\n")
    return tmp_path


@pytest.mark.slow
def test_without_the_extension_one_warning_names_the_command(bare: Path) -> None:
    result = run(bare, "")
    assert result.stdout.startswith("reference | pygan._C is not built | {}")
    assert result.stderr.count("RuntimeWarning") == 1
    assert "make setup" in result.stderr and "pip install ." in result.stderr


@pytest.mark.slow
def test_reference_by_choice_is_silent(bare: Path) -> None:
    result = run(bare, "reference")
    assert result.stdout.startswith("reference | PYGAN_OPS=reference | {}")
    assert result.stderr == ""


@pytest.mark.slow
def test_native_by_choice_insists(bare: Path) -> None:
    result = run(bare, "native")
    assert result.returncode != 0
    assert "PYGAN_OPS=native, but pygan._C is not built; run `make setup`" in result.stderr


@pytest.mark.slow
def test_unknown_choice(bare: Path) -> None:
    assert "PYGAN_OPS: got 'fast', expected native, reference or nothing" in run(bare, "fast").stderr


@pytest.mark.slow
def test_broken_extension_is_named(bare: Path) -> None:
    (bare / "pygan" / "_C.abi3.so").write_bytes(b"not a library")
    result = run(bare, "")
    assert result.stdout.startswith("reference | ")
    assert "_C.abi3.so cannot be loaded beside torch" in result.stderr


def test_clone_finds_the_extension_of_the_installed_package(bare: Path, native: None, tmp_path: Path) -> None:
    """A clone in the working directory hides the installed package, but not its extension."""
    installed = tmp_path / "site"
    (installed / "pygan").mkdir(parents=True)
    shutil.copy(str(ops.build_info()["path"]), installed / "pygan")
    shutil.move(bare / INFORMATION, installed)
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(bare), str(installed)]!r}\n{CALL_THREE_TIMES}"]
    environment = {**os.environ, "PYGAN_OPS": "native"}
    result = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=True)
    assert result.stdout.startswith("native | ")
    assert f"'path': '{installed}" in result.stdout


@pytest.fixture
def beside_an_editable_install(bare: Path, tmp_path: Path) -> tuple[Path, str]:
    """A second clone, without extension, while the package is installed editable from a first one that has it."""
    first = tmp_path / "first clone" / "pygan"
    first.mkdir(parents=True)
    shutil.copy(str(ops.build_info()["path"]), first)
    origin = {"url": first.parent.as_uri(), "dir_info": {"editable": True}}
    (bare / INFORMATION / "direct_url.json").write_text(json.dumps(origin))
    shutil.copy(ROOT / "CMakeLists.txt", bare)
    shutil.copytree(ROOT / "csrc", bare / "csrc")
    return bare, f"{first}/_C"


def test_second_clone_finds_the_extension_of_an_editable_install(native: None, beside_an_editable_install) -> None:
    clone, extension = beside_an_editable_install
    result = run(clone, "native")
    assert result.stdout.startswith("native | ") and f"'path': '{extension}" in result.stdout, result.stderr


def test_second_clone_with_other_sources_does_not_use_it(native: None, beside_an_editable_install) -> None:
    clone, extension = beside_an_editable_install
    with (clone / "csrc" / "module.cpp").open("a") as source:
        source.write("// changed\n")
    result = run(clone, "")
    assert result.stdout.startswith(f"reference | {extension}")
    assert f"was built from other sources than {clone / 'csrc'}; run `make setup`" in result.stderr


@pytest.mark.slow
def test_a_package_that_was_built_without_the_extension_says_why(bare: Path) -> None:
    (bare / "pygan" / "ops" / NOT_BUILT).write_text("torch was not installed before it\n")
    assert run(bare, "").stdout.startswith("reference | pygan._C is not built (torch was not installed before it) | {}")


def test_the_extension_was_built_from_this_tree(native: None) -> None:
    check_build(ROOT)


def test_another_tree_is_refused(native: None, tmp_path: Path) -> None:
    check_build(tmp_path)  # no native sources there: nothing to compare
    (tmp_path / "csrc").mkdir()
    (tmp_path / "CMakeLists.txt").write_text("project(other)\n")
    with pytest.raises(ConfigError, match="run `make setup`"):
        check_build(tmp_path)


def test_digest_sees_contents_and_names_but_not_times(tmp_path: Path) -> None:
    (tmp_path / "csrc" / "op").mkdir(parents=True)
    (tmp_path / "CMakeLists.txt").write_text("a")
    source = tmp_path / "csrc" / "op" / "op.h"
    source.write_text("b")
    first = csrc_digest(tmp_path)
    os.utime(source, (0, 0))
    assert csrc_digest(tmp_path) == first
    source.write_text("c")
    assert csrc_digest(tmp_path) != first
    source.write_text("b")
    assert csrc_digest(tmp_path) == first
    source.rename(source.with_name("other.h"))
    assert csrc_digest(tmp_path) != first
