"""InceptionV3 of FID on random weights in the layout of the public file, against torch-fidelity's network.

True weights are never read here: what is checked is that every weight of the file arrives in its place, and that the
merged convolutions and moved averages compute what the public network computes.
"""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pygan import weights
from pygan.context import Context
from pygan.errors import DataError, MissingInput
from pygan.features.inception_v3 import FILE, InceptionV3, Spec
from pygan.metrics.base import extract, network_spec
from pygan.metrics.resize import resize


@pytest.fixture(scope="module")
def public() -> nn.Module:
    """torch-fidelity's network with weights in which nothing is hidden by a constant."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Untrained(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state: dict, **options: object) -> None:
            """Keep the constructor's weights."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *args, **options: {})
        network = Untrained("random", ["2048", "logits_unbiased"])
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.1, generator=generator)
    return network


@pytest.fixture
def folder(tmp_path: Path, public: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights with the public layout in a file of the listed name."""
    torch.save(public.state_dict(), tmp_path / FILE)
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    monkeypatch.setitem(weights._listed(), FILE, weights._listed()[FILE] | {"sha256": None})
    return tmp_path


def _pictures(n: int, side: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


@torch.no_grad()
def test_it_is_torch_fidelitys_network(public: nn.Module, folder: Path) -> None:
    images = _pictures(3, 32)
    network = Spec(protocol="legacy_tensorflow").build(Context(resolution=0))
    features, logits = public(images)
    ours = extract(images, network, batch=3)
    assert float(((ours - features).norm(dim=1) / features.norm(dim=1)).max()) < 1e-4
    torch.testing.assert_close(network.classifier(ours), logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))


@torch.no_grad()
def test_the_legacy_protocol_of_pytorch_has_its_own_center(public: nn.Module, folder: Path) -> None:
    """pytorch-fid maps bytes to x / 127.5 - 1, TensorFlow's graph to (x - 128) / 128."""
    images = _pictures(1, 40)
    network = Spec(protocol="legacy_pytorch").build(Context(resolution=0))
    seen = resize(images, 299, "legacy_pytorch")
    prepared = network._prepare(seen / 127.5 - 1)
    torch.testing.assert_close(prepared, seen / 127.5 - 1, rtol=0, atol=1e-6)
    clean = Spec().build(Context(resolution=0))
    torch.testing.assert_close(clean._prepare(seen / 127.5 - 1), (seen - 128) / 128, rtol=0, atol=1e-6)


def test_every_weight_of_the_file_is_used(public: nn.Module) -> None:
    state = copy.deepcopy(public.state_dict())
    network = InceptionV3("i", 128.0, None)
    network.load(state)
    folded = sum(state[name].numel() for name in state if name.endswith("conv.weight"))
    assert folded == sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
    with pytest.raises(DataError, match=r"AuxLogits.conv0.conv.weight"):
        network.load(state | {"AuxLogits.conv0.conv.weight": torch.zeros(1)})
    del state["Mixed_7c.branch_pool.bn.running_var"]
    with pytest.raises(DataError, match=r"Mixed_7c.branch_pool.bn.running_var"):
        network.load(state)


def test_names_tell_protocols_and_random_weights_apart(folder: Path) -> None:
    assert Spec().name == "inception_v3" and Spec(random_init=True).name == "inception_v3_random"
    assert Spec(protocol="legacy_pytorch").name == "inception_v3_legacy_pytorch"
    network = Spec().build(Context(resolution=0))
    assert network.sha256 == weights.find(FILE)[1] and network.resolution == 299 and network.protocol == "clean"


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    with pytest.raises(MissingInput, match=f"{FILE} is not there: run `pygan weights fetch {FILE}`") as raised:
        network_spec({"kind": "inception_v3"}).build(Context(resolution=0))
    assert raised.value.exit_code == 66


@pytest.mark.slow
def test_random_weights_are_calibrated() -> None:
    network = Spec(random_init=True).build(Context(resolution=0, seed=1))
    features = extract(_pictures(4, 4), network)  # smooth, as what it is calibrated on
    assert network.sha256 is None and features.isfinite().all()
    assert 0.1 < float(features.mean()) < 10 and float(features.std(0).mean()) > 0
