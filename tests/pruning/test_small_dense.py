"""The dense generator of a ticket's size."""

import dataclasses

import pytest

from pygan.context import Context
from pygan.pruning.small_dense import g_channels
from pygan.spec import load_spec

CTX = Context(resolution=32)


def size(base, width: int) -> int:
    return sum(p.numel() for p in dataclasses.replace(base, g_channels=width).generator(CTX).parameters())


@pytest.mark.parametrize("kind", ["dcgan", "sngan"])
def test_no_other_width_is_nearer(kind):
    base = load_spec("pygan.networks", {"kind": kind, "z_dim": 16, "g_channels": 20})
    living = round(0.64 * size(base, 20))
    width, parameters = g_channels(base, CTX, living)
    assert parameters == size(base, width)
    best = min(range(1, 21), key=lambda w: abs(size(base, w) - living))
    assert width == best


def test_a_dense_ticket_has_the_full_width_and_an_empty_one_the_least():
    base = load_spec("pygan.networks", {"kind": "dcgan", "z_dim": 16, "g_channels": 20})
    assert g_channels(base, CTX, size(base, 20))[0] == 20
    assert g_channels(base, CTX, 0)[0] == 1


def test_a_base_without_a_width_of_G_alone_has_none():
    assert g_channels(load_spec("pygan.networks", {"kind": "stylegan2"}), CTX, 1000) is None
