"""Tickets on disk and at work: bytes of an exported ticket beside the dense file, and the speed of channel tickets.

    python bench/sparse.py [--repeats 15] [--out bench]

Generators are pruned round by round as `pygan.pruning.lottery` does it, layer by layer and untrained: neither the
number of living weights nor the speed depends on their values. The ticket, whose weights are zero, and the smaller
network that is left of it run in turn with the dense generator, on one thread; processor time counts, because the
machine may have other work. Writes sparse.json and sparse.md.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from data import machine
from paired import median_and_interval
from torch import nn

from pygan.checkpoint import write_tensors
from pygan.context import Context
from pygan.pruning.channels import living_channels, slim
from pygan.pruning.lottery import Spec
from pygan.pruning.masks import Masked, Round, bare_networks, shares
from pygan.sampling import describe, export_sparse
from pygan.spec import load_spec

CTX = Context(resolution=32)
BASES = {
    "dcgan, default study": {"kind": "dcgan", "g_channels": 32, "d_channels": 32},
    "sngan, CIFAR-10": {"kind": "sngan", "g_channels": 256, "d_channels": 128},
}
PICTURES = {"dcgan, default study": 32, "sngan, CIFAR-10": 4}
"""Of one call."""
ROUNDS = (1, 2, 3, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row
        for base in BASES
        for structure in ("weight", "channel")
        for row in measure(base, structure, arguments.repeats)
    ]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "repeats": arguments.repeats,
        "rows": rows,
    }
    (arguments.out / "sparse.json").write_text(json.dumps(result, indent=2) + "\n")
    table = as_table(result)
    (arguments.out / "sparse.md").write_text(table)
    print(table, end="")


def measure(name: str, structure: str, repeats: int) -> list[dict[str, Any]]:
    """Return a row for every round of a base network."""
    base = load_spec("pygan.networks", BASES[name])
    torch.manual_seed(0)
    dense, networks, rows = base.generator(CTX), bare_networks(base, CTX), []
    dense.eval().requires_grad_(False)
    ticket, masks = Spec(found_in="dense", structure=structure, scope="layer"), {}
    state = {f"G.{n}": p for n, p in dense.named_parameters()}
    for number in range(1, max(ROUNDS) + 1):
        masks = ticket.next_masks(Round(networks=networks, state=state, masks=masks))
        if number not in ROUNDS:
            continue
        sparse = copy.deepcopy(dense)
        Masked(sparse, {n.removeprefix("G."): m for n, m in masks.items()}).zero_weights()
        share = shares(networks, masks)
        row = {"base": name, "structure": structure, "rounds": number, **sizes(name, sparse)}
        row |= {"sparsity_conv": share["G_conv"]["sparsity"], "sparsity_G": share["G"]["sparsity"]}
        if structure == "channel":
            row |= speeds(dense, sparse, PICTURES[name], repeats)
        rows.append(row)
        print(row, file=sys.stderr)
    return rows


def sizes(name: str, G: nn.Module) -> dict[str, int]:
    """Return the bytes of a generator's file as it is and as `export_sparse` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        dense, sparse = Path(folder) / "dense.safetensors", Path(folder) / "sparse.safetensors"
        write_tensors(dense, {f"G_ema.{n}": t for n, t in G.state_dict().items()}, describe(BASES[name], CTX, 0))
        export_sparse(dense, sparse)
        return {"bytes_dense": dense.stat().st_size, "bytes_sparse": sparse.stat().st_size}


def speeds(dense: nn.Module, sparse: nn.Module, n: int, repeats: int) -> dict[str, Any]:
    """Return pictures per second of the three, and how many times faster than dense (median and interval)."""
    contenders = {"dense": dense, "masked": sparse, "slim": slim(copy.deepcopy(sparse), living_channels(sparse))}
    z = torch.randn(n, dense.z_dim)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.no_grad():
        for repeat in range(repeats + 1):
            for name, G in contenders.items():
                start = time.process_time()
                G(z)
                if repeat:  # the first round warms up
                    taken[name].append(time.process_time() - start)
    found: dict[str, Any] = {f"img_per_sec_{name}": n / statistics.median(times) for name, times in taken.items()}
    for name in ("masked", "slim"):
        ratios = [d / s for d, s in zip(taken["dense"], taken[name], strict=True)]
        found[f"speedup_{name}"] = median_and_interval(ratios)
    return found


def as_table(result: dict[str, Any]) -> str:
    lines = [
        "# Tickets: size and speed",
        "",
        f"`{result['command']}`, {result['machine']['processor']}, load {result['machine']['load_average']:.1f},",
        f"one thread, float32, {result['repeats']} paired calls.",
        "Size: the file of the averaged generator, dense and as `pygan.sampling.export_sparse` writes it. Speed-up:",
        "processor time against the dense generator's, median of the pairs with a 95 % interval; masked: with zeros,",
        "slim: without the dead channels. Residual blocks keep the channels of their path.",
        "",
        "| base | ticket | rounds | conv weights gone | of all of G | KB dense | KB sparse | times smaller |"
        " masked, speed-up | slim, speed-up | slim, img/s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        speed = " | | |"
        if "speedup_slim" in r:
            masked, slim_ = (
                f"{m:.2f} ({low:.2f}-{high:.2f})" for m, low, high in (r["speedup_masked"], r["speedup_slim"])
            )
            speed = f" {masked} | {slim_} | {r['img_per_sec_slim']:,.0f} |"
        lines.append(
            f"| {r['base']} | {r['structure']} | {r['rounds']} | {r['sparsity_conv']:.1%} | {r['sparsity_G']:.1%} |"
            f" {r['bytes_dense'] / 1000:,.0f} | {r['bytes_sparse'] / 1000:,.0f} |"
            f" {r['bytes_dense'] / r['bytes_sparse']:.2f} |{speed}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
