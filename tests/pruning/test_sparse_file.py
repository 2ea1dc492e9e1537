"""Tickets in few bytes: the same values back, the same pictures, smaller files, damage noticed."""

import pytest
import torch

import pygan
from pygan.checkpoint import read_tensors, write_tensors
from pygan.context import Context
from pygan.errors import DataError
from pygan.pruning.channels import channels_of
from pygan.pruning.masks import Masked
from pygan.pruning.ranking import remove_lowest
from pygan.pruning.sparse_file import compact, compress, decompress
from pygan.sampling import describe, export_sparse
from pygan.spec import load_spec

BASE = {"kind": "dcgan", "z_dim": 8, "g_channels": 16, "d_channels": 4}


def snapshot(path, fraction: float, structure: str = "weight"):
    """A generator without training, pruned by weights or by channels, in a snapshot beside other tensors."""
    ctx = Context(resolution=16)
    torch.manual_seed(0)
    G = load_spec("pygan.networks", BASE).generator(ctx)
    if structure == "weight":
        convs = {n: p.detach().abs() for n, p in G.named_parameters() if p.dim() == 4}
        masks = remove_lowest(convs, {}, fraction)
    else:
        masks = {}
        for group in channels_of(G):
            for name, dim in group.parameters:
                mask = masks.setdefault(name, torch.ones_like(G.get_parameter(name), dtype=torch.bool))
                mask.transpose(0, dim)[: round(fraction * mask.shape[dim])] = False
    Masked(G, masks).zero_weights()
    tensors = {f"{net}.{n}": t for net in ("G", "G_ema") for n, t in G.state_dict().items()}
    tensors = {n: t.clone() for n, t in tensors.items()}
    write_tensors(path, tensors, describe(BASE, ctx, 7))
    return path


def test_values_come_back_bit_by_bit():
    tensors = {
        "sparse": torch.randn(7, 5, 3) * (torch.rand(7, 5, 3) < 0.3),
        "dense": torch.tensor([1.0, -2.5e-40, float("inf"), 3.4e38]),
        "zeros": torch.zeros(9),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.0),
        "count": torch.tensor([3, 0, 5]),
    }
    packed, metadata = compress(tensors, {"nimg": 3})
    restored, back = decompress(packed, metadata)
    assert back == {"nimg": 3} and restored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert restored[name].dtype == tensor.dtype and torch.equal(restored[name], tensor), name


def test_a_ticket_makes_the_same_pictures_from_fewer_bytes(tmp_path):
    path = snapshot(tmp_path / "ticket.safetensors", 0.8)
    small, dense = export_sparse(path, tmp_path / "small.safetensors")
    assert small == (tmp_path / "small.safetensors").stat().st_size
    # 54,288 weights in convolutions, a fifth of them alive at less than 4 bytes and a bit for each; the rest is dense.
    conv = sum(t.numel() for t in pygan.load(path).G.parameters() if t.dim() == 4)
    assert small < 4 * (0.2 * conv) + conv / 8 + (dense - 4 * conv) + 8000
    ticket, again = pygan.load(path), pygan.load(tmp_path / "small.safetensors")
    assert torch.equal(ticket.sample(4, seed=1), again.sample(4, seed=1))
    assert again.metadata["nimg"] == 7
    for name, tensor in ticket.G.state_dict().items():
        assert torch.equal(tensor, again.G.state_dict()[name]), name


def test_a_channel_ticket_is_a_smaller_network(tmp_path):
    path = snapshot(tmp_path / "ticket.safetensors", 0.5, "channel")
    export_sparse(path, tmp_path / "small.safetensors")
    ticket, small = pygan.load(path), pygan.load(tmp_path / "small.safetensors")
    assert small.G.convs[0].weight.shape[0] == ticket.G.convs[0].weight.shape[0] // 2
    difference = (ticket.sample(4, seed=1).int() - small.sample(4, seed=1).int()).abs().max()
    assert difference <= 1  # of 255: the order of sums


def test_a_compressed_file_can_be_compressed_again(tmp_path):
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    export_sparse(snapshot(tmp_path / "ticket.safetensors", 0.5, "channel"), once)
    export_sparse(once, twice)
    small = pygan.load(once)
    assert torch.equal(small.sample(2), pygan.load(twice).sample(2))
    # Cutting more channels out of a smaller network still names those of the whole one.
    before = small.metadata["living_channels"]
    for parameter, dim in channels_of(small.G)[0].parameters:
        small.G.get_parameter(parameter).movedim(dim, 0)[1] = 0
    _, metadata = decompress(*compact(small.G, small.metadata))
    name = "convs.0.weight"
    assert metadata["living_channels"] == before | {name: [before[name][0], *before[name][2:]]}


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "small.safetensors"
    export_sparse(snapshot(tmp_path / "ticket.safetensors", 0.5), path)
    tensors, metadata = read_tensors(path)
    name = "G_ema.convs.0.weight#values"
    for change in (lambda t: t[:-9], lambda t: t ^ (torch.arange(len(t)) == 20).to(torch.uint8), None):
        broken = {n: t for n, t in tensors.items() if n != name} | ({name: change(tensors[name])} if change else {})
        write_tensors(path, broken, metadata)
        with pytest.raises(DataError, match=r"G_ema\.convs\.0\.weight: damaged in this compressed file"):
            pygan.load(path)
