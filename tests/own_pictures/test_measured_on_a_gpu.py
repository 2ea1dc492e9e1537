"""Probe and measurements of `pygan train` compute on the GPU that was chosen: a stand-in finds what was left behind."""

import json

import pytest
import torch
from stand_in_device import stand_in_gpu
from tiny_runs import KIMG

from pygan import assets, train_folder
from pygan.bank import Choice, choose
from pygan.data.manifest import open_split
from pygan.errors import MissingInput
from pygan.folder_settings import Settings
from pygan.sampling import load_generator

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU is there")


def test_a_run_is_probed_and_measured_with_the_bits_of_the_cpu(pictures, judged, tmp_path, monkeypatch):
    run = Settings(pictures=pictures, out=tmp_path / "run", kimg=KIMG, seed=3)
    expected = train_folder.train_folder(run, print)
    for name in ("run.json", "metrics.json", "selected.json"):
        (run.out / name).unlink()
    said: list[str] = []
    with stand_in_gpu(monkeypatch):
        found = train_folder.train_folder(run, said.append)
    assert said[0].startswith("device: the GPU stand-in trains (")
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    device = json.loads((run.out / "run.json").read_text())["device"]
    assert (device["type"], device["name"]) == ("cuda", "stand-in") and device["why"] in said[0]

    try:
        assets.find("onet.pt")
    except MissingInput as error:
        pytest.skip(str(error))
    bank = [{"kind": "mtcnn_onet"}, {"kind": "pixels"}]
    arguments = (Choice(bank=bank, count=1, n_images=12), open_split(run.out / "data" / "manifest.json", "train"))
    snapshot = run.out / "snapshots" / "000000128.safetensors"
    answer = choose(*arguments, load_generator(snapshot), seed=3)
    with stand_in_gpu(monkeypatch):
        assert choose(*arguments, load_generator(snapshot).to("cuda"), seed=3) == answer
