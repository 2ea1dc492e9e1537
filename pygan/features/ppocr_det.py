"""The text detector of PP-OCRv4 (mobile): where in the picture is writing?

Baidu's PaddleOCR, 2023: a PP-LCNetV3 trunk, a pyramid of four maps and a map of text probabilities, as differentiable
binarization (Liao et al., AAAI 2020, arXiv 1911.08947) trains it. Weights: package rapidocr-onnxruntime 1.4.4
(Apache-2.0), an ONNX graph, whose operations are run here one by one, so that it takes any size and has gradients.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pygan import assets
from pygan.features.frozen import IMAGENET_MEAN, IMAGENET_STD, FrozenNetwork, FrozenSpec, on_bytes
from pygan.optional import optional_module
from pygan.spec import spec

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

FILE = "ch_PP-OCRv4_det_infer.onnx"

_TAPS = {
    "p2o.Add.259": "pyramid32",
    "p2o.Add.265": "pyramid16",
    "p2o.Add.271": "pyramid8",
    "p2o.Add.277": "pyramid4",
    "batch_norm_0.tmp_4": "fused",
    "sigmoid_0.tmp_0": "text",
}
"""Tensors of the graph that have a name here; the numbers are strides."""


class PpocrDet(FrozenNetwork):
    """Taps `pyramid32` to `pyramid4` (24 channels each), `fused` (24, stride 4) and `text`, a probability per pixel."""

    usual_taps = ("pyramid32", "pyramid16", "pyramid8")
    pooled_tap = "fused"
    foldable = False

    def __init__(self, name: str, graph: "GraphProto", resolution: int, taps: tuple[str, ...] | None) -> None:
        mean, std = on_bytes(IMAGENET_MEAN), on_bytes(IMAGENET_STD)
        super().__init__(name, resolution=resolution, mean=mean, std=std, taps=taps)
        constants = _constants(graph)
        self.layers = nn.ModuleList()
        self.plan: list[tuple[list[str], str]] = []
        """Names of the inputs and the output of each layer."""
        for node in graph.node:
            if node.op_type != "Constant":
                layer, inputs = _layer(node, constants)
                self.layers.append(layer)
                self.plan.append((inputs, node.output[0]))

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        values = {"x": x}
        for layer, (inputs, output) in zip(self.layers, self.plan, strict=True):
            values[output] = layer(*(values[name] for name in inputs))
            if output in _TAPS:
                yield _TAPS[output], values[output]


class _Function(nn.Module):
    """An operation without weights."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class _WithConstant(nn.Module):
    """An operation of a map and a constant of the graph, in either order."""

    def __init__(self, function: Callable[..., Tensor], constant: Tensor, first: bool) -> None:
        super().__init__()
        self.function = function
        self.first = first
        self.constant = nn.Parameter(constant)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.constant, x) if self.first else self.function(x, self.constant)


_PLAIN: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "Mul": torch.mul,
    "Div": torch.div,
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
}


def _constants(graph: "GraphProto") -> dict[str, Tensor]:
    """Return the tensors of the graph's constant nodes, by name."""
    from onnx.numpy_helper import to_array

    nodes = [node for node in graph.node if node.op_type == "Constant"]
    return {node.output[0]: torch.tensor(to_array(node.attribute[0].t)) for node in nodes}


def _layer(node: "NodeProto", constants: dict[str, Tensor]) -> tuple[nn.Module, list[str]]:
    """Return a module that does what a node does, and the names of its inputs that are no constants."""
    from onnx.helper import get_attribute_value

    options = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    inputs = [name for name in node.input if name not in constants]
    values = [constants[name] for name in node.input if name in constants]
    match node.op_type:
        case "Conv" | "ConvTranspose":
            return _convolution(node.op_type, options, *values), inputs
        case "BatchNormalization":
            norm = nn.BatchNorm2d(len(values[0]), options["epsilon"])
            names = ("weight", "bias", "running_mean", "running_var")
            norm.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
            return norm, inputs
        case "Clip":
            low, high = map(float, values)
            return _Function(lambda x: x.clamp(low, high)), inputs
        case "HardSigmoid":
            return _Function(lambda x: (options["alpha"] * x + options["beta"]).clamp(0, 1)), inputs
        case "Resize":
            height, width = map(int, values[-1][-2:])
            return _Function(lambda x: F.interpolate(x, scale_factor=(height, width), mode="nearest")), inputs
        case "Concat":
            return _Function(lambda *maps: torch.cat(maps, options["axis"])), inputs
    function = _PLAIN[node.op_type]
    if values:
        return _WithConstant(function, values[0].float(), first=node.input[0] in constants), inputs
    return _Function(function), inputs


def _convolution(kind: str, options: dict[str, Any], weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    groups = options["group"]
    c_out, c_in = (
        (weight.shape[1] * groups, weight.shape[0])
        if kind == "ConvTranspose"
        else (
            weight.shape[0],
            weight.shape[1] * groups,
        )
    )
    layer = (nn.ConvTranspose2d if kind == "ConvTranspose" else nn.Conv2d)(
        c_in,
        c_out,
        tuple(options["kernel_shape"]),
        tuple(options["strides"]),
        tuple(options["pads"][:2]),
        groups=groups,
        bias=bias is not None,
    )
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer


@spec
class Spec(FrozenSpec):
    """The text detector; with random weights the graph's scalars between convolutions stay."""

    kind: Literal["ppocr_det"] = "ppocr_det"
    resolution: int = Field(default=96, ge=64, le=960, multiple_of=32)
    """Side that the network sees, pixels (up to 960 in its use); a multiple of 32."""

    def _architecture(self) -> PpocrDet:
        onnx = optional_module("onnx", "the network ppocr_det")
        return PpocrDet(self.name, onnx.load(assets.find(FILE)).graph, self.resolution, self.taps)

    def _load(self, network: PpocrDet) -> str:
        return assets.sha256_of(FILE)  # the graph carries its weights
