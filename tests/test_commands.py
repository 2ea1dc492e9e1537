"""The verbs: what they write, what their help says, and the exit codes of what they refuse."""

import fcntl
import functools
import importlib.util
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from tiny_snapshot import DCGAN, STYLEGAN2, snapshot
from typer.testing import CliRunner

import pygan
from pygan import sampling
from pygan.cli import app
from pygan.lock import held

run = functools.partial(CliRunner().invoke, app)


def verbs(of: typer.Typer = app, group: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every verb, of groups too."""
    found = [(*group, verb.name or verb.callback.__name__) for verb in of.registered_commands]
    for inner in of.registered_groups:
        found += verbs(inner.typer_instance, (*group, inner.name or inner.typer_instance.info.name))
    return found


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_the_help_of_a_verb_fits_a_terminal_and_has_an_example(verb: tuple[str, ...]) -> None:
    result = run([*verb, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert "<bool>" not in result.output
    example = lines[lines.index("  Example:") + 2].split()
    assert example[: 1 + len(verb)] == ["pygan", *verb]
    options = {word for word in example if word.startswith("--")}
    assert all(f"{option} " in result.output for option in options)


def test_the_list_of_verbs_fits_a_terminal() -> None:
    result = run(["--help"], env={"COLUMNS": "80"})
    assert max(map(len, result.output.splitlines())) <= 80
    assert all(f"\n  {verb[0]} " in result.output for verb in verbs())


def test_the_verbs_write_what_they_say(tmp_path: Path) -> None:
    snapshot(tmp_path / "a.safetensors", DCGAN)
    model, out = str(tmp_path / "a.safetensors"), tmp_path / "out"
    assert run(["grid", model, "-o", str(out / "grid.png"), "--rows", "2", "--columns", "3"]).exit_code == 0
    sheet = np.asarray(Image.open(out / "grid.png"))
    assert sheet.shape == (2 * 16 * 2, 3 * 16 * 2, 3)
    fifth = pygan.load(model).sample(6)[4].permute(1, 2, 0).numpy()
    assert np.array_equal(sheet[32::2, 32:64:2], fifth)
    arguments = ["interpolate", model, "-o", str(out / "walk.gif"), "--seeds", "1,2", "--frames", "3"]
    assert run(arguments).exit_code == 0
    assert Image.open(out / "walk.gif").n_frames == 2 * 3
    wrong = run(["grid", model, "-o", str(out / "b.png"), "--label", "1"])
    assert wrong.exit_code == 2 and "has no classes" in wrong.stderr
    wrong = run(["grid", model, "-o", str(out / "b.png"), "--rows", "1000", "--columns", "1000"])
    assert wrong.exit_code == 2 and "a sheet of 256000000 pixels" in wrong.stderr
    for device in ("gpu", "cuda:99"):
        assert run(["grid", model, "-o", str(out / "b.png"), "--device", device]).exit_code == 78
    assert sorted(path.name for path in out.iterdir()) == ["grid.png", "walk.gif"]


def test_inspect_speaks_to_people_and_to_machines(tmp_path: Path) -> None:
    path = tmp_path / "run" / "snapshots" / "000000064.safetensors"
    snapshot(path, STYLEGAN2, num_classes=2, class_names=["cat", "dog"])
    record = {"recipe": "auto", "methods": ["ada", "r1"], "settings": {}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    facts = json.loads(run(["inspect", str(tmp_path / "run"), "--json"]).stdout)
    assert facts["nimg"] == 64 and facts["base"]["kind"] == "stylegan2" and facts["class_names"] == ["cat", "dog"]
    assert facts["training"] == {"recipe": "auto", "methods": ["ada", "r1"]}
    G = pygan.load(path).G
    assert facts["G_parameters"] == sum(p.numel() for p in G.parameters())
    lines = run(["inspect", str(tmp_path / "run")]).stdout.splitlines()
    expected = [
        "pictures: 16 x 16 pixels, 3 channels",
        "classes: 2 (0 cat, 1 dog)",
        "base network: stylegan2",
        "  w_dim: 8",
        "recipe: auto",
        "methods: ada, r1",
    ]
    assert set(expected) <= set(lines)
    (tmp_path / "run" / "run.json").write_text("{")  # a record that cannot be read takes nothing away from the rest
    assert json.loads(run(["inspect", str(path), "--json"]).stdout)["training"] == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "MISSING", "-o", "OUT"],
        ["grid", "MISSING", "-o", "OUT.png"],
        ["interpolate", "MISSING", "-o", "OUT.gif"],
        ["export", "MISSING", "-o", "OUT.pt"],
        ["inspect", "MISSING"],
        ["masks", "MISSING"],
        ["import-nvlabs", "MISSING", "-o", "OUT"],
        ["check", "MISSING"],
        ["plan", "MISSING"],
        ["report", "MISSING"],
        ["advise", "MISSING"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_file_and_a_folder_in_its_place_are_named(tmp_path: Path, arguments: list[str]) -> None:
    missing = tmp_path / "missing"
    words = [word.replace("MISSING", str(missing)).replace("OUT", str(tmp_path / "out")) for word in arguments]
    result = run(words)
    assert result.exit_code == 66 and str(missing) in result.stderr
    missing.mkdir()
    result = run(words)
    assert result.exit_code in (65, 66, 78) and result.stderr.startswith(f"error: {missing}")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("arguments", [["grid"], ["interpolate"], ["export"]], ids=lambda arguments: arguments[0])
def test_a_folder_in_place_of_the_file_to_write_is_named(tmp_path: Path, arguments: list[str]) -> None:
    snapshot(tmp_path / "a.safetensors", DCGAN)
    suffix = {"grid": ".png", "interpolate": ".gif", "export": ".safetensors"}[arguments[0]]
    out = tmp_path / f"out{suffix}"
    out.mkdir()
    result = run([*arguments, str(tmp_path / "a.safetensors"), "-o", str(out)])
    assert result.exit_code == 73 and f"{out}: cannot write (Is a directory" in result.stderr
    assert not list(out.iterdir()) and len(list(tmp_path.iterdir())) == 2


def test_a_video_without_its_package_is_refused_before_it_is_computed(tmp_path: Path, monkeypatch) -> None:
    snapshot(tmp_path / "a.safetensors", DCGAN)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sampling.Model, "walk", None)
    result = run(["interpolate", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "walk.mp4")])
    assert result.exit_code == 66 and "-m pip install av" in result.stderr
    assert run(["interpolate", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "walk.avi")]).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("name", ["x.jpg", "x", "000000064.safetensors"])
def test_a_grid_is_a_png_file_and_replaces_no_snapshot(tmp_path: Path, name: str) -> None:
    path = tmp_path / "000000064.safetensors"
    snapshot(path, DCGAN)
    before = path.read_bytes()
    result = run(["grid", str(path), "-o", str(tmp_path / name)])
    suffix = Path(name).suffix
    assert result.exit_code == 2 and f"{tmp_path / name}: got the suffix '{suffix}', expected .png" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before
    assert run(["grid", str(path), "-o", str(tmp_path / "X.PNG")]).exit_code == 0
    assert Image.open(tmp_path / "X.PNG").format == "PNG"


@pytest.mark.parametrize(
    ("verb", "name"), [("grid", "a.png"), ("interpolate", "a.gif"), ("export", "a.pt"), ("generate", "000000.png")]
)
def test_no_verb_replaces_the_model_that_it_reads(tmp_path: Path, verb: str, name: str) -> None:
    """Of a link to it as well; the name of a snapshot is the user's choice."""
    folder = tmp_path / "models"
    snapshot(tmp_path / "first.safetensors", DCGAN)
    if verb == "generate":
        assert run(["generate", str(tmp_path / "first.safetensors"), "-o", str(folder), "-n", "1"]).exit_code == 0
    snapshot(folder / name, DCGAN)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link"):
        out = place if verb == "generate" else place / name
        result = run([verb, str(folder / name), "-o", str(out)])
        assert result.exit_code == 2 and f"{place / name}: is the snapshot that is read" in result.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


VERBS = [("generate", ""), ("grid", ".png"), ("interpolate", ".gif"), ("export", ".pt"), ("export", ".safetensors")]


@pytest.mark.parametrize(("verb", "suffix"), VERBS)
def test_a_path_that_cannot_be_is_one_sentence(tmp_path: Path, verb: str, suffix: str) -> None:
    snapshot(tmp_path / "a.safetensors", DCGAN)
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    link = f"{tmp_path}/link is a link to {tmp_path}/nothing, which is not there"
    long = "x" * 300
    for out, words in (
        (f"{tmp_path}/{long}{suffix}", "File name too long"),
        (f"{tmp_path}/{long}/x{suffix}", "File name too long"),
        (f"{tmp_path}/link/x{suffix}", link),
        (f"{tmp_path}/link" if verb == "generate" else f"{tmp_path}/link/y/x{suffix}", link),
        (f"{tmp_path}/circle/x{suffix}", "circle"),
        *([(f"/proc/x{suffix}", "cannot write (No such file or directory")] if Path("/proc/self").exists() else []),
    ):
        result = run([verb, str(tmp_path / "a.safetensors"), "-o", out])
        assert result.exit_code == 73 and result.stderr.startswith("error: ") and words in result.stderr, out
        assert result.stderr.count("\n") == 1 and "bytes free" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "circle", "link"]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4", ".png"])
def test_ctrl_c_leaves_no_half_file(tmp_path: Path, monkeypatch, suffix: str) -> None:
    snapshot(tmp_path / "a.safetensors", DCGAN)
    part, calls = sampling.Model.samples, []

    def interrupted(self, *args, **kwargs):
        img = next(part(self, 4))
        calls.append(1)
        yield img
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling.Model, "samples", interrupted)
    monkeypatch.setattr(sampling.Model, "walk", interrupted)
    verb = "grid" if suffix == ".png" else "interpolate"
    result = run([verb, str(tmp_path / "a.safetensors"), "-o", str(tmp_path / f"out{suffix}")])
    assert calls and result.exit_code == 130 and "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_ctrl_c_leaves_whole_pictures_and_their_record(tmp_path: Path, monkeypatch) -> None:
    snapshot(tmp_path / "a.safetensors", DCGAN)
    part = sampling.Model.samples

    def interrupted(self, n, **settings):
        yield next(part(self, 4, **settings))
        raise KeyboardInterrupt

    arguments = ["generate", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "out"), "-n", "6"]
    with monkeypatch.context() as patched:
        patched.setattr(sampling.Model, "samples", interrupted)
        assert run(arguments).exit_code == 130
    assert len(list((tmp_path / "out").iterdir())) == 4 + 1
    assert json.loads((tmp_path / "out" / "generated.json").read_text())["n"] == 4
    assert run(arguments).exit_code == 0  # the same command ends it
    assert len(list((tmp_path / "out").iterdir())) == 6 + 1


def test_the_report_of_a_folder_without_a_study_is_a_sentence(tmp_path: Path) -> None:
    result = run(["report", str(tmp_path)])
    assert result.exit_code == 66 and f"error: {tmp_path}: no study in this folder" in result.stderr


def test_clean_keeps_the_newest_and_those_that_are_held(tmp_path: Path) -> None:
    for age, job in enumerate(("new", "held", "old")):
        with held(tmp_path / "train" / job) as folder:
            (folder / "state").write_bytes(bytes(2**20))
        os.utime(tmp_path / "train" / job / "lock", (time.time() - age * 100,) * 2)
    arguments = ["clean", "--keep", "1", "--work", str(tmp_path)]
    with (tmp_path / "train" / "held" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        listed = run([*arguments, "--dry-run"]).stdout
        assert f"{tmp_path}/train/old: 1.0 MiB\n1.0 MiB would be freed" in listed and "held" not in listed
        assert len(list((tmp_path / "train").iterdir())) == 3
        assert run(arguments).stdout == "1.0 MiB freed\n"
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["held", "new"]
