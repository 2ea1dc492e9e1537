"""Generators on disk for other programs: what is written computes the same pictures, alone and at any batch size."""

import functools
import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from stand_in_device import stand_in_gpu
from tiny_snapshot import DCGAN, snapshot
from typer.testing import CliRunner

import pygan
from pygan.checkpoint import write_tensors
from pygan.cli import app
from pygan.context import Context
from pygan.errors import MissingInput, NumericalError
from pygan.export import TOLERANCE, export, format_of
from pygan.ops import extension, plain_operators
from pygan.sampling import Model, describe
from pygan.spec import load_spec

BASES = {
    "dcgan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
    "sngan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
    "biggan": {"z_dim": 8, "g_channels": 4, "d_channels": 4, "shared_dim": 4},
    "stylegan2": {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "mapping_layers": 2},
}
SIDES = {"dcgan": 8, "sngan": 8, "biggan": 32, "stylegan2": 8}
"""Pixels; BigGAN has no smaller pictures."""
CASES = [("dcgan", 3), ("sngan", 0), ("biggan", 3), ("stylegan2", 0)]


def model(folder: Path, kind: str, num_classes: int = 0, *, sparse: bool = False) -> Model:
    """Write the snapshot of a fresh tiny generator whose buffers are not those of the start; load it."""
    base = {"kind": kind, "conditional": num_classes > 0, **BASES[kind]}
    ctx = Context(resolution=SIDES[kind], num_classes=num_classes)
    torch.manual_seed(1)
    G = load_spec("pygan.networks", base).generator(ctx).train()
    c = torch.arange(8) % num_classes if num_classes else None
    with torch.no_grad():
        G(torch.randn(8, G.z_dim), c)  # statistics, power iterations and the average w move
    state = G.state_dict()
    if sparse:
        for name, weight in state.items():
            if weight.dim() > 1:
                state[name] = weight * (weight.abs() > weight.abs().median())
    tensors = {f"G_ema.{k}": v for k, v in state.items()} | {"G.other": torch.zeros(3)}
    write_tensors(folder / "model.safetensors", tensors, describe(base, ctx, 64))
    return pygan.load(folder / "model.safetensors")


def latents(model: Model, n: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(n)
    z = torch.randn(n, model.G.z_dim)
    return (z, torch.arange(n) % model.num_classes) if model.num_classes else (z,)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_torchscript_needs_torch_alone(tmp_path, kind, num_classes):
    source = model(tmp_path, kind, num_classes)
    checked = export(source, tmp_path / "g.pt", "torchscript")
    assert checked.difference <= TOLERANCE and checked.reader == "torch.jit.load"
    script = torch.jit.load(tmp_path / "g.pt")
    inputs = latents(source, 5)
    img = script(*inputs)
    assert img.shape == (5, 3, SIDES[kind], SIDES[kind]) and img.dtype == torch.float32
    torch.testing.assert_close(img, source.G(*inputs).clamp(-1, 1), rtol=0, atol=1e-5)
    kinds = {node.kind().split("::")[0] for node in script.inlined_graph.nodes()}
    assert kinds <= {"aten", "prim"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_onnx_needs_the_standard_operators_alone(tmp_path, caplog, kind, num_classes):
    caplog.set_level(logging.INFO, "torch.__trace")  # the recorder formats more than it records
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    source = model(tmp_path, kind, num_classes)
    checked = export(source, tmp_path / "g.onnx", "onnx")
    assert checked.difference <= TOLERANCE
    graph = onnx.load(tmp_path / "g.onnx").graph
    assert {node.domain for node in graph.node} == {""}
    assert [value.name for value in graph.input] == ["z", "c"][: 1 + (num_classes > 0)]
    assert [value.name for value in graph.output] == ["img"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param  # any number of pictures


@pytest.mark.slow
def test_without_onnxruntime_onnx_checks_by_itself(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    checked = export(model(tmp_path, "dcgan"), tmp_path / "g.onnx", "onnx")
    assert checked.reader == "onnx.reference" and checked.difference <= TOLERANCE


def test_safetensors_hold_the_average_alone_and_zeros_stay(tmp_path):
    source = model(tmp_path, "sngan", sparse=True)
    checked = export(source, tmp_path / "g.safetensors", "safetensors")
    assert checked.difference == 0
    again = pygan.load(tmp_path / "g.safetensors")
    assert torch.equal(again.sample(3, seed=2), source.sample(3, seed=2))
    assert again.metadata == source.metadata
    assert (tmp_path / "g.safetensors").stat().st_size < (tmp_path / "model.safetensors").stat().st_size
    assert export(again, tmp_path / "small.safetensors", "sparse").difference == 0
    whole = export(pygan.load(tmp_path / "small.safetensors"), tmp_path / "whole.safetensors", "safetensors")
    assert whole.difference == 0
    assert torch.equal(pygan.load(tmp_path / "whole.safetensors").sample(3, seed=2), source.sample(3, seed=2))
    zeros = [int((p == 0).sum()) for p in again.G.parameters()]
    assert zeros == [int((p == 0).sum()) for p in source.G.parameters()] and sum(zeros) > 100


def test_another_picture_is_an_error_and_no_file(tmp_path, monkeypatch):
    source = model(tmp_path, "dcgan")
    monkeypatch.setattr("pygan.export._Pictures.forward", lambda self, z: self.G(z).clamp(-1, 1) + 2 * TOLERANCE)
    with pytest.raises(NumericalError, match=r"g\.pt: not written, because its pictures differ"):
        export(source, tmp_path / "g.pt", "torchscript")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_the_verb(tmp_path, monkeypatch):
    model(tmp_path, "dcgan")
    run = functools.partial(CliRunner().invoke, app)
    arguments = ["export", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "out" / "g.pt"), "--format"]
    done = run([*arguments, "torchscript"])
    assert done.exit_code == 0 and "differ by at most" in done.stdout
    assert (tmp_path / "out" / "g.pt").is_file()
    assert run([*arguments, "pickle"]).exit_code == 2
    contradiction = run([*arguments, "onnx"])
    assert contradiction.exit_code == 2 and "suffix .pt holds torchscript, not onnx" in contradiction.stderr
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = run(["export", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "g.onnx")])
    assert missing.exit_code == MissingInput.exit_code
    assert "the format onnx needs the packages onnx and onnxscript: run" in missing.stderr
    assert not (tmp_path / "g.onnx").exists()


def test_the_suffix_chooses_the_format():
    for name, format in {
        "g.safetensors": "safetensors",
        "g.onnx": "onnx",
        "g.ONNX": "onnx",
        "g.pt": "torchscript",
        "g.torchscript": "torchscript",
    }.items():
        assert format_of(Path(name)) == format_of(Path(name), format) == format
    assert format_of(Path("g.safetensors"), "sparse") == "sparse"
    with pytest.raises(ValueError, match=r"g\.onnx: a file with the suffix \.onnx holds onnx, not sparse"):
        format_of(Path("g.onnx"), "sparse")
    with pytest.raises(ValueError, match=r"g\.safetensors: .* holds safetensors or sparse, not onnx"):
        format_of(Path("g.safetensors"), "onnx")
    with pytest.raises(ValueError, match=r"g\.bin: got the suffix '\.bin', expected \.safetensors, \.onnx, \.pt, "):
        format_of(Path("g.bin"))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("name", ["g.safetensors", "g.pt"])
def test_a_model_on_a_gpu_is_written_from_a_copy_on_the_cpu(tmp_path, monkeypatch, name):
    source = model(tmp_path, "sngan", 3)
    with stand_in_gpu(monkeypatch):
        there = pygan.load(source.path, "cuda")
        assert export(there, tmp_path / name).difference <= TOLERANCE
        assert there.device.type == "cuda"


def test_plain_operators_end_with_the_block():
    x = torch.zeros(1)
    before = extension.use_native(x)
    with plain_operators():
        assert not extension.use_native(x)
    assert extension.use_native(x) == before


@pytest.mark.parametrize("format", ["safetensors", "sparse"])
def test_an_export_never_replaces_the_snapshot_that_it_reads(tmp_path, format):
    path = tmp_path / "a.safetensors"
    snapshot(path, DCGAN)
    before = path.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(path)
    for out in (path, tmp_path / "link.safetensors", tmp_path / ".." / tmp_path.name / "a.safetensors"):
        with pytest.raises(ValueError, match=r"\.safetensors: is the snapshot that is read"):
            export(Model(path), out, format)
    assert path.read_bytes() == before and (tmp_path / "link.safetensors").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2
