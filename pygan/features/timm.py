"""Any network of the timm library by its name, with the library's own weights (Wightman, 2019).

The library is an optional dependency. Weights are the safetensors file of the model's page on the Hugging Face hub,
fetched by the user; their license is on that page.
"""

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

from pygan import weights
from pygan.errors import ConfigError, DataError
from pygan.features.frozen import FrozenNetwork, FrozenSpec, on_bytes
from pygan.optional import optional_module
from pygan.spec import spec


def create(model: str) -> nn.Module:
    """Return a model of the library with random weights.

    Raises:
        ConfigError: the library has no such model.
        MissingInput: it is not installed.
    """
    try:
        return optional_module("timm", "the network timm").create_model(model, pretrained=False)
    except RuntimeError as error:  # what the library says of an unknown name
        raise ConfigError(f"timm.model: got {model!r}, which is no model of timm ({error})") from error


class Timm(FrozenNetwork):
    """Taps `stage0`, `stage1`, ... (the library's intermediate maps), `pooled`, and `logits` where it classifies.

    The usual tap is the last map. Batch norms are not folded: the library has no order of layers to rely on.
    """

    foldable = False

    def __init__(self, name: str, model: nn.Module, resolution: int | None, taps: tuple[str, ...] | None) -> None:
        settings: dict[str, Any] = model.pretrained_cfg
        self.stages = tuple(f"stage{i}" for i in range(len(model.feature_info)))
        self.usual_taps = self.stages[-1:]
        super().__init__(
            name,
            resolution=resolution or settings["input_size"][-1],
            mean=on_bytes(settings["mean"]),
            std=on_bytes(settings["std"]),
            taps=taps,
        )
        self.model = model

    def at(self, x: Tensor, names: tuple[str, ...]) -> list[Tensor]:
        """Return taps of prepared pictures; see `FrozenNetwork.at`."""
        if not set(names) <= set(self.stages):
            return super().at(x, names)
        indices = sorted(self.stages.index(name) for name in names)
        maps = self.model.forward_intermediates(
            x, indices=indices, output_fmt="NCHW", intermediates_only=True, stop_early=True
        )
        return [maps[indices.index(self.stages.index(name))] for name in names]

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        last, maps = self.model.forward_intermediates(x, output_fmt="NCHW")
        yield from zip(self.stages, maps, strict=True)
        yield "pooled", self.model.forward_head(last, pre_logits=True)
        if self.model.num_classes:
            yield "logits", self.model.forward_head(last)


def load_model(network: Timm, file: str) -> str:
    """Give a network the weights of a file; return its sha256.

    Raises:
        MissingInput: the file is not there.
        DataError: it belongs to another network.
    """
    state, digest = weights.read(file)
    try:
        network.model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{file}: does not fit {network.name} ({str(error).splitlines()[0]})") from error
    return digest


@spec
class Spec(FrozenSpec):
    """A network of the timm library."""

    kind: Literal["timm"] = "timm"
    model: str
    """The library's name of architecture and training, for example resnet18.a1_in1k."""
    resolution: int | None = None
    """Side that the network sees, pixels; null: as in its training."""

    def _base_name(self) -> str:
        return self.model

    def _weight_file(self) -> str:
        return f"timm/{self.model}.safetensors"

    def _architecture(self) -> Timm:
        return Timm(self.name, create(self.model), self.resolution, self.taps)

    def _load(self, network: Timm) -> str:
        return load_model(network, self.weight_file)
