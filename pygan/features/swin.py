"""Swin-T in three trainings: self-supervised (MoBY), segmentation of ADE20K, detection of COCO.

Liu et al., "Swin Transformer", ICCV 2021, arXiv 2103.14030; Xie et al., "Self-Supervised Learning with Swin
Transformers", arXiv 2105.04553 (MoBY). The architecture is timm's (optional dependency); weights (MIT) are fetched by
the user. The vision-aided GAN reads the last map after its layer norm.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from pygan import weights
from pygan.errors import DataError
from pygan.features.frozen import (
    CLIP_MEAN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    FrozenNetwork,
    FrozenSpec,
    on_bytes,
)
from pygan.optional import optional_module
from pygan.spec import spec

FILES = {
    "moby": ("moby_swin_t_300ep_pretrained.pth", "model", "encoder."),
    "ade20k": ("upernet_swin_tiny_patch4_window7_512x512.pth", "state_dict", "backbone."),
    "coco": ("cascade_mask_rcnn_swin_tiny_patch4_window7.pth", "state_dict", "backbone."),
}
"""Training to weight file, the entry in it, and the prefix of the trunk's names."""


class Swin(FrozenNetwork):
    """Taps `stage1` to `stage4` (224 pixels: 56, 28, 14, 7), `norm` (the last map normalized) and `pooled`, 768-d."""

    usual_taps = ("norm",)

    def __init__(
        self, name: str, model: nn.Module, resolution: int, mean: tuple[float, ...], taps: tuple[str, ...] | None
    ) -> None:
        std = on_bytes(IMAGENET_STD)
        super().__init__(name, resolution=resolution, mean=on_bytes(mean), std=std, taps=taps, resize="area")
        self.model = model

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = self.model.patch_embed(x)
        for i, layer in enumerate(self.model.layers, 1):
            x = layer(x)  # [N, h, w, C]
            yield f"stage{i}", x.permute(0, 3, 1, 2)
        x = self.model.norm(x).permute(0, 3, 1, 2)
        yield "norm", x
        yield "pooled", x.mean((2, 3))


@spec
class Spec(FrozenSpec):
    """Swin-T."""

    kind: Literal["swin"] = "swin"
    training: Literal[tuple(FILES)] = "moby"
    """moby: self-supervised, ImageNet; ade20k: UperNet's trunk; coco: Cascade Mask R-CNN's trunk."""
    resolution: int | None = Field(default=None, ge=64, le=512, multiple_of=32)
    """Side that the network sees, pixels, a multiple of 32; null: as published, 224 with moby and else 256."""
    mean: Literal["imagenet", "clip"] = "imagenet"
    """imagenet: as in the network's training; clip: with moby as in the official code of vision-aided GANs."""

    def _base_name(self) -> str:
        return f"swin_t_{self.training}"

    def _weight_file(self) -> str:
        return FILES[self.training][0]

    def _architecture(self) -> Swin:
        side = self.resolution or (224 if self.training == "moby" else 256)
        timm = optional_module("timm", "the network swin")
        model = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, num_classes=0, img_size=side)
        return Swin(self.name, model, side, CLIP_MEAN if self.mean == "clip" else IMAGENET_MEAN, self.taps)

    def _load(self, network: Swin) -> str:
        file, entry, prefix = FILES[self.training]
        values, digest = weights.read(self.weight_file)
        try:
            network.model.load_state_dict(_in_timm_layout(values[entry], prefix), strict=False)
        except (KeyError, RuntimeError) as error:
            raise DataError(f"{file}: is no Swin-T of the training {self.training} ({error})") from error
        return digest


def _in_timm_layout(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the trunk's tensors by timm's names: it merges patches at the start of the next stage, not at the end.

    The table of relative positions and its bias stay; the norms of other stages, which detectors read, are left out.

    Raises:
        KeyError: a tensor of the trunk is missing.
    """
    found = {}
    for name, tensor in state.items():
        parts = name.removeprefix(prefix).split(".") if name.startswith(prefix) else []
        if not parts or parts[-1] in ("relative_position_index", "attn_mask"):
            continue
        if parts[0] in ("norm", "norm3"):
            parts[0] = "norm"
        elif parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) + 1)
        elif parts[0] not in ("layers", "patch_embed"):
            continue
        found[".".join(parts)] = tensor
    for i in range(1, 4):
        found[f"layers.{i}.downsample.reduction.weight"]  # a Swin-T has three mergers
    return found
