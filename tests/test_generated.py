"""The folder that `pygan generate` fills: what it records, what it refuses, and that no other picture is touched."""

import hashlib
import json
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_snapshot import DCGAN, STYLEGAN2, snapshot
from typer.testing import CliRunner

import pygan
from pygan import generated
from pygan.cli import app

CONFIG, USAGE = 78, 2


@pytest.fixture
def model(tmp_path: Path) -> Path:
    snapshot(tmp_path / "a.safetensors", DCGAN)
    return tmp_path / "a.safetensors"


def generate(model: Path, out: Path, *options: str):
    return CliRunner().invoke(app, ["generate", str(model), "-o", str(out), "--device", "cpu", *options])


def test_pictures_lie_beside_their_record(model: Path, tmp_path: Path) -> None:
    assert generate(model, tmp_path / "out", "-n", "3", "--seed", "5").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png", "generated.json"]
    for i, picture in enumerate(pygan.load(model).sample(3, seed=5)):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"out/{i:06d}.png")), picture.permute(1, 2, 0))
    assert json.loads((tmp_path / "out" / "generated.json").read_text()) == {
        "snapshot": str(model),
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "nimg": 64,
        "n": 3,
        "seed": 5,
        "label": None,
        "class": None,
        "truncation": 1.0,
        "steps": None,
        "pygan": pygan.__version__,
    }


def test_the_record_names_the_class(tmp_path: Path) -> None:
    snapshot(tmp_path / "a.safetensors", STYLEGAN2, num_classes=2, class_names=["cat", "dog"])
    assert generate(tmp_path / "a.safetensors", tmp_path / "out", "-n", "1", "--label", "dog").exit_code == 0
    record = json.loads((tmp_path / "out" / "generated.json").read_text())
    assert (record["label"], record["class"]) == (1, "dog")


@pytest.mark.parametrize("name", ["cat.jpg", "000000.png", "notes.txt"])
def test_a_folder_with_other_files_stays_as_it_is(model: Path, tmp_path: Path, name: str) -> None:
    """A picture of the user may have a number for its name."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / name).write_bytes(b"mine")
    refused = generate(model, folder, "-n", "1")
    assert refused.exit_code == CONFIG
    assert f"holds files that `pygan generate` did not write ({name})" in refused.stderr
    assert "for example generated/" in refused.stderr
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(name, b"mine")]


def test_pictures_that_were_put_among_generated_ones_are_seen(model: Path, tmp_path: Path) -> None:
    assert generate(model, tmp_path / "out", "-n", "1").exit_code == 0
    (tmp_path / "out" / "cat.jpg").write_bytes(b"mine")
    assert "did not write (cat.jpg)" in generate(model, tmp_path / "out", "-n", "1").stderr


def test_a_folder_goes_on_with_its_settings_and_refuses_others(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert generate(model, out, "-n", "2").exit_code == 0
    assert generate(model, out, "-n", "4").exit_code == 0
    assert generate(model, out, "-n", "1").exit_code == 0
    assert len(list(out.glob("*.png"))) == 4
    assert json.loads((out / "generated.json").read_text())["n"] == 4
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for options, words in (
        (("--seed", "3"), "holds pictures with seed 0, got 3: name another folder"),
        (("--truncation", "0.5"), "holds pictures with truncation 1.0, got 0.5"),
    ):
        refused = generate(model, out, *options)
        assert refused.exit_code == CONFIG and words in refused.stderr
    snapshot(model, DCGAN, nimg=128)
    assert "holds pictures with nimg 64, got 128" in generate(model, out).stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_file_and_a_damaged_record_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    refused = generate(model, tmp_path / "file")
    assert refused.exit_code == CONFIG and "got a file, expected a folder" in refused.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000000.png").write_bytes(b"mine")
    for content in ("{", "[]", "{}", '{"n": 1}'):
        (tmp_path / "out" / "generated.json").write_text(content)
        assert generate(model, tmp_path / "out").exit_code == 65
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "generated.json"]
    assert (tmp_path / "out" / "000000.png").read_bytes() == b"mine"


def test_nothing_is_written_where_the_settings_are_wrong(model: Path, tmp_path: Path) -> None:
    for options in (("--label", "1"), ("--truncation", "3"), ("--steps", "4")):
        assert generate(model, tmp_path / "out", *options).exit_code == USAGE
    assert generate(tmp_path / "nothing", tmp_path / "out").exit_code == 66
    assert not (tmp_path / "out").exists()


def test_the_folder_is_generated_unless_it_is_named(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["generate", str(model), "-n", "1"]).exit_code == 0
    assert (tmp_path / "generated" / "000000.png").is_file()


def test_the_memory_holds_one_batch(tmp_path: Path) -> None:
    """Of ten batches, the one that is written and the one that is being made are there at the same time at most."""
    alive, most = weakref.WeakSet(), 0

    def batches():
        nonlocal most
        for _ in range(10):
            img = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
            alive.add(img)
            most = max(most, len(alive))
            yield img
            del img

    generated.write(tmp_path / "out", {"n": 20}, batches())
    assert most <= 2 and len(list((tmp_path / "out").glob("*.png"))) == 20


def test_a_record_has_the_entries_by_which_it_is_known(model: Path) -> None:
    record = generated.describe(pygan.load(model, "cpu"), 1, seed=0, label=None, truncation=1.0, steps=None)
    assert record.keys() == generated._FREE | generated._SETTINGS


@pytest.mark.parametrize("name", ["000001.png", "000009.png", "0000000.png"])
def test_a_numbered_picture_that_was_not_generated_is_never_replaced(model: Path, tmp_path: Path, name: str) -> None:
    assert generate(model, tmp_path / "out", "-n", "1").exit_code == 0
    mine = tmp_path / "out" / name
    for save in (lambda: Image.new("RGB", (4, 4)).save(mine), lambda: mine.write_bytes(b"mine")):
        save()
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        refused = generate(model, tmp_path / "out", "-n", "3")
        assert refused.exit_code == CONFIG and f"did not write ({name})" in refused.stderr
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_call_that_is_killed_counts_what_is_there_and_goes_on(model: Path, tmp_path: Path) -> None:
    """It is killed in its second batch of two: three pictures are there, two of them counted."""
    program = f"""
        import os
        import pygan
        from pygan import generated

        model = pygan.load({str(model)!r}, "cpu")
        settings = dict(seed=0, label=None, truncation=1.0, steps=None)
        saved, part = [], generated.picture

        def picture(*args):
            if len(saved) == 3:
                os.kill(os.getpid(), 9)
            saved.append(1)
            return part(*args)

        generated.picture = picture
        pictures = model.sample(6)
        generated.write(generated.Path("out"), generated.describe(model, 6, **settings), pictures.split(2))
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, check=False)
    out = tmp_path / "out"
    assert killed.returncode == -9 and len(list(out.glob("*.png"))) == 3
    assert json.loads((out / "generated.json").read_text())["n"] == 2
    assert generate(model, out, "-n", "6").exit_code == 0
    assert len(list(out.glob("*.png"))) == 6 and json.loads((out / "generated.json").read_text())["n"] == 6


def test_two_calls_do_not_write_into_one_folder(model: Path, tmp_path: Path) -> None:
    """The second is refused while the first computes, and the first counts its pictures all the same."""
    out = tmp_path / "out"
    settings = {"seed": 0, "label": None, "truncation": 1.0, "steps": None}
    loaded = pygan.load(model, "cpu")
    refused = []

    def batches():
        refused.append(generate(model, out, "-n", "1"))
        yield loaded.sample(2)

    generated.write(out, generated.describe(loaded, 2, **settings), batches())
    assert refused[0].exit_code == 75 and f"{out}: another `pygan generate` is writing into it" in refused[0].stderr
    assert json.loads((out / "generated.json").read_text())["n"] == 2
    assert generate(model, out, "-n", "3").exit_code == 0
