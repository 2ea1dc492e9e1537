"""`pygan train FOLDER`: plan, rejected pictures, interruption and continuation, other settings, and its records."""

import io
import json
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import HERE, KIMG, interrupt_at, pixels
from tqdm import tqdm
from typer.testing import CliRunner

import pygan
from pygan import assets, folder_pictures, folder_plan, folder_training, train_folder
from pygan.checkpoint import read_tensors, write_tensors
from pygan.cli import app
from pygan.data.manifest import read_manifest
from pygan.errors import ConfigError, DataError, MissingInput, PyganError, Stopped
from pygan.folder_settings import Settings
from pygan.lock import held
from pygan.wording import duration


def test_an_interrupted_run_continues_and_ends_the_same(pictures, judged, tmp_path, monkeypatch, capfd):
    said: list[str] = []
    handler = signal.getsignal(signal.SIGINT)
    whole = Settings(pictures=pictures, out=tmp_path / "whole", kimg=KIMG, seed=3)
    record = train_folder.train_folder(whole, said.append)

    # The plan comes first, and the device first of all, then where pictures will be; the result last
    assert said[0].startswith("device: the CPU trains (")
    assert said[1] == f"pictures so far: {whole.out}/snapshots/*.png"
    assert "40 kept" in said[0] and "1 other file left alone" in said[0] and "small: on a CPU" in said[0]
    assert "resolution: 16 pixels (nine of ten pictures have 17 or more)" in said[0]
    assert "no FID" in said[-1] and "pictures that training did not see" in said[-1]
    assert signal.getsignal(signal.SIGINT) == handler

    # Records
    counts = {split: entry["n"] for split, entry in read_manifest(whole.out / "data/manifest.json")["splits"].items()}
    assert sum(counts.values()) == 40
    assert record == json.loads((whole.out / "metrics.json").read_text())
    assert {"fd_mobilenet_v2", "kid_mobilenet_v2"} <= record["metrics"].keys() == record["training_pictures"].keys()
    assert not any("fid" in name for name in record["metrics"])
    assert (record["protocol"]["n_real"], record["protocol"]["reference_split"]) == (counts["test"], "test")
    run = json.loads((whole.out / "run.json").read_text())
    assert (run["n_images"], run["nimg"], run["seed"]) == (counts["train"], 128, 3)
    assert run["device"]["type"] == "cpu" and run["device"]["why"] in said[0]
    assert run["recipe"] == "small" and run["methods"] == ["diffaug", "r1"]
    assert Image.open(whole.out / "samples.png").size == (8 * 16 * 2, 8 * 16 * 2)
    selected = json.loads((whole.out / "selected.json").read_text())
    assert pygan.load(whole.out).metadata["nimg"] == selected["nimg"]
    assert selected["scores"][str(selected["nimg"])] == min(selected["scores"].values())

    # Interrupted and continued
    parts = Settings(**{**vars(whole), "out": tmp_path / "parts"})
    with monkeypatch.context() as patch:
        interrupt_at(64, patch)
        with pytest.raises(Stopped, match="stopped by a signal at 96 images, state saved; the same command continues"):
            train_folder.train_folder(parts, said.append)
    assert "stopping: saving the state" in capfd.readouterr().err
    assert not tqdm._instances, "the bar is closed before the message"
    assert not (parts.out / "run.json").exists()
    train_folder.train_folder(parts, said.append)
    last = "snapshots/000000128.safetensors"
    assert (parts.out / last).read_bytes() == (whole.out / last).read_bytes()
    again = json.loads((parts.out / "metrics.json").read_text())
    assert again["metrics"] == record["metrics"]

    # Finished: nothing is computed again
    monkeypatch.setattr(folder_training, "train", None)
    said.clear()
    assert train_folder.train_folder(parts, said.append) == again
    assert len(said) == 2 and f"{parts.out} is finished" in said[0] and "next: " in said[1]
    assert f"pygan generate {parts.out} -o generated/" in said[1]


def test_other_settings_and_other_pictures_are_refused(pictures, judged, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(20):
        Image.fromarray(pixels(i, 16, 16)).save(folder / f"{i}.png")
    settings = Settings(pictures=folder, out=tmp_path / "run", seed=1)
    folder_plan.planned(settings, HERE, print)
    for name, value in {
        "seed": 2,
        "fit": "pad",
        "batch": 16,
        "mirror": True,
        "skip_bad": True,
        "pictures": pictures,
    }.items():
        other = Settings(**{**vars(settings), name: value})
        option = "pictures" if name == "pictures" else f"--{name.replace('_', '-')}"
        with pytest.raises(ConfigError, match=f"^{option}: got .* was started with") as error:
            train_folder.train_folder(other, print)
        assert error.value.exit_code == 78
    Image.fromarray(pixels(99, 16, 16)).save(folder / "one more.png")
    with pytest.raises(ConfigError, match=r"the files changed after .*run was started"):
        train_folder.train_folder(settings, print)


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_every_rejected_file_is_listed_with_its_reason(judged, tmp_path):
    """Kept: gray, 16-bit gray, palette, RGBA, CMYK and non-square pictures; the rest has a reason."""
    rgb = Image.fromarray(pixels(0, 24, 24))
    good = {f"{i}.png": encoded(Image.fromarray(pixels(i, 24, 24)), "PNG") for i in range(30)}
    good |= {
        "gray.png": encoded(rgb.convert("L"), "PNG"),
        "deep.png": encoded(Image.fromarray(pixels(1, 24, 24)[..., 0].astype(np.uint16) * 257), "PNG"),
        "palette.gif": encoded(rgb.convert("P"), "GIF"),
        "alpha.png": encoded(Image.fromarray(pixels(2, 24, 24, 4)), "PNG"),
        "print.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "wide.png": encoded(Image.fromarray(pixels(3, 24, 90)), "PNG"),
        "ribbon.png": encoded(Image.fromarray(pixels(4, 16, 1600)), "PNG"),
    }
    noise = encoded(Image.fromarray(pixels(5, 64, 64)), "JPEG")
    broken = bytearray(encoded(rgb, "PNG"))
    broken[broken.index(b"IDAT") + 20] ^= 255
    bad = {
        "truncated.jpg": (noise[: len(noise) // 2], "not a readable picture"),
        "empty.png": (b"", "not a picture of a known format"),
        "page.jpg": (b"<html>404</html>", "not a picture of a known format"),
        "crc.png": (bytes(broken), "not a readable picture"),
        "bomb.png": (encoded(Image.new("1", (9000, 9000)), "PNG"), "more than the limit"),
        "one.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), "1x1 is smaller than the resolution 16"),
        "line\nbreak\t.png": (b"", "not a picture of a known format"),
    }
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in (good | {name: content for name, (content, _) in bad.items()}).items():
        (folder / name).write_bytes(content)
    (folder / "photo.cr2").write_bytes(b"")

    strict = Settings(pictures=folder, out=tmp_path / "run")
    with pytest.raises(DataError, match=rf"{len(bad)} pictures can't be used, the first is .* --skip-bad") as error:
        train_folder.train_folder(strict, print)
    assert error.value.exit_code == 65 and not (strict.out / "plan.json").exists()
    rows = dict(row.split("\t") for row in (strict.out / "rejected.tsv").read_text().splitlines()[1:])
    assert re.match("left out: raw data of a camera", rows.pop("photo.cr2"))
    assert rows.keys() == {name.replace("\n", " ").replace("\t", " ") for name in bad}
    for name, (_, reason) in bad.items():
        assert reason in rows[name.replace("\n", " ").replace("\t", " ")]

    # The same folder can go on without them: nothing has been started
    plan = folder_plan.planned(Settings(pictures=folder, out=tmp_path / "run", skip_bad=True), HERE, print)
    assert f"{len(good)} kept" in plan["text"] and f"{len(bad)} rejected" in plan["text"]
    manifest = read_manifest(strict.out / "data" / "manifest.json")
    assert sum(entry["n"] for entry in manifest["splits"].values()) == len(good)
    assert len(manifest["rejected"]) == len(bad)


@pytest.mark.parametrize(
    ("fit", "sizes", "device", "expected"),
    [
        ("crop", [(40, 100)] * 10, "cpu", 32),
        ("pad", [(40, 100)] * 10, "cpu", 64),
        ("crop", [(1, 1)] + [(70, 70)] * 10, "cpu", 64),
        ("crop", [(1, 1)] * 2 + [(70, 70)] * 10, "cpu", 16),
        ("crop", [(4000, 3000)] * 10, "cpu", 64),
        ("crop", [(4000, 3000)] * 10, "cuda", 256),
        ("crop", [], "cpu", 32),
    ],
)
def test_the_resolution_is_what_nine_of_ten_pictures_have(fit, sizes, device, expected):
    assert folder_pictures.choose_resolution(sizes, fit=fit, asked=None, device=device)[0] == expected
    assert folder_pictures.choose_resolution(sizes, fit=fit, asked=128, device=device)[0] == 128


def test_a_training_begins_with_the_networks_of_another_one(pictures, judged, tmp_path, monkeypatch):
    """Transfer takes what fits and begins anew; going on with a folder is another thing and takes all of it."""
    said: list[str] = []
    first = Settings(pictures=pictures, out=tmp_path / "first", kimg=KIMG, seed=3)
    train_folder.train_folder(first, said.append)
    selected = json.loads((first.out / "selected.json").read_text())["snapshot"]
    source, _ = read_tensors(first.out / "snapshots" / selected)

    second = replace(first, out=tmp_path / "second", seed=4, init_from=first.out)
    with monkeypatch.context() as patch:
        interrupt_at(64, patch)
        with pytest.raises(Stopped):
            train_folder.train_folder(second, said.append)
    plan = json.loads((second.out / "plan.json").read_text())
    assert plan["init_from"] == str((first.out / "snapshots" / selected).resolve())
    assert plan["reasons"]["base"].startswith("that of --init-from")
    assert "that of --init-from" in plan["text"] and plan["config"]["base"]["g_channels"] == 4
    start, metadata = read_tensors(second.out / "snapshots" / "000000000.safetensors")
    assert metadata["nimg"] == 0
    assert all(torch.equal(start[k], v) for k, v in source.items() if k.startswith("G."))
    assert sum("took " in line for line in said) == 1

    # The interrupted run goes on from its own checkpoint; without --init-from it is another run
    with pytest.raises(ConfigError, match=r"--init-from: got None, but .*second was started with .*first"):
        train_folder.train_folder(replace(second, init_from=None), said.append)
    (first.out / "snapshots" / selected).rename(tmp_path / "moved")
    train_folder.train_folder(second, said.append)
    assert sum("took " in line for line in said) == 1
    assert json.loads((second.out / "run.json").read_text())["nimg"] == 128


def test_what_a_training_cannot_begin_with(pictures, tmp_path):
    def refusal(path) -> Exception:
        with pytest.raises(PyganError) as caught:
            folder_plan.planned(Settings(pictures=pictures, out=tmp_path / "run", init_from=path), HERE, print)
        return caught.value

    assert refusal(tmp_path / "none").exit_code == 66
    bare = tmp_path / "bare.safetensors"
    write_tensors(bare, {"G.a": torch.zeros(1)})
    assert "does not describe its networks" in str(refusal(bare))
    other = tmp_path / "other.safetensors"
    write_tensors(other, {"G.a": torch.zeros(1)}, {"base": {"kind": "biggan"}, "context": {"resolution": 16}})
    assert refusal(other).exit_code == 78
    assert not (tmp_path / "run" / "plan.json").exists()


def test_the_time_is_estimated_from_the_first_steps(monkeypatch):
    """Steps of 10 images, one a second, after a slow first one: 1000 images take 100 seconds."""
    clock, said = iter([0.0, 50.0, *range(100, 300)]), []
    monkeypatch.setattr(folder_training.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(folder_training.sys.stderr, "isatty", lambda: True, raising=False)
    batch = folder_training._timed(lambda index: index, 1000, said.append)
    batch(np.arange(100))  # the monitor
    for nimg in range(0, 1000, 10):
        batch(np.arange(nimg, nimg + 10))
    assert said == ["170 of 1000 images, 10 a second: about 83 seconds to go"]
    assert [duration(s) for s in (5, 90, 3600, 9000)] == [
        "5 seconds",
        "2 minutes",
        "60 minutes",
        "2.5 hours",
    ]


@pytest.mark.slow
def test_what_stops_it_before_anything_is_computed(pictures, tmp_path, monkeypatch):
    def run(*options: str) -> tuple[int, str]:
        arguments = ["train", str(pictures), "--out", str(tmp_path / "run"), *options]
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, result.stderr

    with monkeypatch.context() as patch:  # no network file, and no attempt to fetch it
        patch.setattr(assets, "_locate", lambda entry: None)
        code, words = run()
        assert code == 66 and "mobilenet_v2" in words and "pygan assets install" in words
        assert not (tmp_path / "run").exists()
    try:
        assets.find("mobilenet_v2-b0353104.pth")
    except MissingInput as error:
        pytest.skip(str(error))
    assert CliRunner().invoke(app, ["train", str(tmp_path / "none"), "--out", str(tmp_path / "run")]).exit_code == 66
    assert run("--out", str(pictures / "runs"))[0] == 78
    assert run("--recipe", "secret")[0] == 2
    assert run("--fit", "squeeze")[0] == 2
    assert run("--resolution", "48")[0] == 2
    code, words = run("--resolution", "32")
    assert code == 65 and "40 pictures can't be used" in words and "smaller than the resolution 32" in words
    with held(tmp_path / "run"):
        code, words = run()
        assert code == 75 and f"held by pid {os.getpid()}" in words

    def ctrl_c(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_pictures, "prepare", ctrl_c)
    code, words = run()
    assert code == 75 and "interrupted; the same command continues" in words


def test_a_stop_in_the_last_step_is_not_forgotten(pictures, judged, tmp_path, monkeypatch):
    """Four steps of 32: Ctrl-C comes in the fourth, which ends the training; measuring waits for the same command."""
    run = Settings(pictures=pictures, out=tmp_path / "run", kimg=KIMG)
    with monkeypatch.context() as patch:
        interrupt_at(96, patch)
        with pytest.raises(Stopped):
            train_folder.train_folder(run, print)
    assert json.loads((run.out / "trained.json").read_text())["nimg"] == 128
    assert not (run.out / "run.json").exists()
    train_folder.train_folder(run, print)
    assert (run.out / "run.json").exists()
