"""A mask from elsewhere: taken as it is, refused where it does not fit."""

import pytest
import torch

from pygan.context import Context
from pygan.errors import ConfigError, DataError
from pygan.pruning.masks import Round, bare_networks
from pygan.pruning.transfer import Spec
from pygan.spec import load_spec

NETWORKS = bare_networks(load_spec("pygan.networks", {"kind": "dcgan", "g_channels": 4}), Context(resolution=16))


def test_the_mask_is_taken_as_it_is():
    like = {"G.convs.0.weight": torch.rand(NETWORKS.G.convs[0].weight.shape) < 0.5}
    masks = Spec(mask_of="ticket").next_masks(Round(networks=NETWORKS, like=like))
    assert torch.equal(masks["G.convs.0.weight"], like["G.convs.0.weight"])


def test_a_mask_for_another_architecture_is_refused():
    like = {"G.convs.9.weight": torch.ones(1, dtype=torch.bool)}
    with pytest.raises(DataError, match=r"old\.safetensors: made for another architecture, G\.convs\.9\.weight is no"):
        Spec(path="old.safetensors").next_masks(Round(networks=NETWORKS, like=like))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "expected either `mask_of` or `path`, and not both"),
        ({"mask_of": "a", "path": "b"}, "expected either `mask_of` or `path`, and not both"),
        ({"mask_of": "a", "rewind_nimg": 10}, "found_in: the key is missing, `rewind_nimg` needs it"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        load_spec("pygan.pruning", {"kind": "transfer"} | fields, "ticket")
