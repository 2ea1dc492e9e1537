"""Stage `prune_round`: the trained weights of one round become the mask of the next."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Make the next mask of a ticket.

    Args:
        spec: `config` holds `run`, `seed`, `round`, `base` and the `ticket` mapping, whose share is that of this round.
        inputs: `manifest` of the data; where the ticket asks for them the `snapshot` after training, from round two on
            the `mask` it was trained with, and the mask of another run, `like`.
        out: gets `mask.safetensors` (uint8, 1 = living; names as in a snapshot) and `prune.json` (sparsities: of the
            masked tensors together and one by one, of convolutions and of all parameters of G, of D, and of both).
    """
    import json

    import torch

    from pygan.checkpoint import read_tensors, write_json, write_tensors
    from pygan.context import Context
    from pygan.pruning.masks import Round, as_masks, bare_networks, check_fit, compare, shares, sparsity
    from pygan.pruning.small_dense import g_channels
    from pygan.sampling import describe
    from pygan.spec import load_spec

    def masks_of(name: str) -> dict[str, torch.Tensor] | None:
        return as_masks(read_tensors(inputs[name][0])[0], str(inputs[name][0])) if name in inputs else None

    config = spec["config"]
    ticket, base = load_spec("pygan.pruning", config["ticket"], "ticket"), load_spec("pygan.networks", config["base"])
    manifest = json.loads(inputs["manifest"][0].read_text())
    classes = len(manifest["class_names"]) if base.conditional else 0
    ctx = Context(resolution=manifest["resolution"], channels=manifest["channels"], num_classes=classes)
    last = Round(
        networks=bare_networks(base, ctx),
        state=read_tensors(inputs["snapshot"][0])[0] if "snapshot" in inputs else {},
        masks=masks_of("mask") or {},
        like=masks_of("like"),
        seed=config["seed"],
    )
    masks = ticket.next_masks(last)
    check_fit(last.networks, masks, "the mask")
    share = shares(last.networks, masks)
    small = g_channels(base, ctx, share["G"]["living"])
    names = {key: config[key] for key in ("run", "seed", "round")}
    description = {**names, "ticket": config["ticket"], **describe(config["base"], ctx, 0)}
    write_tensors(out / "mask.safetensors", {name: mask.to(torch.uint8) for name, mask in masks.items()}, description)
    write_json(
        out / "prune.json",
        {
            **names,
            "sparsity": sparsity(masks),
            "sparsity_of_generator": share["G"]["sparsity"],
            "shares": share,
            "tensors": {name: sparsity({name: mask}) for name, mask in masks.items()},
            "overlap_with_like": compare(masks, last.like) if last.like else None,
            "dense_of_same_size": small and {"g_channels": small[0], "parameters": small[1]},
        },
    )


if __name__ == "__main__":
    run_stage(main)
