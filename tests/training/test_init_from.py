"""Networks that begin as those of another training: what fits is taken and told, nothing else is."""

from pathlib import Path

import pytest
import torch
from tiny import ADA, BASE, SPEC, tiny_run

from pygan.checkpoint import read_tensors, subset, write_tensors
from pygan.errors import ConfigError, DataError, MissingInput
from pygan.training.gan import train
from pygan.training.init_from import read_snapshot, transfer

WIDER = BASE | {"g_channels": 6}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last snapshot of a training with an adaptive augmentation."""
    folder = tmp_path_factory.mktemp("source")
    train(tiny_run(seed=3, augment=ADA), SPEC, state_dir=folder / "state", out_dir=folder)
    return folder / "snapshots" / f"{SPEC.total_nimg:09d}.safetensors"


def test_equal_networks_are_taken_whole_and_nothing_besides(source: Path, tmp_path: Path) -> None:
    run = tiny_run(augment=ADA)
    augment = {k: v.clone() for k, v in run.D.state_dict().items() if ".augment." in k}
    said = transfer(run, source)
    tensors = read_tensors(source)[0]
    G = run.G.state_dict()
    assert all(torch.equal(G[k], tensors[f"G.{k}"]) for k in G)
    D = run.D.state_dict()
    assert all(torch.equal(D[k], augment[k] if k in augment else tensors[f"D.{k}"]) for k in D)
    assert augment and any(not torch.equal(augment[k], tensors[f"D.{k}"]) for k in augment)
    assert said.startswith(f"took {len(G)} of {len(G)} tensors of G and {len(D) - len(augment)} of {len(D)} tensors of")
    assert "differs" not in said

    # A training that begins so counts its pictures from 0, with fresh optimizers
    result = train(run, SPEC, state_dir=tmp_path / "state", out_dir=tmp_path)
    assert result["nimg"] == SPEC.total_nimg
    first = read_tensors(tmp_path / "snapshots" / "000000000.safetensors")
    assert first[1]["nimg"] == 0 and not any(k.endswith("exp_avg") for k in first[0])
    assert all(torch.equal(first[0][f"G.{k}"], tensors[f"G.{k}"]) for k in G)


def test_of_other_networks_the_part_that_fits_is_taken_and_told(source: Path) -> None:
    run = tiny_run(base=WIDER)
    before = {k: v.clone() for k, v in run.G.state_dict().items()}
    said = transfer(run, source)
    tensors = read_tensors(source)[0]
    fits = {k for k, v in before.items() if tensors[f"G.{k}"].shape == v.shape}
    assert 0 < len(fits) < len(before)
    for k, v in run.G.state_dict().items():
        assert torch.equal(v, tensors[f"G.{k}"] if k in fits else before[k]), k
    assert f"took {len(fits)} of {len(before)} tensors of G" in said
    assert "; G differs in " in said and "expected [" in said


def test_the_averaged_generator_alone_is_enough(source: Path, tmp_path: Path) -> None:
    tensors, metadata = read_tensors(source)
    averaged = {k: v for k, v in tensors.items() if k.startswith("G_ema.")}
    write_tensors(tmp_path / "averaged.safetensors", averaged, metadata)
    run = tiny_run()
    said = transfer(run, tmp_path / "averaged.safetensors")
    assert "and 0 of" in said
    assert all(torch.equal(v, averaged[f"G_ema.{k}"]) for k, v in run.G.state_dict().items())


def test_what_cannot_be_transferred(source: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no such file"):
        read_snapshot(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DataError, match="not a readable safetensors file"):
        transfer(tiny_run(), tmp_path / "text.safetensors")
    tensors, metadata = read_tensors(source)
    renamed = {f"G.other.{k}": v for k, v in subset(tensors, "G.").items()}
    write_tensors(tmp_path / "other.safetensors", renamed, metadata)
    with pytest.raises(ConfigError, match=r"nothing of it fits G; first differences: no .*; no .*") as caught:
        transfer(tiny_run(), tmp_path / "other.safetensors")
    assert caught.value.exit_code == 78
    name = next(k for k in tensors if k.startswith("G.") and k.endswith("weight"))
    write_tensors(tmp_path / "nan.safetensors", tensors | {name: tensors[name] * torch.nan}, metadata)
    with pytest.raises(DataError, match="not finite: "):
        transfer(tiny_run(), tmp_path / "nan.safetensors")
