"""Optional packages: one sentence names what is missing, and no page sends a reader to another project."""

import functools
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pygan.cli import app
from pygan.errors import ConfigError, MissingInput
from pygan.features.resnet import Spec as ResNet
from pygan.optional import install_command, optional_module, require_packages

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path for packages of the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_all_that_is_missing_is_named_with_the_command_of_this_python() -> None:
    with pytest.raises(MissingInput) as error:
        require_packages("the format x", "json", "no_such_one", "no_such_other")
    pip = f"{shlex.quote(sys.executable)} -m pip install no-such-one no-such-other"
    assert str(error.value) == f"the format x needs the packages no-such-one and no-such-other: run `{pip}`"
    require_packages("the format x", "json")


def test_a_space_in_the_path_of_python_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my python/bin/python")
    assert install_command("av") == "'/my python/bin/python' -m pip install av"


def test_an_installed_module_is_returned() -> None:
    assert optional_module("json.decoder", "the test") is sys.modules["json.decoder"]


def test_a_package_that_lacks_another_one_names_that(packages: Path) -> None:
    (packages / "lacking_package.py").write_text("import no_such_one.part\n")
    with pytest.raises(MissingInput, match="the test needs the package no-such-one: run"):
        optional_module("lacking_package", "the test")


def test_a_package_that_is_installed_but_broken_is_not_called_missing(packages: Path) -> None:
    (packages / "broken_package.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    with pytest.raises(ConfigError, match="the test needs the package broken_package, whose import fails: operator"):
        optional_module("broken_package", "the test")


def test_a_network_names_the_package_of_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingInput, match=r"the network resnet needs the package torchvision: run `.* -m pip install"):
        ResNet()._architecture()


def test_the_report_names_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    missing = {"jinja2", "matplotlib"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in missing else found(name, *rest)
    )
    result = functools.partial(CliRunner().invoke, app)(["report", str(tmp_path)])
    assert result.exit_code == 66 and "-m pip install jinja2 matplotlib`" in result.stderr


def test_no_text_asks_for_pygan_from_the_package_index() -> None:
    """There, pygan is another project, and ours is not to be found."""
    folders = ("pygan", "pipeline", "workflow", "profiles", "config", "bench", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files = [path for path in files if path.suffix in (".py", ".md", ".yaml", ".smk", ".j2", ".json")]
    for path in [*files, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "setup.py", ROOT / ".ci" / "run"]:
        asked = re.search(r"pip install[^`\n]*[ '\"](pygan|pygan-lowdata)\b(?!/)", path.read_text())
        assert asked is None, f"{path}: {asked}"
