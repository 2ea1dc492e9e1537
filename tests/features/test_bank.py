"""Networks whose weights the user fetches, on random weights in the layout of the public files, against other code.

True weights are never read here: what is checked is that the file's layout arrives in the right places.
"""

import importlib
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan import features, weights
from pygan.context import Context
from pygan.errors import ConfigError, MissingInput
from pygan.features.frozen import FrozenNetwork, fold_batch_norms
from pygan.features.vision_transformer import VisionTransformer
from pygan.spec import load_spec

CTX = Context(resolution=32)
UNIT = {"mean": (127.5,) * 3, "std": (127.5,) * 3}


def random_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model in which nothing is hidden by a constant: those of the constructor are drawn, too."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.dtype.is_floating_point and bool((tensor == tensor.flatten()[0]).all()):
            noise = 0.1 * torch.randn(tensor.shape, generator=generator)
            positive = name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight"))
            tensor.copy_(1 + noise.abs() if positive else noise)
    return model.state_dict()


def pictures(side: int, n: int = 1) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    "own",
    [
        {"pre_norm": True, "quick_gelu": True, "embedding": 10, "eps": 1e-5},  # CLIP
        {"normalized_maps": True, "eps": 1e-6},  # DINO
        {"layer_scale": True, "eps": 1e-6},  # DINOv2
    ],
    ids=["clip", "dino", "dinov2"],
)
@torch.no_grad()
def test_the_vision_transformer_is_timms(own: dict) -> None:
    timm = pytest.importorskip("timm.models.vision_transformer")
    layers = pytest.importorskip("timm.layers")
    other = timm.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=3,
        num_classes=own.get("embedding", 0),
        pre_norm=own.get("pre_norm", False),
        act_layer=layers.QuickGELU if own.get("quick_gelu") else nn.GELU,
        init_values=1e-5 if own.get("layer_scale") else None,
        norm_layer=partial(nn.LayerNorm, eps=own["eps"]),
    ).eval()
    network = VisionTransformer(
        "v", patch=8, width=24, depth=3, heads=3, resolution=32, taps=("block2", "block3"), **own, **UNIT
    )
    network.load(random_state(other))
    network.freeze()
    img = pictures(32, 2)
    maps = other.forward_intermediates(img, intermediates_only=True, norm=own.get("normalized_maps", False))
    for tap, expected in zip(network(img), maps[1:], strict=False):
        torch.testing.assert_close(tap, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.final(img), other(img), rtol=1e-4, atol=1e-5)


def test_a_table_of_positions_is_resampled() -> None:
    small, large = (
        VisionTransformer("v", patch=8, width=4, depth=1, heads=1, eps=1e-6, resolution=side, taps=("cls",), **UNIT)
        for side in (16, 32)
    )
    state = small.state_dict()
    state["pos_embed"] = torch.arange(1.0, 3).repeat_interleave(torch.tensor([1, 4]))[None, :, None].expand(1, 5, 4)
    large.load(state)
    assert large.pos_embed.shape == (1, 17, 4)
    assert (large.pos_embed[0, 0] == 1).all() and torch.allclose(large.pos_embed[0, 1:], torch.tensor(2.0))
    with pytest.raises(ConfigError, match="resolution: got 20, expected a multiple of v's patch of 8 pixels"):
        VisionTransformer("v", patch=8, width=4, depth=1, heads=1, eps=1e-6, resolution=20, taps=("cls",), **UNIT)


def test_folded_batch_norms_compute_the_same() -> None:
    models = pytest.importorskip("torchvision.models")
    model = models.resnet18().eval()
    random_state(model)
    img = pictures(64)
    with torch.no_grad():
        expected = model(img)
        fold_batch_norms(model)
        torch.testing.assert_close(model(img), expected, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def as_clip(timm) -> tuple[dict, nn.Module]:
    model = timm.create_model("vit_base_patch32_clip_quickgelu_224", num_classes=512).eval()
    return random_state(model), model


def as_dino(timm) -> tuple[dict, nn.Module]:
    model = timm.create_model("vit_base_patch16_224.dino", num_classes=0).eval()
    return random_state(model), model


def as_swin(timm, side: int, prefix: str, entry: str, norm: str) -> tuple[dict, nn.Module]:
    """timm's tensors by the names of the original repository, which merges patches at the end of a stage."""
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, img_size=side).eval()
    state = {}
    for name, tensor in random_state(model).items():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        elif parts[0] == "norm":
            parts[0] = norm
        state[prefix + ".".join(parts)] = tensor
    others = {f"{prefix}norm1.weight": torch.ones(192), "decode_head.weight": torch.ones(1)}
    indices = {f"{prefix}layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long)}
    return {entry: state | (others if norm == "norm3" else {}) | indices}, model


def swin_oracle(model: nn.Module, x: Tensor) -> Tensor:
    return model.forward_features(x).permute(0, 3, 1, 2)


class Blur(nn.Module):
    """[1, 3, 3, 1] along both axes on reflected borders, every second pixel."""

    def forward(self, x: Tensor) -> Tensor:
        row = torch.tensor([1.0, 3, 3, 1]) / 8
        x = F.pad(x, (1, 2, 1, 2), mode="reflect").unfold(2, 4, 2).unfold(3, 4, 2)
        return torch.einsum("nchwyx,y,x->nchw", x, row, row)


def as_vgg() -> tuple[dict, nn.Module]:
    layers = []
    for layer in pytest.importorskip("torchvision.models").vgg16().features:
        layers += [nn.MaxPool2d(2, 1), Blur()] if isinstance(layer, nn.MaxPool2d) else [layer]
    model = nn.Sequential(*layers).eval()
    state = {f"features.{name}": tensor for name, tensor in random_state(model).items()}
    return {
        "state_dict": state | {"features.5.filt": torch.ones(64, 1, 4, 4), "classifier.0.bias": torch.ones(1)}
    }, model


def as_face_normals() -> tuple[dict, nn.Module]:
    model = pytest.importorskip("torchvision.models").resnet18().eval()
    names = {"conv1": "layer0.0", "bn1": "layer0.1", "layer1": "layer1.1"}
    state = {"layer0_1x1.0.weight": torch.ones(1), "layer2_2.0.conv1.weight": torch.ones(1)}
    for name, tensor in random_state(model).items():
        first, _, rest = name.partition(".")
        if first != "fc":
            state[f"{names.get(first, first)}.{rest}"] = tensor
    return state, nn.Sequential(*list(model.children())[:-2])


def as_face_seg() -> tuple[dict, nn.Module]:
    model = load_spec("pygan.features", {"kind": "face_seg"})._architecture().eval()
    state = random_state(model) | {"up_concat4.up.weight": torch.ones(1), "final.bias": torch.ones(19)}
    pooled = [
        model.conv1,
        *(nn.Sequential(nn.MaxPool2d(2), stage) for stage in (model.conv2, model.conv3, model.conv4)),
    ]
    return state, nn.Sequential(*pooled, nn.MaxPool2d(2), model.center, nn.AvgPool2d(2))


def as_clip_rn50(timm) -> tuple[dict, nn.Module]:
    model = timm.create_model("resnet50_clip_gap.openai", pretrained=False).eval()
    return random_state(model), model


def as_facenet() -> tuple[dict, nn.Module]:
    package = pytest.importorskip("facenet_pytorch")
    model = package.InceptionResnetV1(pretrained=None, classify=True, num_classes=8631).eval()
    return random_state(model), model


def as_resnet() -> tuple[dict, nn.Module]:
    model = pytest.importorskip("torchvision.models").resnet50().eval()
    return random_state(model), model


PUBLISHED = {
    "clip_vit": ({}, as_clip, [(768, 7, 7), (768, 7, 7), (512,)], lambda m, x: m(x)),
    "dino_vit": ({}, as_dino, [(768, 14, 14), (768, 14, 14), (768,)], lambda m, x: m(x)),
    "vgg16": ({}, as_vgg, [(512, 7, 7)], lambda m, x: m(x)),
    "swin moby": ({}, lambda timm: as_swin(timm, 224, "encoder.", "model", "norm"), [(768, 7, 7)], swin_oracle),
    "swin ade20k": (
        {"training": "ade20k"},
        lambda timm: as_swin(timm, 256, "backbone.", "state_dict", "norm3"),
        [(768, 8, 8)],
        swin_oracle,
    ),
    "face_seg": ({}, as_face_seg, [(256, 8, 8)], lambda m, x: m(x)),
    "face_normals": ({}, as_face_normals, [(512, 8, 8)], lambda m, x: m(x)),
    "resnet 50": ({"depth": 50}, as_resnet, [(512, 28, 28), (1024, 14, 14), (2048, 7, 7)], lambda m, x: m(x)),
    "clip_rn50": ({}, as_clip_rn50, [(2048, 7, 7)], lambda m, x: m(x)),
    "facenet": ({}, as_facenet, [(256, 17, 17), (896, 8, 8), (1792, 3, 3)], lambda m, x: m(x)),
}
"""Options, the public file, shapes of the taps, and what other code computes of prepared pictures."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_reads_its_file_and_computes_what_other_code_does(name: str, monkeypatch) -> None:
    options, make, shapes, oracle = PUBLISHED[name]
    needs_timm = make not in (as_vgg, as_face_normals, as_face_seg, as_facenet, as_resnet)
    state, model = make(pytest.importorskip("timm")) if needs_timm else make()
    spec = load_spec("pygan.features", {"kind": name.split()[0], **options})
    read = []

    def fake_read(file: str) -> tuple[dict, str]:
        read.append(file)
        return state, "0" * 64

    monkeypatch.setattr(weights, "read", fake_read)
    network = spec.build(CTX)
    assert read == [spec.weight_file] and network.sha256 == "0" * 64
    assert list(network.shapes) == shapes
    x = torch.randn(1, 3, network.resolution, network.resolution, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = oracle(model, x)
        *_, (_, final) = network._walk(x)
        found = network.at(x, network.taps)[-1] if expected.dim() == 4 else final
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    stays_frozen(network)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("resnet", {"resolution": 32}), ("timm", {"model": "resnet10t", "resolution": 32}), ("pixels", {})],
)
def test_other_kinds_stay_frozen_too(kind: str, options: dict) -> None:
    pytest.importorskip("torchvision" if kind == "resnet" else "timm" if kind == "timm" else "torch")
    control = {} if kind == "pixels" else {"random_init": True}
    stays_frozen(load_spec("pygan.features", {"kind": kind, **options, **control}).build(CTX))


def stays_frozen(network: FrozenNetwork) -> None:
    """Nothing to train or save, gradients pass, and a step of training around it leaves every buffer as it was."""
    outer = nn.Sequential(network).train().requires_grad_(True)
    assert not list(outer.parameters()) and not outer.state_dict()
    assert not any(module.training for module in network.modules())
    before = [buffer.clone() for buffer in network.buffers()]
    img = pictures(32).requires_grad_()
    sum(tap.square().mean() for tap in network(img)).backward()
    assert img.grad.isfinite().all() and img.grad.abs().sum() > 0
    network(pictures(32))
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, network.buffers(), strict=True))


def test_area_resize_repeats_pixels_where_it_enlarges() -> None:
    network = load_spec("pygan.features", {"kind": "pixels", "resolution": 28}).build(CTX)
    img = pictures(4)
    torch.testing.assert_close(network(img)[0], img.repeat_interleave(7, 2).repeat_interleave(7, 3))


def test_pooled_pixels_are_averages() -> None:
    network = load_spec("pygan.features", {"kind": "pixels", "resolution": 2}).build(CTX)
    img = pictures(8)
    torch.testing.assert_close(network.pooled(img), F.avg_pool2d(img, 4).flatten(1), rtol=1e-5, atol=1e-6)


def test_timms_maps_are_cut_after_the_last_tap() -> None:
    pytest.importorskip("timm")
    options = {"kind": "timm", "model": "resnet10t", "random_init": True, "resolution": 64}
    network = load_spec("pygan.features", options | {"taps": ["stage3", "stage1"]}).build(CTX)
    ran = []
    network.model.layer4.register_forward_hook(lambda *args: ran.append(1))
    maps = network(pictures(64))
    assert not ran and [tuple(x.shape[1:]) for x in maps] == list(network.shapes)
    whole = dict(network._walk(network._prepare(pictures(64))))
    assert ran and torch.equal(maps[0], whole["stage3"]) and torch.equal(maps[1], whole["stage1"])
    assert whole["pooled"].shape == (1, 512) and whole["logits"].shape == (1, 1000)


def test_bad_entries_are_refused_in_a_sentence() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="taps: pixels has no 'edges', expected some of pixels, pooled"):
        load_spec("pygan.features", {"kind": "pixels", "taps": ["edges"]}).build(CTX)
    with pytest.raises(ConfigError, match=r"timm.model: got 'resnet0', which is no model of timm"):
        load_spec("pygan.features", {"kind": "timm", "model": "resnet0", "random_init": True}).build(CTX)
    with pytest.raises(ConfigError, match="resolution: 8 pixels are too few for resnet10t"):
        network = load_spec("pygan.features", {"kind": "timm", "model": "resnet10t", "resolution": 8})._architecture()
        network.model.layer4.add_module("unpadded", nn.Conv2d(512, 512, 3))  # a layer that needs more than one pixel
        network.freeze()


def test_missing_weights_name_file_and_command(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    fetched = [
        kind for kind in features.KINDS if hasattr(importlib.import_module(f"pygan.features.{kind}").Spec, "kind")
    ]
    for kind in fetched:
        values = {"kind": kind} | ({"model": "resnet10t"} if kind == "timm" else {})
        spec = load_spec("pygan.features", values)
        if spec.weight_file is not None:
            with pytest.raises(MissingInput, match=rf"{spec.weight_file} is not there: run `pygan weights fetch"):
                weights.find(spec.weight_file)
