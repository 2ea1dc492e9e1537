"""The stages from training to metrics on a tiny class-conditional data set, as functions."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline import evaluate, probe, prune_round, reference, select, train
from pygan import assets
from pygan.checkpoint import read_tensors
from pygan.data.pictures import ArrayPicture
from pygan.data.store import write_store
from pygan.errors import ConfigError, MissingInput
from pygan.sampling import load_generator, sample

CLASSES = ["dark", "light"]
BANK = [{"kind": "mtcnn_onet"}, {"kind": "efficientnet_lite0", "resolution": 32}]
JUDGE = {"kind": "mobilenet_v2", "resolution": 32}
RUN = {
    "run": "tiny",
    "seed": 0,
    "dataset": "two",
    "subset": {"kind": "n_shot", "n": 6, "per_class": True},
    "mirror": True,
    "base": {"kind": "sngan", "z_dim": 8, "g_channels": 4, "d_channels": 4, "conditional": True},
    "loss": "hinge",
    "augment": {"kind": "diffaug"},
    "discriminators": [{"kind": "plain"}],
    "regularizers": [{"kind": "r1", "gamma": 1.0, "every": 2}],
    "training": {
        "batch": 4,
        "total_nimg": 24,
        "snapshots": [0, 12, 24],
        "tick_nimg": 4,
        "checkpoint_nimg": 12,
        "monitor_images": 4,
        "standing_batches": 1,
    },
    "continues": None,
    "ticket": None,
    "bank": BANK,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, list[Path]]:
    """Three stores of 32x32 pictures of two classes, told apart by brightness."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.Generator(np.random.PCG64(0))
    for split in ("train", "validation", "test"):
        pixels = noise.integers(0, 100, (24, 3, 32, 32), dtype=np.uint8)
        items = [
            (ArrayPicture(f"picture {i}", image + np.uint8(100 * (i % 2))), i % 2) for i, image in enumerate(pixels)
        ]
        write_store(folder / f"{split}.lmdb", items, resolution=32)
    (folder / "manifest.json").write_text(json.dumps({"class_names": CLASSES}))
    return {name: [folder / f"{name}.lmdb"] for name in ("train", "validation", "test")} | {
        "manifest": [folder / "manifest.json"]
    }


def stage(module, out: Path, inputs: dict[str, list[Path]], **config) -> Path:
    (out / "out").mkdir(parents=True)
    module.main({"stage": module.__name__, "config": config}, inputs=inputs, out=out / "out")
    return out / "out"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    out = stage(train, tmp_path_factory.mktemp("trained"), data, **RUN)
    for number, handler in before.items():
        signal.signal(number, handler)
    return out


def needs(*files: str) -> None:
    for file in files:
        try:
            assets.find(file)
        except MissingInput as error:
            pytest.skip(str(error))


def test_train_records_what_it_did(trained):
    record = json.loads((trained / "run.json").read_text())
    assert (record["run"], record["nimg"], record["n_images"]) == ("tiny", 24, 12)
    assert record["methods"] == ["diffaug", "r1"]
    assert record["ops"]["backend"] in ("native", "reference")
    assert record["masks"] is None
    G = load_generator(trained / "snapshots" / "000000024.safetensors")
    assert G.num_classes == 2
    assert sample(G, 5, seed=0).shape == (5, 3, 32, 32)


def test_a_ticket_is_found_and_trained(trained, data, tmp_path):
    ticket = {"kind": "lottery", "found_in": "tiny"}
    inputs = {"snapshot": [trained / "snapshots" / "000000024.safetensors"]}
    masks = stage(prune_round, tmp_path / "prune", inputs, run="t", seed=0, round=1, ticket=ticket)
    record = json.loads((masks / "prune.json").read_text())
    assert record["sparsity"] == pytest.approx(0.2, abs=1e-3)
    assert record["sparsity_of_generator"] < record["sparsity"]
    out = stage(train, tmp_path / "train", data | {"mask": [masks / "mask.safetensors"]}, **RUN | {"ticket": ticket})
    tensors = read_tensors(out / "snapshots" / "000000024.safetensors")[0]
    for name, mask in read_tensors(masks / "mask.safetensors")[0].items():
        assert (tensors[f"G.{name}"][mask == 0] == 0).all()
    record = json.loads((out / "run.json").read_text())
    assert record["masks"]["sparsity"] == pytest.approx(0.2, abs=1e-3)
    assert record["methods"] == ["diffaug", "r1", "lottery"]


def test_the_probe_chooses_and_the_chosen_network_joins(trained, data, tmp_path):
    needs("onet.pt", "efficientnet-lite0-57934424.pth")
    start = {"init": [trained / "snapshots" / "000000012.safetensors"]}
    inputs = {"train": data["train"], "snapshot": start["init"]}
    settings = {"n_images": 12, "criterion": "accuracy"}
    fields = {key: RUN[key] for key in ("run", "seed", "base", "subset", "bank")}
    chosen = stage(probe, tmp_path / "probe", inputs, **fields, count=1, probe=settings)
    answer = json.loads((chosen / "probe.json").read_text())
    assert set(answer["networks"]) == {"mtcnn_onet", "efficientnet_lite0"}
    (name,) = answer["chosen"]
    assert answer["networks"][name]["accuracy"] == max(n["accuracy"] for n in answer["networks"].values())

    players = [{"kind": "plain"}, {"kind": "vision_aided"}]
    aided = RUN | {"discriminators": players, "continues": {"run": "tiny", "nimg": 12}}
    out = stage(train, tmp_path / "train", data | start | {"probe": [chosen / "probe.json"]}, **aided)
    record = json.loads((out / "run.json").read_text())
    assert (record["nimg_start"], record["frozen"]) == (12, [name])
    last = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    assert {f"head/{name}/train", f"head/{name}/validation", f"head/{name}/generated"} <= last.keys()


def test_selection_and_metrics(trained, data, tmp_path):
    needs("mobilenet_v2-b0353104.pth")
    features = stage(reference, tmp_path / "reference", data, dataset="two", network=JUDGE) / "features.safetensors"
    snapshots = sorted((trained / "snapshots").glob("*.safetensors"))[1:]
    common = {"run": "tiny", "seed": 0, "network": JUDGE}
    inputs = {"snapshot": snapshots, "features": [features]}
    chosen = stage(select, tmp_path / "select", inputs, **common, metric={"kind": "kid"}, n_gen=12)
    selected = json.loads((chosen / "selected.json").read_text())
    assert selected["split"] == "validation"
    assert selected["scores"][str(selected["nimg"])] == min(selected["scores"].values())

    common |= {"dataset": "two", "subset": RUN["subset"], "n_gen": 16, "metrics": [{"kind": "fid"}, {"kind": "kid"}]}
    inputs |= {"selected": [chosen / "selected.json"], "run_json": [trained / "run.json"], "train": data["train"]}
    for subject, count in (("run", 16), ("pca_gaussian", 16), ("real", 24)):
        out = stage(evaluate, tmp_path / subject, inputs, **common | {"subject": subject})
        record = json.loads((out / "metrics.json").read_text())
        assert set(record["metrics"]) == {"fd_mobilenet_v2", "kid_mobilenet_v2"}
        assert (record["protocol"]["n_gen"], record["protocol"]["reference_split"]) == (count, "test")
        assert record["nimg"] == (selected["nimg"] if subject == "run" else None)


def test_a_wrong_value_is_refused_by_its_key(data, tmp_path):
    with pytest.raises(ConfigError, match=r"training: Value error, snapshots: the last one is 12, expected total_nimg"):
        stage(train, tmp_path, data, **RUN | {"training": RUN["training"] | {"snapshots": [0, 12]}})
