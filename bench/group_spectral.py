"""What gSR and its controls cost beside the generator step that they are part of.

`OMP_NUM_THREADS=1 python bench/group_spectral.py` writes `group_spectral.json` and `group_spectral.md` beside itself in
about two minutes. A term is timed with its backward pass, and in turn with a whole step of G: latents to pictures,
discriminator, loss, backward, Adam. The published networks are trained in batches of 64, of which they get 8 here: in a
published step the terms' share is an eighth.
"""

import json
import os
import platform
import sys
from pathlib import Path

import torch
from paired import median_and_interval, rounds_of

from pygan.context import Context, Step
from pygan.losses import OBJECTIVES
from pygan.ops import backend
from pygan.spec import load_spec

GATE = 0.03
COUNTS = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
"""CIFAR-10-LT, imbalance 100."""
GAMES = {
    "SNGAN of the gSR release, 32 px, batch 8": ({"kind": "sngan", "release": "gsr", "conditional": True}, 8),
    "BigGAN of the gSR release, 32 px, batch 8": ({"kind": "biggan", "z_dim": 80, "conditional": True}, 8),
    "small SNGAN, 32 channels, 32 px, batch 32": (
        {"kind": "sngan", "conditional": True, "g_channels": 32, "d_channels": 32},
        32,
    ),
    "dcgan of the default study, 32 px, batch 32": ({"kind": "dcgan", "conditional": True}, 32),
}
TERMS = {
    "gSR": {"kind": "group_spectral"},
    "gSR, singular value decomposition": {"kind": "group_spectral", "sigma": "svd"},
    "plain L2": {"kind": "class_affine_l2"},
    "whole tables": {"kind": "class_affine_spectral"},
}


def generator_step(base: dict, batch: int):
    """Return what the contenders of a game need: G, a step without pictures, and a function that trains G once."""
    ctx = Context(resolution=32, num_classes=len(COUNTS), class_counts=COUNTS)
    torch.manual_seed(0)
    network = load_spec("pygan.networks", base)
    G, D = network.generator(ctx), network.discriminator(ctx).requires_grad_(False)
    G, D = (net.to(memory_format=torch.channels_last) for net in (G, D))
    optimizer = torch.optim.Adam(G.parameters(), lr=1e-4, fused=True)
    objective = OBJECTIVES["hinge"]
    step = Step(phase="G", step=0, nimg=0, G=G, D=D, objective=objective, index=torch.arange(batch), seed=0)
    z, c = step.draws("z").normal(G.z_dim), step.draws("c").integers(len(COUNTS))

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        objective.G(D(G(z, c), c)).backward()
        optimizer.step()

    return ctx, G, step, train


def measured(base: dict, batch: int) -> dict[str, dict]:
    ctx, G, step, train = generator_step(base, batch)
    contenders = {"G step": train}
    for name, values in TERMS.items():
        term = load_spec("pygan.regularizers", values).build(ctx)
        term.attach(G)
        contenders[name] = lambda term=term: term(step).backward()
    rounds = rounds_of(contenders, "cpu", repeats=15, fewest=5, limit=20)
    rows = {}
    for name, seconds in rounds.items():
        shares = [a / b for a, b in zip(seconds, rounds["G step"], strict=True)]
        middle, low, high = median_and_interval(shares)
        rows[name] = {"ms": 1000 * median_and_interval(seconds)[0], "share": middle, "low": low, "high": high}
    return rows


def table(results: dict[str, dict[str, dict]], surroundings: str) -> str:
    lines = [
        "# Cost of gSR and its controls",
        "",
        f"`OMP_NUM_THREADS=1 python bench/group_spectral.py`, {surroundings}. Share of a generator step: median and "
        f"95 % interval over rounds. Gate: gSR at most {GATE:.0%} of a step of the published networks, even in "
        "batches of 8 for the published 64.",
        "",
        "| network | term | ms | share of a G step | gate |",
        "|---|---|---|---|---|",
    ]
    for place, (game, rows) in enumerate(results.items()):
        for name, row in rows.items():
            gate = ""
            if name == "gSR" and place < 2:
                gate = "met" if row["share"] <= GATE else "**red**"
            share = "" if name == "G step" else f"{row['share']:.2%} ({row['low']:.2%} to {row['high']:.2%})"
            lines.append(f"| {game} | {name} | {row['ms']:.3g} | {share} | {gate} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    results = {}
    for game, (base, batch) in GAMES.items():
        results[game] = measured(base, batch)
        print(game, json.dumps(results[game], indent=1), file=sys.stderr)
    surroundings = (
        f"{os.cpu_count()} cores ({platform.machine()}), one thread, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, operators {backend()}"
    )
    here = Path(__file__).with_suffix("")
    here.with_suffix(".json").write_text(json.dumps({"surroundings": surroundings, "games": results}, indent=1) + "\n")
    here.with_suffix(".md").write_text(table(results, surroundings))


if __name__ == "__main__":
    main()
