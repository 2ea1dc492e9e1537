"""`--recipe vision_aided_...`: stages, a probe before each pretrained network, and continuation at any point."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from tiny_runs import interrupt_at

from pygan import assets, folder_bank, folder_training, train_folder, weights
from pygan.checkpoint import read_tensors
from pygan.errors import MissingInput, PyganError, Stopped
from pygan.folder_settings import Settings
from pygan.recipes import AIDED_STAGES, recipe

FOLDERS = ("stages/models_0", "stages/models_1", "stages/models_2", ".")


@pytest.fixture
def bank(judged) -> None:
    """Skip where a packaged network is missing."""
    for file in ("efficientnet-lite0-57934424.pth", "open_nsfw.onnx", "onet.pt"):
        try:
            assets.find(file)
        except MissingInput as error:
            pytest.skip(str(error))
    pytest.importorskip("onnx")


def settings(pictures: Path, out: Path, **changes) -> Settings:
    """Two steps of 16 in each of the four stages: 7 times 16 are shared as 500 to 1000 to 1000 to 1000."""
    given = {"pictures": pictures, "out": out, "recipe": "vision_aided_paper256", "kimg": 0.112, "seed": 1}
    return Settings(**given | changes)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_published_lengths_follow_the_number_of_pictures():
    for n_images, expected in ((160, 3_500), (1_000, 6_500), (5_000, 12_500)):
        chosen = recipe(n_images, 256, name="vision_aided_paper256")
        kimgs = [kimg for _, kimg in chosen.before] + [chosen.run["training"]["total_nimg"] / 1000]
        assert sum(kimgs) == expected and tuple(kimgs) in AIDED_STAGES.values()
        counts = [sum(d.get("count", 0) for d in players) for players, _ in chosen.before]
        assert counts == [0, 1, 2]
        assert chosen.run["discriminators"][1]["count"] == 3
    assert recipe(160, 256, name="paper256").before == ()


@pytest.mark.slow
def test_networks_join_stage_by_stage_and_it_continues_at_any_point(pictures, bank, tmp_path, monkeypatch):
    said: list[str] = []
    whole = settings(pictures, tmp_path / "whole")
    train_folder.train_folder(whole, said.append)

    # The plan says what is done and what differs from the published setting
    assert "in stages of 16, 32, 32 and 32 images with 0, 1, 2 and 3 pretrained networks" in said[0]
    assert "which are packaged; published with Swin, CLIP, DINO and VGG" in said[0]
    assert "published: by the FID" in said[0] and "published with flipped ones (--mirror)" in said[0]

    # Each stage adds the network that the probe ranks first, and keeps those before
    answers = [read(whole.out / folder / "probe.json") for folder in FOLDERS[1:]]
    for i, answer in enumerate(answers):
        assert len(answer["chosen"]) == i + 1 and answer["used"] == answer["chosen"][:-1]
        assert set(answer["networks"]).isdisjoint(answer["used"]) and len(answer["networks"]) == 3 - i
        best = max(answer["networks"], key=lambda name: answer["networks"][name]["accuracy"])
        assert answer["networks"][answer["chosen"][-1]]["accuracy"] == answer["networks"][best]["accuracy"]
    names = answers[-1]["chosen"]
    assert sorted(names) == ["efficientnet_lite0", "mtcnn_onet", "open_nsfw"]
    assert read(whole.out / "run.json")["frozen"] == names
    assert read(whole.out / "run.json")["methods"] == ["ada", "vision_aided", "r1", "path_length"]
    last = read_last(whole.out / "stats.jsonl")
    assert {f"head/{name}/train" for name in names} <= last.keys()

    # A stage begins with the selected snapshot of the one before: its start, snapshot 0, has those networks
    for before, after in pairwise(FOLDERS):
        chosen = whole.out / before / "snapshots" / read(whole.out / before / "selected.json")["snapshot"]
        tensors, start = (
            read_tensors(file)[0] for file in (chosen, whole.out / after / "snapshots/000000000.safetensors")
        )
        shared = [name for name in tensors if name.startswith(("G.", "D.0.")) and ".augment." not in name]
        assert shared and all(tensors[name].equal(start[name]) for name in shared)
        assert not any(name.startswith("opt_") for name in start)

    # Interrupted in the probe, in the training of a stage, while a snapshot is chosen: it ends the same
    parts = settings(pictures, tmp_path / "parts")

    def ctrl_c(*args, **kwargs):
        raise KeyboardInterrupt

    interruptions = [
        lambda patch: patch.setattr(train_folder, "_selected", ctrl_c),
        lambda patch: patch.setattr(train_folder, "choose", ctrl_c),
        lambda patch: interrupt_at(8, patch, 8),
        lambda patch: patch.setattr(folder_training, "read_tensors", ctrl_c),
    ]
    for interruption in interruptions:
        with monkeypatch.context() as patch:
            interruption(patch)
            with pytest.raises(Stopped):
                train_folder.train_folder(parts, said.append)
    train_folder.train_folder(parts, said.append)
    for folder in FOLDERS:
        names = sorted(path.name for path in (whole.out / folder / "snapshots").glob("*.safetensors"))
        for name in names:
            ours, theirs = (run.out / folder / "snapshots" / name for run in (parts, whole))
            assert ours.read_bytes() == theirs.read_bytes()

    # Longer: the last stage goes on, the others keep their lengths
    said.clear()
    train_folder.train_folder(settings(pictures, parts.out, kimg=0.144), said.append)
    assert (
        "in stages of 16, 32, 32 and 64 images" in said[0] and "unlike in a training so long from the start" in said[0]
    )
    assert read(parts.out / "run.json")["nimg"] == 64
    assert [read(parts.out / folder / "trained.json")["nimg"] for folder in FOLDERS] == [16, 32, 32, 64]


def read_last(path: Path) -> dict:
    return json.loads(path.read_text().splitlines()[-1])


def test_a_packaged_network_that_is_missing_stops_it_before_pictures_are_prepared(
    pictures, judged, tmp_path, monkeypatch
):
    locate = assets._locate
    monkeypatch.setattr(assets, "_locate", lambda entry: None if "onet" in entry["file"] else locate(entry))
    with pytest.raises(MissingInput, match=r"facenet_pytorch/data/onet.pt .* is missing: run `pygan assets install`"):
        train_folder.train_folder(settings(pictures, tmp_path / "run"), print)
    assert not (tmp_path / "run" / "data").exists()


def test_published_networks_are_taken_where_their_weights_are(bank, tmp_path, monkeypatch):
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    packaged, why = folder_bank.bank_for(64)
    assert packaged == (
        {"kind": "efficientnet_lite0", "resolution": 64},
        {"kind": "open_nsfw", "resolution": 64},
        {"kind": "mtcnn_onet"},
    )
    assert "packaged" in why
    here = [{"kind": "swin", "mean": "clip"}, {"kind": "vgg16"}, {"kind": "clip_vit"}]
    monkeypatch.setattr(folder_bank, "_is_here", lambda entry: entry in here)
    published, why = folder_bank.bank_for(64)
    assert sorted(entry["kind"] for entry in published) == ["clip_vit", "swin", "vgg16"] and "(3 are not" in why


def test_a_judge_is_no_player():
    assert train_folder.JUDGE["kind"] not in {kind for kind, _ in folder_bank.PACKAGED_BANK}
    assert issubclass(MissingInput, PyganError)
