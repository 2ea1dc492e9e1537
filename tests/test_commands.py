"""The verbs that use a trained model: what they write, and the exit codes of what they refuse."""

import functools
import importlib.util
import json

import numpy as np
from PIL import Image
from tiny_snapshot import DCGAN, snapshot
from typer.testing import CliRunner

import pygan
from pygan.cli import app


def test_the_verbs_write_what_they_say(tmp_path):
    snapshot(tmp_path / "a.safetensors", DCGAN)
    run = functools.partial(CliRunner().invoke, app)
    model, out = str(tmp_path / "a.safetensors"), tmp_path / "out"
    assert run(["generate", model, "-o", str(out / "pictures"), "-n", "3"]).exit_code == 0
    expected = pygan.load(model).sample(3)
    for i, picture in enumerate(expected):
        assert np.array_equal(np.asarray(Image.open(out / f"pictures/{i:06d}.png")), picture.permute(1, 2, 0))
    assert run(["grid", model, "-o", str(out / "grid.png"), "--rows", "2", "--columns", "3"]).exit_code == 0
    assert Image.open(out / "grid.png").size == (3 * 16 * 2, 2 * 16 * 2)
    arguments = ["interpolate", model, "-o", str(out / "walk.gif"), "--seeds", "1,2", "--frames", "3"]
    assert run(arguments).exit_code == 0
    assert Image.open(out / "walk.gif").n_frames == 2 * 3
    facts = json.loads(run(["inspect", model]).stdout)
    assert facts["nimg"] == 64 and facts["base"]["kind"] == "dcgan"
    wrong = run(["generate", model, "-o", str(out), "--label", "1"])
    assert wrong.exit_code == 2 and "has no classes" in wrong.stderr
    assert run(["inspect", str(tmp_path / "b")]).exit_code == 66


def test_a_video_without_its_package_is_refused_before_it_is_computed(tmp_path, monkeypatch):
    snapshot(tmp_path / "a.safetensors", DCGAN)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(pygan.sampling.Model, "interpolate", None)
    run = functools.partial(CliRunner().invoke, app)
    result = run(["interpolate", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "walk.mp4")])
    assert result.exit_code == 66 and "-m pip install av`" in result.stderr
    assert run(["interpolate", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "walk.avi")]).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
