"""Stage `evaluate`: a generator, or one of the anchors, against the test split."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Measure one subject.

    Args:
        spec: `config` holds `subject` ("run", "untrained", "pca_gaussian" or "real"), `run`, `dataset`, `seed`,
            `subset`, `metrics`, `n_gen`, `gen_labels` and the metric `network`.
        inputs: the real `features`; for a run `selected`, its `snapshot`s and `run_json`; for the untrained generator
            its `snapshot`; for the samplers of real pictures the `train` store.
        out: gets `metrics.json`.
    """
    import json
    import time

    from pygan.checkpoint import read_tensors, write_json
    from pygan.context import Context
    from pygan.metrics.base import Labels, extract, measure, network_spec, protocol_record
    from pygan.spec import load_spec

    started = time.monotonic()
    config = spec["config"]
    network = network_spec(config["network"], "evaluate.network").build(Context(resolution=0))
    features, metadata = read_tensors(inputs["features"][0])
    run, nimg = {"methods": [], "n_images": None}, None
    if config["subject"] == "real":
        gen, gen_c = features["train"], features["train.labels"]
        train_counts = gen_c.bincount(minlength=len(metadata["class_names"])).tolist()
    else:
        if config["subject"] == "run":
            run = json.loads(inputs["run_json"][0].read_text())
            nimg = json.loads(inputs["selected"][0].read_text())["nimg"]
        pictures, gen_c = _pictures(config, inputs, nimg, features["test.labels"])
        gen, train_counts = extract(pictures, network), run.get("class_counts")
    labels = None
    if gen_c is not None and train_counts is not None:
        names = tuple(metadata["class_names"])
        labels = Labels(real=features["test.labels"], gen=gen_c, names=names, train_counts=tuple(train_counts))
    built = [load_spec("pygan.metrics", m, f"evaluate.metrics.{i}").build() for i, m in enumerate(config["metrics"])]
    metrics = measure(built, network.name, features["test"], gen, labels=labels)
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
            "protocol": protocol_record(
                network, n_real=len(features["test"]), n_gen=len(gen), reference_split="test", seed=config["seed"]
            ),
            "seconds": time.monotonic() - started,
        },
    )


def _pictures(config: dict[str, Any], inputs: dict[str, list[Path]], nimg: int | None, test_labels):
    """Return the subject's pictures, uint8 `[n_gen, C, H, W]`, and the classes asked for; None: it has none.

    All classes alike, or by turns those of the test pictures in random order.
    """
    import torch

    from pygan.data.store import Store
    from pygan.data.subset import parse_subset, select
    from pygan.draws import permutation
    from pygan.metrics.pca_gaussian import pca_gaussian
    from pygan.sampling import load_generator, sample

    n, seed = config["n_gen"], config["seed"]
    if config["subject"] == "pca_gaussian":
        store = Store(inputs["train"][0])
        subset = None if config["subset"] is None else parse_subset(config["subset"])
        return pca_gaussian(torch.from_numpy(store.read(select(store.labels, subset, seed))), n, seed=seed), None
    G = load_generator({int(path.stem): path for path in inputs["snapshot"]}[nimg or 0])
    classes = None
    if G.num_classes:
        order = permutation(0, "evaluate/classes", len(test_labels))
        among = torch.arange(G.num_classes) if config["gen_labels"] == "uniform" else test_labels[order]
        classes = among[torch.arange(n) % len(among)]
    return sample(G, n, seed=seed, stream="evaluate", label=classes), classes


if __name__ == "__main__":
    run_stage(main)
