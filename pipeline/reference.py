"""Stage `reference`: the metric network's features of the real pictures, once per data set and judge."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Extract features of every split.

    Args:
        spec: `config` holds `dataset` and the metric `network`.
        inputs: the `manifest` and the stores `train`, `validation` and `test`.
        out: gets `features.safetensors` (per split float32 `[N, D]`, order of the store, and its int64 `.labels`;
            class names in the metadata; where N is over D the Gaussian fitted to them) and `reference.json`.
    """
    import json

    import numpy as np
    import torch

    from pipeline.granted import computed_on, device_of
    from pygan.checkpoint import write_json, write_tensors
    from pygan.context import Context
    from pygan.data.store import Store
    from pygan.metrics.base import extract, network_spec
    from pygan.metrics.frechet import statistics
    from pygan.metrics.resize import PROTOCOLS

    config, features, labels = spec["config"], {}, {}
    network = network_spec(config["network"], "network").build(Context(resolution=0, device=device_of(spec)))
    for split in ("train", "validation", "test"):
        store = Store(inputs[split][0])
        features[split] = extract(torch.from_numpy(store.read(np.arange(len(store)))), network)
        labels[f"{split}.labels"] = torch.as_tensor(store.labels)
    names = json.loads(inputs["manifest"][0].read_text())["class_names"]
    write_tensors(out / "features.safetensors", features | labels | statistics(features), {"class_names": names})
    write_json(
        out / "reference.json",
        {
            "dataset": config["dataset"],
            "network": f"{network.name} {network.resolution}px",
            "network_sha256": network.sha256,
            "resize": PROTOCOLS[network.protocol],
            "device": computed_on(spec),
            "counts": {split: len(value) for split, value in features.items()},
        },
    )


if __name__ == "__main__":
    run_stage(main)
