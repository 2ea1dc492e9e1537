"""Published pickles, made here as the public code makes them, with stand-ins of its modules."""

import collections
import io
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pygan import nvlabs
from pygan.checkpoint import read_tensors
from pygan.context import Context
from pygan.errors import DataError, MissingInput
from pygan.networks.stylegan2 import Spec
from pygan.sampling import load_generator

SIZES = {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "mapping_layers": 2}


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """The module names that a published pickle refers to."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta: dict) -> Any:
        raise AssertionError("this would run the source text in the pickle")

    class EasyDict(dict):
        __module__, __qualname__ = "dnnlib.util", "EasyDict"

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj, util.EasyDict = _reconstruct_persistent_obj, EasyDict
    for name, module in (("torch_utils.persistence", persistence), ("dnnlib.util", util)):
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))
        monkeypatch.setitem(sys.modules, name, module)

    class Persistent:
        """An object that pickles as a call of the release's function."""

        def __init__(self, **state: Any) -> None:
            self.state = state

        def __reduce__(self) -> tuple:
            meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": "Module"}
            return _reconstruct_persistent_obj, (EasyDict(meta, state=self.state),)

    return types.SimpleNamespace(Persistent=Persistent, EasyDict=EasyDict)


def stored(release: types.SimpleNamespace, module: nn.Module, arguments: dict[str, Any] | None = None) -> Any:
    """A module as the release stores it: nested persistent objects with the attributes of `nn.Module`."""
    return release.Persistent(
        _parameters=collections.OrderedDict(module.named_parameters(recurse=False)),
        _buffers=collections.OrderedDict(module.named_buffers(recurse=False)),
        _modules=collections.OrderedDict((name, stored(release, child)) for name, child in module.named_children()),
        _init_kwargs=release.EasyDict(arguments or {}),
        _non_persistent_buffers_set=set(),
        weight_gain=np.sqrt(np.float64(0.5)),
    )


def published(release: types.SimpleNamespace, path: Path, num_classes: int = 0) -> tuple[nn.Module, nn.Module]:
    """Write a pickle like a published one; return its G and D."""
    base, ctx = Spec(**SIZES), Context(resolution=16, num_classes=num_classes)
    torch.manual_seed(0)
    G, D = base.generator(ctx), base.discriminator(ctx)
    common = {"c_dim": num_classes, "img_resolution": 16, "img_channels": 3}
    widths = release.EasyDict(channel_base=64, channel_max=8)
    g_arguments = {**common, "z_dim": 8, "w_dim": 8, "synthesis_kwargs": widths}
    g_arguments["mapping_kwargs"] = release.EasyDict(num_layers=2)
    d_arguments = {**common, **widths, "architecture": "resnet"}
    networks = {"G": G, "G_ema": G, "D": D}
    arguments = {"G": g_arguments, "G_ema": g_arguments, "D": d_arguments}
    content = {key: stored(release, network, arguments[key]) for key, network in networks.items()}
    path.write_bytes(pickle.dumps({**content, "training_set_kwargs": None, "augment_pipe": None}, protocol=4))
    return G, D


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_published_pickle_becomes_a_snapshot(
    release: types.SimpleNamespace, tmp_path: Path, num_classes: int
) -> None:
    G, D = published(release, tmp_path / "net.pkl", num_classes)
    nvlabs.convert(tmp_path / "net.pkl", tmp_path / "net.safetensors")
    loaded = load_generator(tmp_path / "net.safetensors")
    z, c = torch.randn(2, 8), torch.tensor([0, 2]) if num_classes else None
    assert torch.equal(loaded(z, c), G.eval()(z, c))
    tensors, metadata = read_tensors(tmp_path / "net.safetensors")
    assert metadata["base"]["mapping_layers"] == 2
    assert {name for name in tensors if name.startswith("D.")} == {f"D.0.network.{name}" for name in D.state_dict()}


class Attack:
    def __reduce__(self) -> tuple:
        return os.system, ("touch attacked",)


def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Attack()}))
    with pytest.raises(DataError, match=r"evil.pkl: refused, because the pickle asks for (posix|nt)\.system"):
        nvlabs.convert(path, tmp_path / "out.safetensors")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["evil.pkl"]


def test_an_attack_inside_a_tensor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inner = io.BytesIO()
    torch.save(Attack(), inner)

    class Storage:
        def __reduce__(self) -> tuple:
            return torch.storage._load_from_bytes, (inner.getvalue(),)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"G_ema": Storage()}))
    with pytest.raises(DataError, match="not a readable pickle"):
        nvlabs.read(tmp_path / "evil.pkl")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a readable pickle"),
        (b"PK\x03\x04 a zip", "not a readable pickle"),
        (pickle.dumps([1, 2]), "got a pickle without G_ema"),
        (pickle.dumps({"G_ema": {"state": {}}}), "do not fit pygan's StyleGAN2"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "net.pkl").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        nvlabs.convert(tmp_path / "net.pkl", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_cannot_be_opened_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"net\.pkl: cannot be opened \(No such file or directory\)"):
        nvlabs.convert(tmp_path / "net.pkl", tmp_path / "out.safetensors")
    with pytest.raises(MissingInput, match=r"cannot be opened \(Is a directory\), expected a file with a pickle"):
        nvlabs.convert(tmp_path, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_widths_that_differ_between_the_networks_are_refused(release: types.SimpleNamespace, tmp_path: Path) -> None:
    published(release, tmp_path / "net.pkl")
    content = nvlabs.read(tmp_path / "net.pkl")
    content["D"]["state"]["_init_kwargs"]["channel_base"] = 128
    with pytest.raises(ValueError, match="channel_base is 64 in G and 128 in D"):
        nvlabs._settings(content)


def test_gains_stored_as_numpy_scalars_are_numbers(release: types.SimpleNamespace, tmp_path: Path) -> None:
    published(release, tmp_path / "net.pkl")
    G = nvlabs.read(tmp_path / "net.pkl")["G_ema"]
    assert G["state"]["weight_gain"] == pytest.approx(0.5**0.5)
    assert all(isinstance(value, Tensor) for value in nvlabs.state_dict(G).values())
