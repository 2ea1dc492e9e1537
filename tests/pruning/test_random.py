"""Random masks: as sparse as a ticket, tensor by tensor or in all, and blind."""

import pytest
import torch

from pygan.context import Context
from pygan.errors import ConfigError
from pygan.pruning import channels
from pygan.pruning.masks import Round, bare_networks, compare, prunable, sparsity
from pygan.pruning.random import Spec
from pygan.spec import load_spec

BASE = {"kind": "dcgan", "z_dim": 8, "g_channels": 8, "d_channels": 4}
NETWORKS = bare_networks(load_spec("pygan.networks", BASE), Context(resolution=16))


def ticket() -> dict[str, torch.Tensor]:
    """A mask of G and D with another sparsity in every tensor."""
    draw = torch.Generator().manual_seed(0)
    shapes = {n: NETWORKS.get_parameter(n).shape for n in prunable(NETWORKS, ("G", "D"))}
    return {n: torch.rand(s, generator=draw) < 0.2 + 0.1 * i for i, (n, s) in enumerate(shapes.items())}


def masks_of(seed: int = 0, like: dict | None = None, **fields) -> dict[str, torch.Tensor]:
    name = {} if like is None else {"like": "ticket"}
    return Spec(found_in="dense", **name, **fields).next_masks(Round(networks=NETWORKS, like=like, seed=seed))


def counts(masks: dict[str, torch.Tensor]) -> dict[str, int]:
    return {n: int(m.sum()) for n, m in masks.items()}


def test_like_a_ticket_every_tensor_keeps_its_number_of_weights():
    like = ticket()
    masks = masks_of(like=like)
    assert counts(masks) == counts(like)
    overlap = compare(masks, like)
    assert overlap["intersection_over_union"] == pytest.approx(overlap["expected_by_chance"], abs=0.05)


def test_like_a_ticket_in_all():
    like = ticket()
    masks = masks_of(like=like, scope="global")
    assert sum(counts(masks).values()) == sum(counts(like).values())
    assert counts(masks) != counts(like)
    assert max(sparsity({n: m}) for n, m in masks.items()) - min(sparsity({n: m}) for n, m in masks.items()) < 0.25


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_by_sparsity_the_count_is_exact(scope):
    masks = masks_of(sparsity=0.36, scope=scope)
    assert list(masks) == sorted(prunable(NETWORKS, ("G",)))
    total = sum(m.numel() for m in masks.values())
    assert abs(sum(counts(masks).values()) - 0.64 * total) <= len(masks)
    if scope == "layer":
        assert all(int((~m).sum()) == round(0.36 * m.numel()) for m in masks.values())


def test_seed_and_draw_make_other_masks_and_nothing_else_does():
    same, again = masks_of(sparsity=0.5), masks_of(sparsity=0.5)
    assert all(torch.equal(same[n], again[n]) for n in same)
    for other in (masks_of(seed=1, sparsity=0.5), masks_of(sparsity=0.5, draw=1)):
        assert compare(same, other)["intersection_over_union"] == pytest.approx(1 / 3, abs=0.05)


def test_whole_channels_like_those_of_a_ticket():
    groups = channels.groups_of(NETWORKS)
    shapes = {n: p.shape for n, p in NETWORKS.named_parameters()}
    alive = {g.name: torch.arange(shapes[g.name][0]) % 3 > 0 for g in groups}
    like = channels.as_weight_masks(groups, alive, shapes)
    masks = masks_of(like=like, structure="channel")
    assert masks.keys() == like.keys()
    found = channels.alive_in(groups, masks)
    assert counts(found) == counts(alive)
    assert any(not torch.equal(found[n], alive[n]) for n in alive)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "expected either `sparsity` or `like`, and not both"),
        ({"sparsity": 0.2, "like": "ticket"}, "expected either `sparsity` or `like`, and not both"),
        ({"sparsity": 1.0}, "ticket.sparsity: Input should be less than 1"),
        ({"sparsity": -0.1}, "ticket.sparsity: Input should be greater than 0"),
    ],
)
def test_settings_out_of_range_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        load_spec("pygan.pruning", {"kind": "random", "found_in": "dense"} | fields, "ticket")
