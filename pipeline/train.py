"""Stage `train`: one run with one seed, from pictures to snapshots of networks."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Train one job, as one of several processes where torchrun started them.

    Args:
        spec: `config` holds the run's fields of the study file, its name `run`, its `seed` and `frozen`, the networks
            that the probe chose.
        inputs: `manifest`, `train` and `validation` stores; where the run asks for them `init` (a snapshot to start
            from; several: `selected` says which), `mask`, `probe` and `transfer` (a snapshot of which
            the networks take what fits).
        out: gets `run.json`, `stats.jsonl` and `snapshots/<nimg>.{safetensors,png}`; checkpoints go beside it.
    """
    import json

    import numpy as np

    from pipeline.record import record
    from pipeline.start import start_snapshot
    from pygan.checkpoint import read_tensors, write_json
    from pygan.data.store import Store
    from pygan.pruning.masks import as_masks, sparsity
    from pygan.spec import parse
    from pygan.training.assemble import assemble, methods
    from pygan.training.distributed import join
    from pygan.training.gan import train
    from pygan.training.spec import TrainingSpec
    from pygan.training.transfer import transfer

    config, ranks = spec["config"], join()
    training = parse(TrainingSpec, config["training"], "training")
    init, init_nimg, masks = None, 0, {}
    if "init" in inputs:
        init, metadata = read_tensors(start_snapshot(inputs, "init"))
        init_nimg = 0 if "selected" in inputs else metadata["nimg"]
    if "mask" in inputs:
        masks = as_masks(read_tensors(inputs["mask"][0])[0], str(inputs["mask"][0]))
    store, class_names = Store(inputs["train"][0]), json.loads(inputs["manifest"][0].read_text())["class_names"]
    run, indices = assemble(
        config,
        store=store,
        held_out=Store(inputs["validation"][0]),
        class_names=class_names,
        frozen=tuple(_frozen(item, config["seed"]) for item in config["frozen"]),
        init=init,
        init_nimg=init_nimg,
        masks=masks,
        reset=(config["continues"] or {}).get("reset", ()),
        device=ranks.device,
    )
    if "transfer" in inputs:
        print(transfer(run, inputs["transfer"][0]), flush=True)
    result = train(run, training, state_dir=out.parent / "state", out_dir=out, ranks=ranks)
    if not ranks.is_first:
        return
    write_json(
        out / "run.json",
        record(spec)
        | {
            "run": config["run"],
            "seed": config["seed"],
            "dataset": config["dataset"],
            "n_images": len(indices),
            "class_counts": np.bincount(store.labels[indices], minlength=len(class_names)).tolist(),
            "methods": methods(config),
            "nimg": result["nimg"],
            "nimg_start": init_nimg,
            "seconds": result["seconds"],
            "processes": ranks.size,
            "frozen": [name for d in run.D for name in d.heads if name != "D"],
            "looked_through": [
                term["network"]["kind"]
                for term in config["regularizers"]
                if term.get("network") and not term["network"].get("random_init")
            ],
            "masks": {"sparsity": sparsity(masks), "tensors": len(masks)} if masks else None,
        },
    )


def _frozen(item: dict[str, Any], seed: int):
    """Return a network as the probe chose it."""
    from pygan.context import Context
    from pygan.spec import load_spec

    network = load_spec("pygan.features", item["entry"], "bank").build(Context(resolution=0, seed=seed))
    network.separable = item["separable"]
    return network


if __name__ == "__main__":
    run_stage(main)
