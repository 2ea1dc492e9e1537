"""A training small enough to run whole in a test; as a program it can kill itself, to be continued.

`OUT [--die-at NIMG] [--die-in-sync N] [--augment NAME]`
"""

import argparse
import os
import signal
from pathlib import Path

import torch
from torch import nn

from pygan.context import Context
from pygan.draws import Draws, permutation
from pygan.losses import OBJECTIVES
from pygan.pruning.masks import prunable
from pygan.pruning.ranking import remove_lowest
from pygan.sampling import describe
from pygan.spec import load_spec
from pygan.training.gan import Run, train
from pygan.training.spec import TrainingSpec

BASE = {"kind": "dcgan", "z_dim": 8, "g_channels": 4, "d_channels": 4}
SPEC = TrainingSpec(
    batch=4, total_nimg=80, snapshots=(0, 40, 80), tick_nimg=8, checkpoint_nimg=16, monitor_images=4, standing_batches=2
)
N = 10
DIFFAUG = {"kind": "diffaug"}
ADA = {"kind": "ada", "p": 0.3, "interval": 3, "speed_kimg": 0.1}
"""Moves p by 0.12 every 3 steps, so that checkpoints, 4 steps apart, fall between adjustments."""
APA = ADA | {"kind": "apa", "family": "bgc"}
AUGMENTS = {"diffaug": DIFFAUG, "ada": ADA, "apa": APA}


def pictures(seed: int, stream: str) -> torch.Tensor:
    return Draws(seed, stream, torch.arange(N)).integers(256, 3, 16, 16).to(torch.uint8)


def tiny_run(
    *,
    seed: int = 0,
    sparse: bool = False,
    extra_head: bool = False,
    base: dict = BASE,
    augment: dict = DIFFAUG,
    **fields,
) -> Run:
    """Return a run on ten random pictures with an augmentation and R1."""
    ctx = Context(resolution=16, seed=seed)
    torch.manual_seed(seed)
    network = load_spec("pygan.networks", base)
    G, D = network.generator(ctx), network.discriminator(ctx)
    augmentation = load_spec("pygan.augment", augment).build(ctx)
    players = [load_spec("pygan.discriminators", {"kind": "plain"}).build(ctx, D, augmentation)]
    if extra_head:
        players.append(
            load_spec("pygan.discriminators", {"kind": "plain"}).build(ctx, network.discriminator(ctx), None)
        )
    data = {name: pictures(seed, name) for name in ("train", "validation")}
    order = permutation(seed, "order", N)
    defaults = {
        "seed": seed,
        "G": G.to(memory_format=torch.channels_last),
        "D": nn.ModuleList(players).to(memory_format=torch.channels_last),
        "objective": OBJECTIVES["hinge"],
        "regularizers": [load_spec("pygan.regularizers", {"kind": "r1", "gamma": 1.0, "every": 2}).build(ctx)],
        "batch": lambda index: (data["train"][order[index % N]], None),
        "held_out": lambda index: (data["validation"][index % N], None),
        "gen_labels": lambda draws: None,
        "masks": half_of({"G": G, "D": players}) if sparse else {},
        "init": None,
        "init_nimg": 0,
        "metadata": lambda nimg: describe(base, ctx, nimg),
    }
    return Run(**(defaults | fields))


def half_of(networks: dict) -> dict[str, torch.Tensor]:
    """Masks that prune half of the convolution weights of G and D, the smallest ones."""
    module = nn.ModuleDict({"G": networks["G"], "D": nn.ModuleList(networks["D"])})
    weights = {name: module.get_parameter(name).detach().abs() for name in prunable(module, ("G", "D"))}
    return remove_lowest(weights, {}, 0.5)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--die-in-sync", type=int)
    parser.add_argument("--augment", choices=AUGMENTS, default="diffaug")
    args = parser.parse_args(arguments)
    run = tiny_run(augment=AUGMENTS[args.augment])
    batch, sync, synced = run.batch, os.fsync, 0

    def dying_batch(index):
        if args.die_at is not None and index[0] == args.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(index)

    def dying_sync(handle):
        nonlocal synced
        synced += 1
        if synced == args.die_in_sync:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    run.batch, os.fsync = dying_batch, dying_sync
    (args.out / "out").mkdir(parents=True, exist_ok=True)
    train(run, SPEC, state_dir=args.out / "state", out_dir=args.out / "out")
    return 0
