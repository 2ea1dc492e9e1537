"""Stages that measure do so on the device that they were granted: a stand-in finds what was left behind."""

import json
from pathlib import Path

import pytest
import torch
from stand_in_device import stand_in_gpu
from tiny_stages import JUDGE, RUN, needs

from pipeline import evaluate, probe, reference, select
from pygan.draws import Draws

GRANTED = {"type": "cuda", "why": "1 GPU granted"}
RECORDED = {"type": "cuda", "name": "stand-in", "why": "1 GPU granted"}

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU is there")


@pytest.fixture
def on_both(tmp_path, monkeypatch):
    """Run a stage on the CPU and on the stand-in; return what it wrote, which has to be the same but for the device."""

    def run(module, inputs, **config):
        folders = {}
        for name in ("cpu", "gpu"):
            folders[name] = tmp_path / module.__name__ / name
            folders[name].mkdir(parents=True)
            spec = {"stage": module.__name__, "config": config}
            if name == "cpu":
                module.main(spec, inputs=inputs, out=folders[name])
            else:
                with stand_in_gpu(monkeypatch):
                    module.main(spec | {"device": GRANTED}, inputs=inputs, out=folders[name])
        for path in sorted(folders["cpu"].iterdir()):
            assert_same_record(path, folders["gpu"] / path.name)
        return folders["gpu"]

    return run


@pytest.fixture
def latents_on(monkeypatch):
    """The kinds of device on which generators got their latents."""
    normal, found = Draws.normal, []

    def noted(draws, *shape):
        values = normal(draws, *shape)
        if draws._name[1].endswith("/z"):
            found.append(values.device.type)
        return values

    monkeypatch.setattr(Draws, "normal", noted)
    return found


def assert_same_record(on_cpu: Path, on_gpu: Path) -> None:
    if on_cpu.suffix != ".json":
        assert on_cpu.read_bytes() == on_gpu.read_bytes()
        return
    expected, found = (json.loads(path.read_text()) for path in (on_cpu, on_gpu))
    for record in (expected, found):
        record.pop("seconds", None)
    assert expected.pop("device")["type"] == "cpu"
    assert RECORDED.items() <= found.pop("device").items()
    assert found == expected


def test_features_selection_and_metrics(on_both, trained, data, latents_on):
    needs("mobilenet_v2-b0353104.pth")
    features = on_both(reference, data, dataset="two", network=JUDGE) / "features.safetensors"
    snapshots = sorted((trained / "snapshots").glob("*.safetensors"))[1:]
    common = {"run": "tiny", "seed": 0, "network": JUDGE}
    inputs = {"snapshot": snapshots, "features": [features]}
    chosen = on_both(select, inputs, **common, metric={"kind": "kid"}, n_gen=12)
    metrics = [{"kind": "fid"}, {"kind": "kid"}, {"kind": "intra", "at_least": 4, "components": 2}]
    common |= {"dataset": "two", "subset": RUN["subset"], "n_gen": 16, "metrics": metrics, "gen_labels": "uniform"}
    inputs |= {"selected": [chosen / "selected.json"], "run_json": [trained / "run.json"], "train": data["train"]}
    on_both(evaluate, inputs, **common, subject="run")
    assert latents_on == ["cpu", "cpu", "cuda", "cuda", "cpu", "cuda"]  # two snapshots compete, one is measured


def test_a_classifier_judges_the_features_that_it_made(on_both, trained, data):
    network = {"kind": "efficientnet_lite0", "resolution": 32}
    needs("efficientnet-lite0-57934424.pth")
    features = on_both(reference, data, dataset="two", network=network) / "features.safetensors"
    chosen = trained.parent / "selected.json"
    chosen.write_text(json.dumps({"nimg": 24}))
    inputs = {"snapshot": [trained / "snapshots" / "000000024.safetensors"], "features": [features]}
    inputs |= {"selected": [chosen], "run_json": [trained / "run.json"], "train": data["train"]}
    metrics = [{"kind": "inception_score", "splits": 2}]
    common = {"run": "tiny", "seed": 0, "dataset": "two", "subset": RUN["subset"], "gen_labels": "uniform"}
    on_both(evaluate, inputs, **common, network=network, metrics=metrics, n_gen=8, subject="run")


def test_the_probe(on_both, trained, data, latents_on):
    bank = [{"kind": "mtcnn_onet", "random_init": True}, {"kind": "open_nsfw", "resolution": 32, "random_init": True}]
    settings = {"count": 1, "pick": "best", "random_init": False, "subset": RUN["subset"], "base": RUN["base"]}
    choice = {"n_images": 12, "criterion": "accuracy", "repeats": 2}
    inputs = {"train": data["train"], "snapshot": [trained / "snapshots" / "000000024.safetensors"]}
    on_both(probe, inputs, run="tiny", seed=0, bank=bank, probe=choice, **settings)
    assert latents_on == ["cpu", "cuda"]
