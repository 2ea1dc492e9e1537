"""Names and versions agree, `make setup` makes the environment that was asked for, and wheel and sdist install."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import pygan
from pygan.cli import app
from pygan.ops.extension import DISTRIBUTION, NOT_BUILT

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SITE = sysconfig.get_path("purelib")
NOT_TREE = shutil.ignore_patterns("results", "work", "logs", "build", "dist", ".*", "*.egg-info", "*.so", "__pycache__")

USE_AN_OPERATOR = """
import torch, pygan
from pygan import ops
assert ops.bias_act(torch.tensor([[-1.0, 2.0]]), act="relu", gain=1.0).tolist() == [[0.0, 2.0]]
print(ops.backend(), pygan.__file__)
"""


def environment(**changes: str) -> dict[str, str]:
    """The variables of this process without those that point Python, pip or make to other places."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "PYGAN_", "MAKE"))
    }
    tools = Path(sys.executable).parent  # cmake and ninja
    return (
        kept | {"PATH": f"{tools}:{os.environ['PATH']}", "PYGAN_CUDA": "OFF", "PIP_CONFIG_FILE": os.devnull} | changes
    )


def succeed(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command that must succeed; return what it printed."""
    result = subprocess.run(command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# Names, versions, files.


def test_distribution_and_version_have_one_value_each() -> None:
    assert PROJECT["project"]["name"] == DISTRIBUTION
    assert PROJECT["project"]["scripts"] == {"pygan": "pygan.cli:app"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pygan.__version__
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_oldest_python_is_the_same_in_all_places() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    listed = [name.rpartition(" ")[2] for name in PROJECT["project"]["classifiers"] if ":: Python :: 3." in name]
    assert listed[0] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    for file in ("README.md", "Makefile"):
        assert f"Python {oldest} or newer" in (ROOT / file).read_text()
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in (ROOT / "Makefile").read_text()


def test_every_dependency_has_an_oldest_and_a_latest_version() -> None:
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[a-z-]+>=[\d.]+,<[\d.]+", requirement), requirement


def test_version_option() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"pygan {pygan.__version__}\n")


def test_editors_know_what_the_package_offers() -> None:
    """`__getattr__` brings `load`, so the stub says what it is; only a stub of all public names may hide the module."""
    names = set()
    for node in ast.parse((ROOT / "pygan" / "__init__.pyi").read_text()).body:
        names |= {alias.asname for alias in node.names} if isinstance(node, ast.ImportFrom) else {node.target.id}
    assert names == set(pygan.__all__)
    assert pygan.load is importlib.import_module("pygan.sampling").load


def test_windows_is_refused_in_one_sentence() -> None:
    code = "import sys; sys.platform = 'win32'; import pygan"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: pygan runs on Linux, not on Windows") and "WSL" in last


# The Makefile.


def make(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )


def test_make_refuses_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.12 && exit\nexit 1\n')
    old.chmod(0o755)
    result = make(f"VENV={tmp_path}/venv", f"PYTHON={old}", f"{tmp_path}/venv/.done/venv")
    assert result.returncode != 0 and not (tmp_path / "venv").exists()
    expected = f"error: pygan needs Python 3.11 or newer, got {old} (Python 3.10.12): install one and run `make setup"
    assert result.stderr.startswith(expected)


def test_make_names_the_index_for_torch_alone(tmp_path: Path) -> None:
    printed = make("--dry-run", f"VENV={tmp_path}/venv", "TORCH_INDEX=https://index.example/cpu", "setup").stdout
    pip = [line for line in printed.splitlines() if "pip install" in line]
    assert len(pip) == 2 and "index.example" not in pip[1]
    assert pip[0].endswith("--index-url 'https://index.example/cpu' torch torchvision")
    usual = make("--dry-run", f"VENV={tmp_path}/venv", "setup").stdout
    assert "--index-url" not in usual and "-c constraints.txt torch\n" in usual


def stand_in(folder: Path, name: str, version: str) -> None:
    """Write a wheel without modules into a package index (PEP 503), which is folders of files and pages of links."""
    wheel = folder / name / f"{name}-{version}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as file:
        information = f"{name}-{version}.dist-info"
        file.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{information}/RECORD", "")
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')


@pytest.mark.slow
def test_torch_of_a_named_index_is_installed_and_kept(tmp_path: Path) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for name, version in pinned.items():
        stand_in(tmp_path / "cpu", name, f"{version}+cpu")
        stand_in(tmp_path / "usual", name, version)
    bin_ = tmp_path / "venv" / "bin"
    result = make(
        *(f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}"),
        *(f"TORCH_INDEX={(tmp_path / 'cpu').as_uri()}", f"{tmp_path}/venv/.done/torch"),
    )
    assert result.returncode == 0, result.stderr
    later = [bin_ / "python", "-m", "pip", "install", "-c", ROOT / "constraints.txt"]
    succeed(*later, "--index-url", (tmp_path / "usual").as_uri(), "torch>=2.13,<3", "torchvision>=0.28", cwd=tmp_path)
    freeze = succeed(bin_ / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path).splitlines()
    assert {f"{name}=={version}+cpu" for name, version in pinned.items()} <= set(freeze)


# Wheel and source distribution. Each build compiles the operators for the CPU.


def fresh(folder: Path) -> Path:
    """Make an environment that has all packages of the running one but not pygan; return its Python."""
    venv.create(folder, symlinks=True)
    site = sysconfig.get_path("purelib", "venv", vars={"base": str(folder)})
    Path(site, "shared.pth").write_text(f"{SITE}\n")  # .pth files in there, as of an editable install, do not count
    return folder / "bin" / "python"


def install(python: Path, what: Path, **variables: str) -> None:
    """Install a wheel, an sdist or a tree without looking at any package index."""
    offline = ("--no-build-isolation", "--no-deps", "--no-index", "--ignore-installed")
    succeed(sys.executable, "-m", "pip", "--python", python, "install", *offline, what, cwd=python.parent, **variables)


def build(python: Path | str, hook: str, tree: Path, out: Path, **variables: str) -> Path:
    """Call a hook of the build backend; return the file it made."""
    code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    succeed(python, "-c", code, out, cwd=tree, **variables)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the source tree as a clone has it, for a build leaves files there."""
    folder = tmp_path_factory.mktemp("clone") / "pygan"
    shutil.copytree(ROOT, folder, ignore=NOT_TREE)
    yield folder


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sys.executable, "build_sdist", tree, tmp_path_factory.mktemp("sdist"))


def check_installed(python: Path, folder: Path) -> None:
    """Use the installed package from a folder outside of the tree, by its library and by its command."""
    backend, file = succeed(python, "-c", USE_AN_OPERATOR, cwd=folder, PYGAN_OPS="native").split()
    assert backend == "native" and Path(file).is_relative_to(python.parents[1])
    command = python.with_name("pygan")
    assert succeed(command, "--version", cwd=folder) == f"pygan {pygan.__version__}\n"
    assert "  backend: native\n" in succeed(command, "doctor", cwd=folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wheel_is_complete_and_its_operators_run_natively(tree: Path, tmp_path: Path) -> None:
    wheel = build(sys.executable, "build_wheel", tree, tmp_path / "wheel")
    assert wheel.name.startswith(f"pygan_lowdata-{pygan.__version__}-cp")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pygan").rglob("*.py")}
    assert (
        expected | {"pygan/py.typed", "pygan/__init__.pyi", "pygan/assets.json", "pygan/report/page.html.j2"} <= names
    )
    python = fresh(tmp_path / "env")
    install(python, wheel)
    check_installed(python, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sdist_builds_and_its_operators_run_natively(sdist: Path, tmp_path: Path) -> None:
    assert sdist.name == f"pygan_lowdata-{pygan.__version__}.tar.gz"
    python = fresh(tmp_path / "env")
    install(python, sdist)
    check_installed(python, tmp_path)


@pytest.fixture
def without_torch(tmp_path: Path) -> Path:
    """A Python whose environment has setuptools alone."""
    venv.create(tmp_path / "bare", symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(tmp_path / "bare")}))
    for part in (*Path(SITE).glob("setuptools*"), Path(SITE, "_distutils_hack")):
        (site / part.name).symlink_to(part)
    return tmp_path / "bare" / "bin" / "python"


@pytest.mark.slow
def test_wheel_that_was_built_without_torch_says_so_when_it_runs(
    tree: Path, without_torch: Path, tmp_path: Path
) -> None:
    wheel = build(without_torch, "build_wheel", tree, tmp_path / "wheel")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        reason = file.read(f"pygan/ops/{NOT_BUILT}").decode().strip()
    assert reason == "torch was not installed before it"
    python = fresh(tmp_path / "env")
    install(python, wheel)
    result = subprocess.run(
        [python, "-c", USE_AN_OPERATOR], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("reference ")
    assert f"because pygan._C is not built ({reason}); run `make setup` in a clone, or `pip install .`" in result.stderr


@pytest.mark.slow
def test_a_build_that_must_be_native_stops_without_torch(tree: Path, without_torch: Path, tmp_path: Path) -> None:
    code = "from setuptools import build_meta; build_meta.build_wheel('out')"
    variables = environment(PYGAN_OPS="native")
    command = [without_torch, "-c", code]
    result = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    sentence = "PYGAN_OPS=native, but the native operators cannot be built: torch was not installed before it"
    assert result.stderr.splitlines()[-1] == sentence


@pytest.mark.slow
def test_a_compiler_that_fails_is_named(tree: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    broken = tmp_path / "tree"
    shutil.copytree(tree, broken, ignore=shutil.ignore_patterns("build"))
    code = "from setuptools import build_meta; build_meta.build_wheel('out')"
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=broken, env=environment(CXX=str(compiler)), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "the native operators cannot be built, `cmake -S` failed as printed above" in result.stderr
