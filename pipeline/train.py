"""Stage `train`: one run with one seed, from pictures to snapshots of networks."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Train one job.

    Args:
        spec: `config` holds the run's fields of the study file, its name `run`, its `seed` and the `bank`.
        inputs: `manifest`, `train` and `validation` stores; where the run asks for them `init` (a snapshot to start
            from), `mask` and `probe`.
        out: gets `run.json`, `stats.jsonl` and `snapshots/<nimg>.{safetensors,png}`; checkpoints go beside it.
    """
    import json

    import torch
    from torch import nn

    from pipeline.record import record
    from pygan.checkpoint import read_tensors, write_json
    from pygan.context import Context
    from pygan.data.loader import Loader
    from pygan.data.store import Store
    from pygan.data.subset import parse_subset, select
    from pygan.draws import Draws
    from pygan.losses import OBJECTIVES
    from pygan.pruning.masks import sparsity
    from pygan.sampling import describe
    from pygan.spec import load_spec, parse
    from pygan.training.gan import Run, train
    from pygan.training.spec import TrainingSpec

    config, seed = spec["config"], spec["config"]["seed"]
    training = parse(TrainingSpec, config["training"], "training")
    base = load_spec("pygan.networks", config["base"], "base")

    # Data: the seed draws the subset
    store, held_out = Store(inputs["train"][0]), Store(inputs["validation"][0])
    subset = None if config["subset"] is None else parse_subset(config["subset"])
    indices = select(store.labels, subset, seed)
    labels = torch.as_tensor(store.labels[indices])
    classes = json.loads(inputs["manifest"][0].read_text())["class_names"]
    num_classes = len(classes) if base.conditional else 0

    # Networks and methods: the seed draws the initialization
    frozen = ()
    if "probe" in inputs:
        bank = {entry["kind"]: entry for entry in config["bank"]}
        chosen = json.loads(inputs["probe"][0].read_text())["chosen"]
        frozen = tuple(load_spec("pygan.features", bank[name], "bank").build(Context(resolution=0)) for name in chosen)
    ctx = Context(
        resolution=store.resolution, channels=store.channels, num_classes=num_classes, seed=seed, frozen=frozen
    )
    torch.manual_seed(seed)
    G = base.generator(ctx)
    network = base.discriminator(ctx)
    augment = None if config["augment"] is None else load_spec("pygan.augment", config["augment"], "augment")
    D = nn.ModuleList(
        load_spec("pygan.discriminators", values, f"discriminators.{i}").build(
            ctx, network, None if augment is None else augment.build(ctx)
        )
        for i, values in enumerate(config["discriminators"])
    )
    regularizers = [
        load_spec("pygan.regularizers", values, f"regularizers.{i}").build(ctx)
        for i, values in enumerate(config["regularizers"])
    ]

    # Where to start, and which weights live
    init, init_nimg, masks = None, 0, {}
    if "init" in inputs:
        init, metadata = read_tensors(inputs["init"][0])
        init_nimg = metadata["nimg"]
    if "mask" in inputs:
        masks = {name: mask.bool() for name, mask in read_tensors(inputs["mask"][0])[0].items()}

    def unlabeled(loader: Loader):
        return loader if num_classes else lambda index: (loader(index)[0], None)

    def gen_labels(draws: Draws) -> torch.Tensor | None:
        return labels[draws.integers(len(labels))] if num_classes else None

    run = Run(
        seed=seed,
        G=G.to(memory_format=torch.channels_last),
        D=D.to(memory_format=torch.channels_last),
        objective=OBJECTIVES[config["loss"]],
        regularizers=regularizers,
        batch=unlabeled(Loader(store, indices, seed)),
        held_out=unlabeled(Loader(held_out, select(held_out.labels, None, seed), seed)),
        gen_labels=gen_labels,
        masks=masks,
        init=init,
        init_nimg=init_nimg,
        metadata=lambda nimg: describe(config["base"], ctx, nimg),
    )
    result = train(run, training, state_dir=out.parent / "state", out_dir=out)
    write_json(
        out / "run.json",
        record(spec)
        | {
            "run": config["run"],
            "seed": seed,
            "dataset": config["dataset"],
            "n_images": len(indices),
            "methods": _methods(config),
            "nimg": result["nimg"],
            "nimg_start": init_nimg,
            "seconds": result["seconds"],
            "frozen": [network.name for network in frozen],
            "masks": {"sparsity": sparsity(masks), "tensors": len(masks)} if masks else None,
        },
    )


def _methods(config: dict[str, Any]) -> list[str]:
    """Return the kinds of the methods that a run adds to its base network."""
    slots = [config["augment"], *config["discriminators"], *config["regularizers"], config["ticket"]]
    return [slot["kind"] for slot in slots if slot is not None and slot["kind"] != "plain"]


if __name__ == "__main__":
    run_stage(main)
