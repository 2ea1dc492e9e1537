"""Selection and evaluation of a tiny class-conditional run, as functions."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_stages import CLASSES, JUDGE, RUN, needs, stage

from pipeline import evaluate, reference, select
from pygan.checkpoint import read_tensors, write_tensors
from pygan.data.store import Store
from pygan.data.subset import parse_subset
from pygan.data.subset import select as select_pictures
from pygan.metrics.base import measured_name
from pygan.metrics.frechet import frechet_distance
from pygan.metrics.intra import MEASURES
from pygan.sampling import load_generator, sample


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

    metrics = [{"kind": "fid"}, {"kind": "kid"}, {"kind": "intra", "at_least": 4, "components": 2}]
    common |= {"dataset": "two", "subset": RUN["subset"], "n_gen": 16, "metrics": metrics, "gen_labels": "uniform"}
    inputs |= {"selected": [chosen / "selected.json"], "run_json": [trained / "run.json"], "train": data["train"]}
    for subject, count in (("run", 16), ("pca_gaussian", 16), ("real", 16)):
        out = stage(evaluate, tmp_path / subject, inputs, **common | {"subject": subject})
        record = json.loads((out / "metrics.json").read_text())
        by_class = {name: found["classes"] for name, found in record["metrics"].items() if "classes" in found}
        assert set(record["metrics"]) - set(by_class) == {"fd_mobilenet_v2", "kid_mobilenet_v2"}
        if subject == "pca_gaussian":  # has no classes
            assert by_class == {}
        else:
            groups = ("intra", "head", "middle")  # two classes have no tail
            names = [measured_name(f"{name}_{group}", "mobilenet_v2") for name in MEASURES for group in groups]
            assert set(by_class) == set(names)
            found = {name: (e["train"], e["real"], e["gen"]) for name, e in by_class["diversity_intra"].items()}
            if subject == "run":
                assert found == dict.fromkeys(CLASSES, (6, 12, 8))
            else:  # as many pictures of the training split as of a run, drawn from all classes
                assert {counts[:2] for counts in found.values()} == {(12, 12)}
                assert sum(counts[2] for counts in found.values()) == 16
        assert (record["protocol"]["n_gen"], record["protocol"]["reference_split"]) == (count, "test")
        assert record["nimg"] == (selected["nimg"] if subject == "run" else None)


def test_selection_does_without_the_test_split(trained, data, tmp_path):
    """A file of features that has no test split, and one whose validation split is another, decide the outcome."""
    snapshots = sorted((trained / "snapshots").glob("*.safetensors"))
    features = stage(reference, tmp_path / "reference", data, dataset="two", network={"kind": "pixels"})
    tensors, metadata = read_tensors(features / "features.safetensors")
    assert {"train", "validation", "test"} <= tensors.keys()
    chosen = {}
    for name, validation in (("real", tensors["validation"]), ("white", torch.ones_like(tensors["validation"]))):
        file = tmp_path / f"{name}.safetensors"
        write_tensors(file, {"validation": validation}, metadata)
        inputs = {"snapshot": snapshots, "features": [file]}
        config = {"run": "tiny", "seed": 0, "network": {"kind": "pixels"}, "metric": {"kind": "kid"}, "n_gen": 12}
        chosen[name] = json.loads((stage(select, tmp_path / name, inputs, **config) / "selected.json").read_text())
    assert chosen["real"]["scores"] != chosen["white"]["scores"]


JUDGES = {
    "network": {"kind": "pixels", "resolution": 8},
    "metrics": [{"kind": "kid"}, {"kind": "prdc", "k": 2}, {"kind": "memorization", "searched": 10, "pairs": 4}],
    "also": [
        {
            "network": {"kind": "mtcnn_onet", "random_init": True},
            "metrics": [{"kind": "fid"}, {"kind": "prdc", "k": 2}, {"kind": "memorization"}],
            "n_gen": 12,
            "shared": False,
        }
    ],
}


def test_two_judges_and_the_training_pictures(trained, data, tmp_path):
    networks = [JUDGES["network"], JUDGES["also"][0]["network"]]
    features = [
        stage(reference, tmp_path / f"reference{i}", data, dataset="two", network=network) / "features.safetensors"
        for i, network in enumerate(networks)
    ]
    selected = tmp_path / "selected.json"
    selected.write_text(json.dumps({"nimg": 24}))
    run = json.loads((trained / "run.json").read_text())
    run_json = tmp_path / "run.json"
    run_json.write_text(json.dumps(run | {"looked_through": ["mtcnn_onet_random"]}))
    inputs = {"features": features, "snapshot": [trained / "snapshots" / "000000024.safetensors"]}
    inputs |= {"selected": [selected], "run_json": [run_json], "train": data["train"], "test": data["test"]}
    common = {"run": "tiny", "seed": 0, "dataset": "two", "subset": RUN["subset"], "n_gen": 16, "gen_labels": "uniform"}
    out = stage(evaluate, tmp_path / "run", inputs, subject="run", **common, **JUDGES)
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]

    in_features = ["memorized", "authentic", "training_kid", "training_fd"]
    in_pixels = ["memorized_pictures", "memorized_moved", "extracted_pictures", "authentic_pictures"]
    shares = ["precision", "recall", "density", "coverage"]
    other = [f"{name}_mtcnn_onet_random" for name in ("fd", *shares, *in_features)]
    assert list(metrics) == ["kid_pixels", *shares, *(f"{name}_pixels" for name in in_features), *in_pixels, *other]
    assert metrics["precision"]["record"]["network"] == "pixels 8px"
    first, second, own = (metrics[name]["record"] for name in ("kid_pixels", other[0], "memorized_moved"))
    assert (first["n_gen"], second["n_gen"], own["n_gen"]) == (16, 12, 10)
    assert (first["n_real"], first["reference_split"]) == (24, "test")
    assert (own["n_real"], own["reference_split"], own["network"]) == (12, "train", "pixels")
    assert (first["judge_in_training"], second["judge_in_training"]) == (False, True)
    assert (first["seed"], first["train_seed"]) == (0, 0)

    subset = parse_subset(RUN["subset"])
    store = Store(data["train"][0])
    indices = select_pictures(store.labels, subset, 0)
    pairs = metrics["memorized_moved"]["pairs"]
    assert len(pairs) == 4 and {pair["training"] for pair in pairs} <= set(indices.tolist())
    G = load_generator(trained / "snapshots" / "000000024.safetensors")
    pictures = sample(G, 16, seed=0, stream="evaluate", label=torch.arange(16) % 2)
    panel = np.asarray(Image.open(out / "neighbors.png"))  # two rows, enlarged twice
    for place, pair in enumerate(pairs):
        tile = panel[::2, ::2][:, 32 * place : 32 * (place + 1)].transpose(2, 0, 1)
        assert (tile[:, :32] == pictures[pair["generated"]].numpy()).all()
        assert (tile[:, 32:] == store.read([pair["training"]])[0]).all()

    gaussian = stage(evaluate, tmp_path / "anchor", inputs, subject="pca_gaussian", **common, **JUDGES)
    record = json.loads((gaussian / "metrics.json").read_text())
    assert set(record["metrics"]) == set(metrics) and not (gaussian / "neighbors.png").exists()
    assert record["metrics"]["kid_pixels"]["record"]["train_seed"] is None

    copycat = stage(evaluate, tmp_path / "copycat", inputs, subject="copycat", **common, **JUDGES)
    found = json.loads((copycat / "metrics.json").read_text())["metrics"]
    for space in ("pixels", "pictures", "moved", "mtcnn_onet_random"):
        assert found[f"memorized_{space}"]["generated"] == 1
    training = read_tensors(features[1])[0]["train"][indices]
    expected = frechet_distance(read_tensors(features[1])[0]["test"].double(), training.double())
    assert found["fd_mtcnn_onet_random"]["value"] == pytest.approx(expected, rel=1e-6)  # 12 of 12 training pictures
