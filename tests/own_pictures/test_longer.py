"""A larger `--kimg` continues a run: the bits of one so long from the start, and nothing is lost on the way."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import KIMG, interrupt_at

import pygan
from pygan import folder_plan, folder_training, train_folder
from pygan.checkpoint import read_tensors
from pygan.errors import ConfigError, MissingInput, Stopped
from pygan.folder_settings import Settings

LAST = "snapshots/000000256.safetensors"
RECORDS = ("selected.json", "samples.png", "metrics.json", "run.json")


@pytest.fixture(autouse=True)
def adaptive(small, monkeypatch):
    """The strength of ADA is part of the state, and moves at every step."""
    tiny = folder_plan.recipe

    def with_ada(*args, **kwargs):
        chosen = tiny(*args, **kwargs)
        ada = {"kind": "ada", "target": 0.0, "p": 0.1, "interval": 1, "speed_kimg": 1.0}
        return replace(chosen, run={**chosen.run, "augment": ada})

    monkeypatch.setattr(folder_plan, "recipe", with_ada)


def trained(settings: Settings) -> list[str]:
    said: list[str] = []
    train_folder.train_folder(settings, said.append)
    return said


@pytest.fixture
def finished(pictures, judged, tmp_path) -> Settings:
    """A run of four steps."""
    settings = Settings(pictures=pictures, out=tmp_path / "run", kimg=KIMG, seed=3)
    trained(settings)
    return settings


def records(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RECORDS}


def nimgs(out: Path) -> list[int]:
    return [json.loads(line)["nimg"] for line in (out / "stats.jsonl").read_text().splitlines()]


def test_a_run_that_is_made_longer_has_the_bits_of_a_long_one(finished, tmp_path, monkeypatch):
    whole = replace(finished, out=tmp_path / "whole", kimg=2 * KIMG)
    trained(whole)
    tensors, _ = read_tensors(whole.out / LAST)
    assert {"opt_G.", "opt_D.", "G_ema."} <= {f"{name.split('.')[0]}." for name in tensors}
    assert tensors["D.0.augment.p"] != 0.1

    before = json.loads((finished.out / "selected.json").read_text())
    longer = replace(finished, kimg=2 * KIMG)
    said = trained(longer)
    assert (finished.out / LAST).read_bytes() == (whole.out / LAST).read_bytes()
    assert "training: 256 images in steps of 32\n128 images were planned before" in said[0]
    assert "the last snapshot has the bits of a training that was so long from the start" in said[0]
    assert nimgs(finished.out) == sorted(set(nimgs(finished.out))) and nimgs(finished.out)[-1] == 256

    # Snapshots up to the former end stay, the others lie where the long run has them; the records are about all of it
    plan, whole_plan = (json.loads((run.out / "plan.json").read_text()) for run in (longer, whole))
    assert plan["settings"]["kimg"] == 2 * KIMG
    snapshots, others = (p["config"]["training"]["snapshots"] for p in (plan, whole_plan))
    assert [nimg for nimg in snapshots if nimg > 128] == [nimg for nimg in others if nimg > 128]
    assert ("lie elsewhere" in said[0]) == (snapshots != others)
    assert all((finished.out / f"snapshots/{nimg:09d}.safetensors").exists() for nimg in snapshots)
    run = json.loads((finished.out / "run.json").read_text())
    assert run["nimg"] == 256 and run["settings"]["kimg"] == 2 * KIMG
    after = json.loads((finished.out / "selected.json").read_text())
    assert after["scores"].keys() != before["scores"].keys() and "256" in after["scores"]

    # Now it is finished at the larger number, and the smaller one is refused
    monkeypatch.setattr(folder_training, "train", None)
    trained(longer)
    with pytest.raises(ConfigError, match=r"--kimg: got 0.128, but .* trains 0.256 thousand pictures, .* shorter"):
        trained(finished)
    with pytest.raises(ConfigError, match=r"--kimg: got None, but .* was started with 0.256; give it again"):
        trained(replace(finished, kimg=None))


class Killed(Exception):
    """What ends the program in the middle of it."""


def kill(*args, **kwargs):
    raise Killed


def test_nothing_is_lost_where_it_is_killed_on_the_way(finished, tmp_path, monkeypatch):
    old = records(finished.out)
    longer = replace(finished, kimg=2 * KIMG)

    # Before the plan was written: the old run is as it was
    with monkeypatch.context() as patch:
        patch.setattr(folder_plan, "write_json", kill)
        with pytest.raises(Killed):
            trained(longer)
    with monkeypatch.context() as patch:
        patch.setattr(folder_training, "train", None)
        assert "is finished" in trained(finished)[0]

    # After it, and then after the training and in the middle of the records: the old ones are there until new ones are
    for module, name in ((folder_training, "train"), (train_folder, "extract"), (train_folder, "save_grid")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, kill)
            with pytest.raises(Killed):
                trained(longer)
        if name != "save_grid":
            assert records(finished.out) == old
        assert pygan.load(finished.out).sample(1).shape == (1, 3, 16, 16)
        assert (finished.out / "run.json").read_bytes() == old["run.json"]
    trained(longer)
    assert json.loads((finished.out / "run.json").read_text())["nimg"] == 256
    whole = replace(longer, out=tmp_path / "whole")
    trained(whole)
    assert (finished.out / LAST).read_bytes() == (whole.out / LAST).read_bytes()


def test_an_interrupted_run_goes_on_to_the_larger_number(pictures, judged, tmp_path, monkeypatch):
    settings = Settings(pictures=pictures, out=tmp_path / "run", kimg=KIMG, seed=3)
    with monkeypatch.context() as patch:
        interrupt_at(32, patch)
        with pytest.raises(Stopped):
            trained(settings)
    trained(replace(settings, kimg=2 * KIMG))
    whole = replace(settings, out=tmp_path / "whole", kimg=2 * KIMG)
    trained(whole)
    assert (settings.out / LAST).read_bytes() == (whole.out / LAST).read_bytes()


def test_a_finished_run_without_checkpoints_cannot_be_made_longer(finished):
    shutil.rmtree(finished.out / "state")
    plan = (finished.out / "plan.json").read_bytes()
    with pytest.raises(MissingInput, match="state: the checkpoints are gone"):
        trained(replace(finished, kimg=2 * KIMG))
    assert (finished.out / "plan.json").read_bytes() == plan


def test_a_run_of_an_older_version_goes_on(pictures, judged, tmp_path, monkeypatch):
    """Its plan knows neither the newer settings nor stages."""
    settings = Settings(pictures=pictures, out=tmp_path / "run", kimg=KIMG, seed=3)
    with monkeypatch.context() as patch:
        interrupt_at(32, patch)
        with pytest.raises(Stopped):
            trained(settings)
    plan = json.loads((settings.out / "plan.json").read_text())
    for name in ("device", "processes", "batch", "precision", "mirror"):
        del plan["settings"][name]
    for name in ("device", "bank", "stages"):
        del plan[name]
    (settings.out / "plan.json").write_text(json.dumps(plan))
    trained(settings)
    assert json.loads((settings.out / "run.json").read_text())["nimg"] == 128
    with pytest.raises(ConfigError, match=r"--mirror: got True, but .* was started without it; leave it out, or"):
        trained(replace(settings, mirror=True))
