"""Lottery tickets: what a round ranks, in which networks, and its shares."""

import pytest
import torch
from torch import nn

from pygan.context import Context
from pygan.errors import ConfigError
from pygan.pruning.lottery import Spec
from pygan.pruning.masks import Round, bare_networks, shares, sparsity
from pygan.spec import load_spec

BASE = {"kind": "dcgan", "z_dim": 8, "g_channels": 4, "d_channels": 4}
CTX = Context(resolution=16)


def trained(base: dict = BASE, **fields) -> Round:
    """A round whose snapshot is drawn at random, G_ema apart from G."""
    networks = bare_networks(load_spec("pygan.networks", base), CTX)
    draw = torch.Generator().manual_seed(0)
    state = {n: torch.randn(p.shape, generator=draw) for n, p in networks.named_parameters()}
    state |= {n.replace("G.", "G_ema."): torch.randn(t.shape, generator=draw) for n, t in state.items() if n[0] == "G"}
    return Round(networks=networks, state=state, **fields)


def next_masks(last: Round, number: int = 1, **fields):
    return Spec(found_in="dense", **fields).next_masks(last, number)


def check_lowest(last: Round, masks, prefix: str = ""):
    """All that is gone is smaller than all that is kept, in the named part of the state."""
    state = {n: last.state[prefix + n.partition(".")[2] if prefix else n].abs() for n in masks}
    assert max(state[n][~m].max() for n, m in masks.items() if not m.all()) < min(
        state[n][m].min() for n, m in masks.items()
    )


def test_as_released_the_convolutions_of_G_are_pruned_by_their_raw_weights():
    last = trained()
    masks = next_masks(last)
    conv = {n for n, p in last.networks.named_parameters() if p.dim() == 4 and n.startswith("G.")}
    assert masks.keys() == conv
    check_lowest(last, masks)
    assert shares(last.networks, masks)["G_conv"]["sparsity"] == pytest.approx(0.2, abs=1e-3)
    assert shares(last.networks, masks)["D"]["sparsity"] == 0


def test_the_average_can_be_ranked_instead():
    last = trained()
    masks = next_masks(last, weights="ema")
    check_lowest(last, masks, prefix="G_ema.")
    assert any(not torch.equal(m, next_masks(last)[n]) for n, m in masks.items())


def test_the_algorithm_of_the_paper_has_one_threshold_for_G_and_D():
    last = trained()
    masks = next_masks(last, networks=("G", "D"), weights="ema")
    assert {n.split(".")[0] for n in masks} == {"G", "D"}
    state = {n: last.state[n.replace("G.", "G_ema.", 1) if n[0] == "G" else n].abs() for n in masks}  # D has no average
    gone = torch.cat([state[n][~m] for n, m in masks.items()])
    kept = torch.cat([state[n][m] for n, m in masks.items()])
    assert gone.max() < kept.min() and len(gone) == round(0.2 * (len(gone) + len(kept)))
    only_D = next_masks(last, networks=("D",))
    assert {n.split(".")[0] for n in only_D} == {"D"}


def test_a_spectrally_normalized_weight_is_ranked_before_the_normalization():
    last = trained({"kind": "sngan", "z_dim": 8, "g_channels": 4, "d_channels": 4})
    masks = next_masks(last, networks=("D",))
    assert all(n.endswith(".parametrizations.weight.original") for n in masks)
    check_lowest(last, masks)


def test_rounds_are_nested_and_each_has_its_own_share():
    last, before, living = trained(), {}, None
    for number, fraction in enumerate((0.5, 0.2, 0.1), start=1):
        worn = Round(networks=last.networks, state=last.state, masks=before)
        masks = next_masks(worn, number, rounds=3, fractions=(0.5, 0.2, 0.1))
        count = sum(int(m.sum()) for m in masks.values())
        total = living or sum(m.numel() for m in masks.values())
        assert count == total - round(fraction * total)
        assert all((masks[n] <= before[n]).all() for n in before)
        before, living = masks, count
    assert sparsity(before) == pytest.approx(1 - 0.5 * 0.8 * 0.9, abs=1e-3)


def test_one_round_with_the_whole_share_is_one_shot():
    last = trained()
    masks = next_masks(last, fraction=0.488)
    assert sparsity(masks) == pytest.approx(0.488, abs=1e-3)
    check_lowest(last, masks)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fraction": 1.0}, "ticket.fraction: Input should be less than 1"),
        ({"fraction": 0.0}, "ticket.fraction: Input should be greater than 0"),
        ({"rounds": 0}, "ticket.rounds: Input should be greater than or equal to 1"),
        ({"rounds": 2, "fractions": (0.2,)}, "fractions: got 1, expected one for each of 2 rounds"),
        ({"rounds": 2, "fractions": (0.2, 1.5)}, "fractions: got 1.5, expected numbers between 0 and 1"),
        ({"networks": ("G", "G")}, "expected each of them once"),
        ({"networks": ()}, "ticket.networks: Tuple should have at least 1 item"),
        ({"structure": "channel", "networks": ("G", "D")}, "channels are those of G's convolutions"),
        (
            {"structure": "channel"},
            "norms of channels in different layers do not compare, expected layer or scale_free",
        ),
    ],
)
def test_settings_out_of_range_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        load_spec("pygan.pruning", {"kind": "lottery", "found_in": "dense"} | fields, "ticket")


def test_networks_that_have_nothing_to_prune_are_refused():
    linear = nn.ModuleDict({"G": nn.Linear(2, 2), "D": nn.ModuleList([nn.Linear(2, 1)])})
    with pytest.raises(ValueError, match="got D, which has no convolution weights"):
        Spec(found_in="dense", networks=("D",)).check(linear)
    with pytest.raises(ValueError, match="stylegan2 has no channels that can go, expected dcgan or sngan"):
        Spec(found_in="dense", structure="channel", scope="layer").check(
            bare_networks(load_spec("pygan.networks", {"kind": "stylegan2"}), CTX)
        )
    Spec(found_in="dense", networks=("G", "D")).check(trained().networks)
