"""The stages from training to pruning on a tiny class-conditional data set, as functions."""

import json
from pathlib import Path

import pytest
import torch
from tiny_stages import JUDGE, RUN, needs, stage
from typer.testing import CliRunner

from pipeline import evaluate, probe, prune_round, reference, select, train, train_denoiser
from pygan.checkpoint import read_tensors, write_tensors
from pygan.cli import app
from pygan.errors import ConfigError, DataError, TryAgain
from pygan.sampling import load_generator, sample
from pygan.training.runstate import StopFlag

BANK = [{"kind": "mtcnn_onet"}, {"kind": "efficientnet_lite0", "resolution": 32, "taps": ["block4", "block10"]}]


def test_train_records_what_it_did(trained):
    record = json.loads((trained / "run.json").read_text())
    assert (record["run"], record["nimg"], record["n_images"]) == ("tiny", 24, 12)
    assert record["methods"] == ["diffaug", "r1"]
    assert record["ops"]["backend"] in ("native", "reference")
    assert record["masks"] is None
    G = load_generator(trained / "snapshots" / "000000024.safetensors")
    assert G.num_classes == 2
    assert sample(G, 5, seed=0).shape == (5, 3, 32, 32)


def prune(
    out: Path, data: dict[str, list[Path]], number: int = 1, ticket: dict | None = None, **inputs: list[Path]
) -> Path:
    config = {"run": "t", "seed": 0, "round": number, "base": RUN["base"], "ticket": ticket}
    return stage(prune_round, out, {"manifest": data["manifest"]} | inputs, **config)


def test_a_ticket_is_found_and_trained(trained, data, tmp_path):
    """The paper's algorithm: G and D, rewound to the start bit by bit, masked to the end."""
    ticket = {"kind": "lottery", "found_in": "tiny", "networks": ["G", "D"]}
    masks = prune(tmp_path / "prune", data, ticket=ticket, snapshot=[trained / "snapshots" / "000000024.safetensors"])
    record = json.loads((masks / "prune.json").read_text())
    assert record["sparsity"] == pytest.approx(0.2, abs=1e-3)
    shares = record["shares"]
    assert shares["all"]["living"] == shares["G"]["living"] + shares["D"]["living"]
    assert shares["G"]["sparsity"] < shares["G_conv"]["sparsity"]
    assert record["sparsity_of_generator"] == shares["G"]["sparsity"] < record["sparsity"]
    assert record["dense_of_same_size"]["g_channels"] in (3, 4)

    file = masks / "mask.safetensors"
    out = stage(train, tmp_path / "train", data | {"mask": [file]}, **RUN | {"ticket": {"kind": "lottery"}})
    living, metadata = read_tensors(file)
    assert metadata["base"] == RUN["base"] and metadata["round"] == 1
    assert {name.partition(".")[0] for name in living} == {"G", "D"}
    dense, start, end = (
        read_tensors(path)[0]
        for path in (
            *((t / "snapshots" / "000000000.safetensors") for t in (trained, out)),
            out / "snapshots" / "000000024.safetensors",
        )
    )
    for name, tensor in dense.items():
        if name.startswith(("G.", "D.")):  # parameters, statistics, singular vectors
            expected = tensor * living[name] if name in living else tensor
            assert torch.equal(start[name], expected), name
    for name, mask in living.items():
        assert (end[name][mask == 0] == 0).all()
        assert (end[name][mask == 1] != start[name][mask == 1]).any()
    record = json.loads((out / "run.json").read_text())
    assert record["masks"]["sparsity"] == pytest.approx(0.2, abs=1e-3)
    assert record["methods"] == ["diffaug", "r1", "lottery"]


def test_the_next_round_and_the_controls_follow_from_a_mask(trained, data, tmp_path):
    snapshot = {"snapshot": [trained / "snapshots" / "000000024.safetensors"]}
    ticket = {"kind": "lottery", "found_in": "tiny"}
    first = prune(tmp_path / "1", data, ticket=ticket, **snapshot) / "mask.safetensors"
    second = prune(tmp_path / "2", data, 2, ticket, **snapshot, mask=[first]) / "mask.safetensors"
    random = prune(tmp_path / "r", data, ticket={"kind": "random", "found_in": "tiny", "like": "t"}, like=[second])
    same = prune(tmp_path / "s", data, ticket={"kind": "transfer", "mask_of": "t"}, like=[second])
    a, b, c, d = (
        read_tensors(path)[0] for path in (first, second, random / "mask.safetensors", same / "mask.safetensors")
    )
    total = sum(m.numel() for m in a.values())
    for name in a:
        assert (b[name] <= a[name]).all()
        assert c[name].sum() == b[name].sum()
        assert torch.equal(d[name], b[name])
    for number, masks in ((1, a), (2, b)):
        assert abs(sum(int(m.sum()) for m in masks.values()) - total * 0.8**number) <= number
    overlap = json.loads((random / "prune.json").read_text())["overlap_with_like"]
    assert overlap["intersection_over_union"] == pytest.approx(overlap["expected_by_chance"], abs=0.05)
    assert json.loads((same / "prune.json").read_text())["overlap_with_like"]["intersection_over_union"] == 1

    spoken = json.loads(CliRunner().invoke(app, ["masks", str(first), str(second)]).stdout)
    assert spoken["shares"] == json.loads((first.parent / "prune.json").read_text())["shares"]
    assert spoken["overlap"]["intersection_over_union"] == pytest.approx(0.8, abs=1e-3)  # nested
    missing = CliRunner().invoke(app, ["masks", str(tmp_path / "none.safetensors")])
    assert missing.exit_code == 66 and "no such file" in missing.stderr


def test_a_mask_for_another_architecture_stops_the_training_before_it_starts(data, tmp_path):
    mask = tmp_path / "mask.safetensors"
    write_tensors(mask, {"G.convs.0.weight": torch.ones(4, 4, 3, 3, dtype=torch.uint8)})
    with pytest.raises(DataError, match=r"made for another architecture, convs\.0\.weight is no parameter of this one"):
        stage(train, tmp_path / "train", data | {"mask": [mask]}, **RUN | {"ticket": {"kind": "transfer"}})


CHOICE = {"count": 1, "pick": "best", "random_init": False}
PROBE = {"n_images": 12, "criterion": "accuracy", "repeats": 3}


def probed(out: Path, inputs: dict[str, list[Path]], **changes) -> dict:
    """The answer of the probe, and its file under "path"."""
    fields = {key: RUN[key] for key in ("run", "seed", "base", "subset")} | {"bank": BANK, "probe": PROBE} | CHOICE
    path = stage(probe, out, inputs, **fields | changes) / "probe.json"
    return json.loads(path.read_text()) | {"path": path}


def test_the_probe_chooses_and_the_chosen_network_joins(trained, data, tmp_path):
    needs("onet.pt", "efficientnet-lite0-57934424.pth")
    start = {"init": [trained / "snapshots" / "000000012.safetensors"]}
    inputs = {"train": data["train"], "snapshot": start["init"]}
    answer = probed(tmp_path / "probe", inputs)
    assert set(answer["networks"]) == {"mtcnn_onet", "efficientnet_lite0"}
    (name,) = answer["chosen"]
    assert answer["networks"][name]["accuracy"] == max(n["accuracy"] for n in answer["networks"].values())
    (frozen,) = answer["frozen"]
    assert frozen["separable"] == (answer["networks"][name]["accuracy"] > 0.9)

    control = probed(tmp_path / "control", inputs, pick="worst", random_init=True)
    worst = min(control["networks"], key=lambda n: control["networks"][n]["accuracy"])
    assert control["frozen"][0]["name"] == worst and control["frozen"][0]["entry"]["random_init"] is True

    players = [{"kind": "plain"}, {"kind": "vision_aided"}]
    aided = RUN | {"discriminators": players, "continues": {"run": "tiny", "nimg": 12}, "frozen": answer["frozen"]}
    out = stage(train, tmp_path / "train", data | start | {"probe": [answer["path"]]}, **aided)
    record = json.loads((out / "run.json").read_text())
    assert (record["nimg_start"], record["frozen"]) == (12, [name])
    last = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    assert {f"head/{name}/train", f"head/{name}/validation", f"head/{name}/generated"} <= last.keys()


@pytest.mark.slow
def test_two_stages_with_an_interruption_add_one_network_each(trained, data, tmp_path):
    """Baseline, probe, +1 network (stopped and resumed), best snapshot, probe of the rest, +1 network."""
    needs("onet.pt", "efficientnet-lite0-57934424.pth", "mobilenet_v2-b0353104.pth")
    ada = {"kind": "ada", "target": 1, "p": 0.5, "interval": 1, "speed_kimg": 0.04}  # p falls by 0.1 a step
    aided = {"kind": "vision_aided", "heads": "equalized", "objective": "bce", "augment": ada, "cutout": True}
    reset = ["optimizers", "augment"]
    start = [trained / "snapshots" / "000000024.safetensors"]
    first = probed(tmp_path / "probe one", {"train": data["train"], "snapshot": start})
    one = RUN | {
        "run": "one",
        "discriminators": [{"kind": "plain"}, aided],
        "continues": {"run": "tiny", "nimg": 24, "reset": reset},
        "frozen": first["frozen"],
        "training": RUN["training"] | {"total_nimg": 56, "snapshots": [48, 56], "checkpoint_nimg": 56},
    }
    inputs = data | {"init": start, "probe": [first["path"]]}
    folder = tmp_path / "one"
    interrupted = iter([False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            StopFlag, "set", property(lambda flag: next(interrupted, False), lambda flag, value: None), raising=False
        )
        with pytest.raises(TryAgain, match="stopped by a signal at 32 images"):
            stage(train, folder, inputs, **one)
    train.main({"stage": "train", "config": one}, inputs=inputs, out=folder / "out")
    assert json.loads((folder / "out" / "run.json").read_text())["nimg"] == 56

    features = stage(reference, tmp_path / "reference", data, dataset="two", network=JUDGE) / "features.safetensors"
    candidates = sorted((folder / "out" / "snapshots").glob("*.safetensors"))
    common = {"run": "one", "seed": 0, "network": JUDGE, "metric": {"kind": "kid"}, "n_gen": 12}
    selected = stage(select, tmp_path / "select", {"snapshot": candidates, "features": [features]}, **common)
    chosen = {"selected": [selected / "selected.json"]}
    best = json.loads(chosen["selected"][0].read_text())["nimg"]

    second = probed(
        tmp_path / "probe two",
        {"train": data["train"], "snapshot": candidates, "used": [first["path"]], **chosen},
        count=2,
    )
    assert second["used"] == first["chosen"] and set(second["networks"]).isdisjoint(first["chosen"])
    assert second["chosen"] == [*first["chosen"], *second["networks"]]
    two = one | {
        "run": "two",
        "discriminators": [{"kind": "plain"}, aided | {"count": 2}],
        "continues": {"run": "one", "nimg": "best", "reset": reset},
        "frozen": second["frozen"],
        "training": RUN["training"] | {"total_nimg": 8, "snapshots": [4, 8], "checkpoint_nimg": 8},
    }
    out = stage(train, tmp_path / "two", data | {"init": candidates, **chosen}, **two)
    record = json.loads((out / "run.json").read_text())
    assert (record["nimg_start"], record["nimg"], record["frozen"]) == (0, 8, second["chosen"])

    last = read_tensors(out / "snapshots" / "000000008.safetensors")[0]
    before = read_tensors(folder / "out" / "snapshots" / f"{best:09d}.safetensors")[0]
    steps = {name: tensor for name, tensor in last.items() if name.startswith("opt_") and name.endswith(".step")}
    assert steps and all(step == 2 for step in steps.values())  # they began again
    assert before["D.1.augment.p"] < 0.25  # six steps or more, unless no real picture scored below 0
    assert last["D.1.augment.p"] > 0.25 and last["D.2.augment.p"] > 0.25  # two steps since they began again
    learned = {name for name in before if name.startswith("D.1.head.")}
    assert learned and all(before[name].shape == last[name].shape for name in learned)
    head = next(name for name in learned if name.endswith("weight") and before[name].dim() == 4)
    assert (last[head] - before[head]).abs().max() < 0.1  # the old head went on from where it was


def test_heads_alone_may_play(trained, data, tmp_path):
    players = [{"kind": "vision_aided", "width": 4, "networks": [{"kind": "pixels"}]}]
    start = {"init": [trained / "snapshots" / "000000012.safetensors"]}
    alone = RUN | {
        "discriminators": players,
        "regularizers": [],
        "continues": {"run": "tiny", "nimg": 12, "reset": ["discriminators"]},
    }
    out = stage(train, tmp_path / "train", data | start, **alone)
    assert json.loads((out / "run.json").read_text())["frozen"] == ["pixels"]
    tensors = read_tensors(out / "snapshots" / "000000024.safetensors")[0]
    assert not any(name.startswith("D.0.network") for name in tensors)


def test_a_denoiser_is_trained_selected_and_measured_like_a_gan(data, tmp_path):
    """Two classes, warped pictures, stopped and resumed, then another run that goes on."""
    unet = {"kind": "unet", "channels": 4, "multipliers": [1, 1, 1], "blocks": 1, "attention": [], "conditional": True}
    loss = {"kind": "chain", "steps": 2}
    run = RUN | {"base": unet, "loss": loss, "augment": {"kind": "labeled_warp"}, "regularizers": []}
    folder, interrupted = tmp_path / "one", iter([False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            StopFlag, "set", property(lambda flag: next(interrupted, False), lambda flag, value: None), raising=False
        )
        with pytest.raises(TryAgain, match="stopped by a signal at 8 images"):
            stage(train_denoiser, folder, data, **run)
    train_denoiser.main({"stage": "train_denoiser", "config": run}, inputs=data, out=folder / "out")
    record = json.loads((folder / "out" / "run.json").read_text())
    assert (record["nimg"], record["methods"], record["n_images"]) == (24, ["labeled_warp", "chain"], 12)

    on = run | {"continues": {"run": "tiny", "nimg": 12, "reset": ["optimizers"]}}
    start = {"init": [folder / "out" / "snapshots" / "000000012.safetensors"]}
    out = stage(train_denoiser, tmp_path / "two", data | start, **on)
    tensors = read_tensors(out / "snapshots" / "000000024.safetensors")[0]
    assert {int(value) for name, value in tensors.items() if name.endswith(".step")} == {3}

    pixels, common = {"kind": "pixels"}, {"run": "tiny", "seed": 0, "network": {"kind": "pixels"}}
    features = stage(reference, tmp_path / "reference", data, dataset="two", network=pixels) / "features.safetensors"
    snapshots = sorted((folder / "out" / "snapshots").glob("*.safetensors"))[1:]
    inputs = {"snapshot": snapshots, "features": [features]}
    chosen = stage(select, tmp_path / "select", inputs, **common, metric={"kind": "kid"}, n_gen=10)
    inputs |= {"selected": [chosen / "selected.json"], "run_json": [folder / "out" / "run.json"]}
    common |= {"dataset": "two", "subset": run["subset"], "n_gen": 10, "gen_labels": "uniform"}
    inputs |= {"train": data["train"], "test": data["test"]}
    measured = stage(evaluate, tmp_path / "run", inputs, **common, subject="run", metrics=[{"kind": "kid"}])
    assert json.loads((measured / "metrics.json").read_text())["methods"] == ["labeled_warp", "chain"]


def test_a_class_without_a_picture_is_refused_before_training(data, tmp_path):
    with pytest.raises(DataError, match="class 'light' has no training picture"):
        subset = {"kind": "long_tailed", "imbalance_factor": 100, "n_max": 10}
        stage(train, tmp_path, data, **RUN | {"subset": subset})
    assert not list((tmp_path / "out").iterdir())


def test_a_wrong_value_is_refused_by_its_key(data, tmp_path):
    with pytest.raises(ConfigError, match=r"training: Value error, snapshots: the last one is 12, expected total_nimg"):
        stage(train, tmp_path, data, **RUN | {"training": RUN["training"] | {"snapshots": [0, 12]}})
