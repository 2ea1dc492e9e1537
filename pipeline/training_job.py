"""What every training stage reads and records."""

from pathlib import Path
from typing import Any


class TrainingJob:
    """A run with one seed, as one of several processes where torchrun started them.

    Args:
        spec: `config` holds the run's fields of the study file, its name `run` and its `seed`.
        inputs: `manifest`, `train` and `validation` stores; where the run asks for it `init`, a snapshot to start from
            (several: `selected` says which).
    """

    def __init__(self, spec: dict[str, Any], inputs: dict[str, list[Path]]) -> None:
        import json

        from pipeline.granted import device_of
        from pipeline.start import start_snapshot
        from pygan.checkpoint import read_tensors
        from pygan.data.store import Store
        from pygan.spec import parse
        from pygan.training.distributed import join
        from pygan.training.spec import TrainingSpec

        self.spec, self.config, self.ranks = spec, spec["config"], join(device_of(spec).type)
        self.training = parse(TrainingSpec, self.config["training"], "training")
        self.init, self.init_nimg = None, 0
        if "init" in inputs:
            self.init, metadata = read_tensors(start_snapshot(inputs, "init"))
            self.init_nimg = 0 if "selected" in inputs else metadata["nimg"]
        self.store, self.held_out = Store(inputs["train"][0]), Store(inputs["validation"][0])
        self.class_names = json.loads(inputs["manifest"][0].read_text())["class_names"]

    def material(self) -> dict[str, Any]:
        """Return the arguments that every `assemble` takes."""
        return {
            "store": self.store,
            "held_out": self.held_out,
            "class_names": self.class_names,
            "init": self.init,
            "init_nimg": self.init_nimg,
            "reset": (self.config["continues"] or {}).get("reset", ()),
            "device": self.ranks.device,
        }

    def write_record(self, out: Path, indices: Any, result: dict[str, Any], **more: Any) -> None:
        """Write `run.json`, in the first process.

        Args:
            indices: the training pictures in their store.
            result: of the loop.
            more: further entries.
        """
        import numpy as np

        from pipeline.record import record
        from pygan.checkpoint import write_json

        if not self.ranks.is_first:
            return
        counts = np.bincount(self.store.labels[indices], minlength=len(self.class_names)).tolist()
        write_json(
            out / "run.json",
            record(self.spec)
            | {key: self.config[key] for key in ("run", "seed", "dataset")}
            | {"n_images": len(indices), "class_counts": counts, "nimg_start": self.init_nimg}
            | {"processes": self.ranks.size, **result, **more},
        )
