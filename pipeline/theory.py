"""Stage `theory`: what Reg-DGM promises, computed where it can be (pygan/regularizers/reg_dgm_theory.py)."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Compute the studies that the configuration asks for.

    Args:
        spec: `config` is the `theory` section of the study file.
        inputs: with real pictures the `manifest` and the stores `train` and `test`; else nothing.
        out: gets `theory.json`.
    """
    import json

    import numpy as np
    import torch

    from pygan.checkpoint import write_json
    from pygan.data.store import Store
    from pygan.regularizers.reg_dgm_theory import TheorySpec, finite_study, gaussian_study, image_study
    from pygan.spec import parse

    settings = parse(TheorySpec, spec["config"], "theory")
    weights = settings.weights()
    result: dict[str, Any] = {"weights": weights.tolist(), "seed": settings.seed}
    if settings.gaussian is not None:
        result["gaussian"] = gaussian_study(settings.gaussian, weights, settings.seed)
    if settings.finite is not None:
        result["finite"] = finite_study(settings.finite, weights, settings.seed)
    if settings.images is not None:
        splits = {}
        for split in ("train", "test"):
            store = Store(inputs[split][0])
            splits[split] = torch.from_numpy(store.read(np.arange(len(store)))), torch.as_tensor(store.labels)
        result["images"] = image_study(
            settings.images,
            weights,
            settings.seed,
            train=splits["train"],
            held_out=splits["test"],
            class_names=tuple(json.loads(inputs["manifest"][0].read_text())["class_names"]),
        )
    write_json(out / "theory.json", result)


if __name__ == "__main__":
    run_stage(main)
