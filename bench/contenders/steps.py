"""The contenders of `bench/train.py`: games between the same networks, computed in different ways."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from contenders import sngan as plain_sngan
from contenders import stylegan2 as formulas
from contenders.game import Game
from pygan.context import Context
from pygan.losses import OBJECTIVES
from pygan.networks import biggan, dcgan, sngan, stylegan2
from pygan.regularizers.path_length import PathLength
from pygan.regularizers.r1 import R1

RESOLUTION, CLASSES = 32, 10
OURS: dict[str, dict[str, Any]] = {
    "pygan": {},
    "pygan, bfloat16": {"autocast": True},
    "pygan, contiguous": {"channels_last": False},
    "pygan, torch.compile": {"compiled": True},
}
PLAIN = {"plain": True, "channels_last": False}


def networks(spec: Any, num_classes: int = 0) -> tuple[nn.Module, nn.Module]:
    """Return G and D whose biases and noise strengths, 0 at the start, count too."""
    torch.manual_seed(0)
    ctx = Context(resolution=RESOLUTION, num_classes=num_classes)
    G, D = spec.generator(ctx), spec.discriminator(ctx)
    with torch.no_grad():
        for network in (G, D):
            for name, p in network.named_parameters():
                if name.endswith(("bias", "noise_strength")):
                    p += 0.1 * torch.randn_like(p)
    return G, D


def stylegan2_game(name: str, batch: int) -> Game:
    """The small configuration: 2.3 and 1.3 million parameters."""
    spec = stylegan2.Spec(channel_base=4096, channel_max=128, mapping_layers=2)
    G, D = networks(spec)
    how = OURS.get(name, PLAIN)
    if name == "formulas":
        states = G.state_dict(), D.state_dict()
        G, D = formulas.Generator(spec, RESOLUTION), formulas.Discriminator(spec, RESOLUTION)
        G.load_state_dict(states[0])
        D.load_state_dict(states[1])
    terms = [R1(gamma=10, every=16), PathLength(weight=2, decay=0.01, batch_shrink=2, every=4)]
    return _game(G, D, batch, how, "non_saturating", terms=terms, lr=0.0025, betas=(0.0, 0.99))


def sngan_game(name: str, batch: int) -> Game:
    """The published width: 256 channels in G, 128 in D."""
    spec = sngan.Spec()
    G, D = networks(spec)
    if name == "plain PyTorch":
        G = plain_sngan.load(plain_sngan.Generator(spec), G)
        D = plain_sngan.load(plain_sngan.Discriminator(spec), D)
    return _game(G, D, batch, OURS.get(name, PLAIN), "hinge", d_steps=5, lr=2e-4, betas=(0.0, 0.9))


def biggan_game(name: str, batch: int) -> Game:
    """The gSR release's size for CIFAR, conditional."""
    G, D = networks(biggan.Spec(z_dim=80), CLASSES)
    return _game(G, D, batch, OURS[name], "hinge", d_steps=5, num_classes=CLASSES, lr=2e-4, betas=(0.0, 0.999))


def dcgan_game(name: str, batch: int) -> Game:
    """The default study's networks and penalty."""
    G, D = networks(dcgan.Spec(g_channels=32, d_channels=32))
    return _game(G, D, batch, OURS[name], "hinge", terms=[R1(gamma=0.1, every=8)], lr=2e-4, betas=(0.5, 0.999))


def _game(G: nn.Module, D: nn.Module, batch: int, how: dict[str, Any], objective: str, **options: Any) -> Game:
    return Game(G, D, objective=OBJECTIVES[objective], batch=batch, resolution=RESOLUTION, **options, **how)


GAMES: dict[str, Callable[[str, int], Game]] = {
    "stylegan2": stylegan2_game,
    "sngan": sngan_game,
    "biggan": biggan_game,
    "dcgan": dcgan_game,
}
"""Case to (contender, batch) to a game."""
