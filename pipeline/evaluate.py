"""Stage `evaluate`: a generator, or one of the anchors, against the test split."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Measure one subject.

    Args:
        spec: `config` holds `subject` ("run", "untrained", "pca_gaussian" or "real"), `run`, `dataset`, `seed`,
            `subset`, `metrics`, `n_gen` and the metric `network`.
        inputs: the real `features`; for a run `selected`, its `snapshot`s and `run_json`; for the untrained generator
            its `snapshot`; for the samplers of real pictures the `train` store.
        out: gets `metrics.json`.
    """
    import json
    import time

    from pygan.checkpoint import read_tensors, write_json
    from pygan.context import Context
    from pygan.metrics.base import extract, network_spec, protocol_record
    from pygan.metrics.measure import measure

    started = time.monotonic()
    config = spec["config"]
    network = network_spec(config["network"], "evaluate.network").build(Context(resolution=0))
    features = read_tensors(inputs["features"][0])[0]
    run, nimg = {"methods": [], "n_images": None}, None
    if config["subject"] == "real":
        gen = features["train"]
    else:
        if config["subject"] == "run":
            run = json.loads(inputs["run_json"][0].read_text())
            nimg = json.loads(inputs["selected"][0].read_text())["nimg"]
        gen = extract(_pictures(config, inputs, nimg), network)
    metrics = measure(config["metrics"], features["test"], gen, network, "evaluate.metrics")
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


def _pictures(config: dict[str, Any], inputs: dict[str, list[Path]], nimg: int | None):
    """Return the subject's pictures, uint8 `[n_gen, C, H, W]`."""
    import torch

    from pygan.data.store import Store
    from pygan.data.subset import parse_subset, select
    from pygan.metrics.pca_gaussian import pca_gaussian
    from pygan.sampling import load_generator, sample

    n, seed = config["n_gen"], config["seed"]
    if config["subject"] == "pca_gaussian":
        store = Store(inputs["train"][0])
        subset = None if config["subset"] is None else parse_subset(config["subset"])
        return pca_gaussian(torch.from_numpy(store.read(select(store.labels, subset, seed))), n, seed=seed)
    snapshots = {int(path.stem): path for path in inputs["snapshot"]}
    return sample(load_generator(snapshots[nimg or 0]), n, seed=seed, stream="evaluate")


if __name__ == "__main__":
    run_stage(main)
