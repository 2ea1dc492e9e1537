"""Stage `evaluate`: a generator, or one of the anchors, against the test split."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Measure one subject.

    Args:
        spec: `config` holds `subject` ("run", "untrained", "pca_gaussian", "copycat" or "real"), `run`, `dataset`,
            `seed`, `subset`, `n_gen`, `gen_labels`, and the judges: `network` with its `metrics`, and those in `also`.
        inputs: the real `features` of every judge in that order; for a run `selected`, its `snapshot`s and `run_json`;
            for the untrained generator its `snapshot`; for the samplers of real pictures the `train` store; for a
            metric that looks for copies the stores `train` and `test`.
        out: gets `metrics.json`; and `neighbors.png`, generated pictures above their nearest training pictures, where
            a metric of a run looks for copies.
    """
    import json
    import time

    from pipeline.granted import computed_on, device_of
    from pygan.checkpoint import read_tensors, write_json

    started = time.monotonic()
    config, device = spec["config"], device_of(spec)
    run, nimg = {"methods": [], "n_images": None, "frozen": []}, None
    if config["subject"] == "run":
        run |= json.loads(inputs["run_json"][0].read_text())
        nimg = json.loads(inputs["selected"][0].read_text())["nimg"]
    real = [read_tensors(path) for path in inputs["features"]]
    pictures, gen_c = None, None
    if config["subject"] != "real":
        pictures, gen_c = _pictures(config, inputs, nimg, real[0][0]["test.labels"], device)
    metrics, protocol = {}, None
    for number, judge in enumerate([config, *config.get("also", ())]):
        found, record = _judged(judge, number, config, inputs, real[number], pictures, gen_c, run, device)
        metrics |= found
        protocol = protocol or record
    if config["subject"] == "run" and (pairs := metrics.get("memorized_moved", {}).get("pairs")):
        _write_panel(out / "neighbors.png", pairs, pictures, inputs["train"][0])
    write_json(
        out / "metrics.json",
        {
            "subject": config["subject"],
            "run": config["run"],
            "dataset": config["dataset"],
            "n_images": run["n_images"],
            "methods": run["methods"],
            "seed": config["seed"],
            "nimg": nimg,
            "metrics": metrics,
            "protocol": protocol,
            "device": computed_on(spec),
            "seconds": time.monotonic() - started,
        },
    )


def _judged(
    judge: dict[str, Any],
    number: int,
    config: dict[str, Any],
    inputs: dict[str, list[Path]],
    real: tuple[dict[str, Any], dict[str, Any]],
    pictures,
    gen_c,
    run: dict[str, Any],
    device,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return what one judge finds, each number with its record, and the record that they have in common.

    Args:
        number: 0 for the first judge.
        real: its features of the real pictures, with their metadata.
        pictures: uint8 `[n_gen, C, H, W]`; None: the subject is the training split.
        gen_c: classes of the pictures; None: they have none.
        device: that its network computes on.
    """
    import torch

    from pygan.context import Context
    from pygan.draws import permutation
    from pygan.metrics.base import Labels, extract, measure, network_spec, protocol_record
    from pygan.metrics.frechet import Gaussian
    from pygan.spec import load_spec

    key = f"evaluate.also.{number - 1}" if number else "evaluate"
    network = network_spec(judge["network"], f"{key}.network").build(Context(resolution=0, device=device))
    features, metadata = real
    built = [load_spec("pygan.metrics", m, f"{key}.metrics.{i}").build() for i, m in enumerate(judge["metrics"])]
    n_gen = judge["n_gen"] or config["n_gen"]
    training, train_counts = None, run.get("class_counts")
    if config["subject"] == "real":
        train_c = features["train.labels"]
        train_counts = train_c.bincount(minlength=len(metadata["class_names"])).tolist()
        shown = permutation(0, "evaluate/real", len(train_c))[:n_gen]  # as many as of a run
        gen, gen_c = features["train"][shown], train_c[shown]
    else:
        pictures = pictures[:n_gen]
        gen_c = None if gen_c is None else gen_c[: len(pictures)]
        if config["subject"] == "copycat":
            indices = _training_indices(config, features["train.labels"])
            gen = features["train"][indices][torch.arange(len(pictures)) % len(indices)]
        else:
            gen = extract(pictures, network)
        if any("training" in getattr(metric, "needs", ()) for metric in built):
            training = _training(config, inputs, features, pictures, with_pixels=number == 0)
    labels = None
    if gen_c is not None and train_counts is not None:
        names = tuple(metadata["class_names"])
        labels = Labels(real=features["test.labels"], gen=gen_c, names=names, train_counts=tuple(train_counts))
    found = measure(
        built,
        network.name,
        features["test"],
        gen,
        first=number == 0,
        labels=labels,
        training=training,
        classify=_classify(network, device),
        reference=Gaussian.from_tensors(features, "test"),
    )
    record = protocol_record(
        network,
        n_real=len(features["test"]),
        n_gen=len(gen),
        reference_split="test",
        seed=config["seed"],
        train_seed=config["seed"] if config["subject"] == "run" else None,
    )
    record |= {"judge_in_training": network.name in {*run["frozen"], *run.get("looked_through", ())}}
    return {name: entry | {"record": record | entry.get("record", {})} for name, entry in found.items()}, record


def _classify(network, device):
    """Return what turns pooled features `[N, D]` into logits `[N, classes]`, both on the CPU; None: nothing does."""
    if not hasattr(network, "classifier"):
        return None
    return lambda features: network.classifier(features.to(device)).cpu()


def _training(config: dict[str, Any], inputs: dict[str, list[Path]], features, pictures, *, with_pixels: bool):
    """Return the pictures that the subject's run was trained on."""
    import numpy as np
    import torch

    from pygan.data.store import Store
    from pygan.metrics.base import Training

    indices = _training_indices(config, features["train.labels"])
    pixels = {}
    if with_pixels:
        train, test = (Store(inputs[split][0]) for split in ("train", "test"))
        pixels = {
            "pixels": torch.from_numpy(train.read(indices)),
            "gen_pixels": pictures,
            "real_pixels": torch.from_numpy(test.read(np.arange(len(test)))),
        }
    index = torch.from_numpy(indices)
    return Training(features=features["train"][index], index=index, **pixels)


def _training_indices(config: dict[str, Any], labels):
    """Return the numbers of the training pictures of the subject's run, ascending int64 `[n]`.

    Args:
        labels: of the training split, `[N]`.
    """
    import numpy as np

    from pygan.data.subset import parse_subset, select

    subset = None if config["subset"] is None else parse_subset(config["subset"])
    return select(np.asarray(labels), subset, config["seed"])


def _write_panel(path: Path, pairs: list[dict[str, Any]], pictures, train: Path) -> None:
    """Write generated pictures, and below each its nearest training picture, as one PNG."""
    import numpy as np
    import torch

    from pygan.data.store import Store
    from pygan.metrics.memorization import pairs_grid
    from pygan.sheets import save_grid

    training = torch.from_numpy(Store(train).read(np.array([pair["training"] for pair in pairs])))
    places = [pair | {"training": place} for place, pair in enumerate(pairs)]
    columns = min(10, len(pairs))
    save_grid(path, pairs_grid(pictures, training, places, columns), columns)


def _pictures(config: dict[str, Any], inputs: dict[str, list[Path]], nimg: int | None, test_labels, device):
    """Return the subject's pictures, uint8 `[n_gen, C, H, W]`, and the classes asked for; None: it has none.

    All classes alike, or by turns those of the test pictures in random order.
    """
    import torch

    from pygan.data.store import Store
    from pygan.draws import permutation
    from pygan.metrics.pca_gaussian import pca_gaussian
    from pygan.sampling import load_generator, sample

    n, seed = config["n_gen"], config["seed"]
    if config["subject"] in ("pca_gaussian", "copycat"):
        store = Store(inputs["train"][0])
        training = torch.from_numpy(store.read(_training_indices(config, store.labels)))
        if config["subject"] == "copycat":
            return training[torch.arange(n) % len(training)], None
        return pca_gaussian(training, n, seed=seed), None
    G = load_generator({int(path.stem): path for path in inputs["snapshot"]}[nimg or 0]).to(device)
    classes = None
    if G.num_classes:
        order = permutation(0, "evaluate/classes", len(test_labels))
        among = torch.arange(G.num_classes) if config["gen_labels"] == "uniform" else test_labels[order]
        classes = among[torch.arange(n) % len(among)]
    return sample(G, n, seed=seed, stream="evaluate", label=classes), classes


if __name__ == "__main__":
    run_stage(main)
