"""Stage `prune_round`: the trained weights of one round become the mask of the next."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Make the next mask of a ticket.

    Args:
        spec: `config` holds `run`, `seed`, `round` and the `ticket` mapping.
        inputs: `snapshot` after training; from round two on the `mask` it was trained with.
        out: gets `mask.safetensors` (uint8, 1 = living) and `prune.json` (sparsities, per tensor and in all).
    """
    import torch

    from pygan.checkpoint import read_tensors, subset, write_json, write_tensors
    from pygan.pruning.masks import sparsity
    from pygan.spec import load_spec

    config = spec["config"]
    ticket = load_spec("pygan.pruning", config["ticket"], "ticket")
    G = subset(read_tensors(inputs["snapshot"][0])[0], "G.")
    before = {}
    if "mask" in inputs:
        before = {name: mask.bool() for name, mask in read_tensors(inputs["mask"][0])[0].items()}
    masks = ticket.next_masks(G, before)
    weights = sum(tensor.numel() for tensor in G.values() if tensor.is_floating_point())
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    write_tensors(out / "mask.safetensors", {name: mask.to(torch.uint8) for name, mask in masks.items()})
    write_json(
        out / "prune.json",
        {
            "run": config["run"],
            "seed": config["seed"],
            "round": config["round"],
            "sparsity": sparsity(masks),
            "sparsity_of_generator": pruned / weights,
            "tensors": {name: sparsity({name: mask}) for name, mask in masks.items()},
        },
    )


if __name__ == "__main__":
    run_stage(main)
