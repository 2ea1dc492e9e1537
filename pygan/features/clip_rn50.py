"""CLIP's ResNet-50 with global average pooling in place of its attention pool: Reg-DGM's network on faces.

Radford et al., ICML 2021, arXiv 2103.00020; the pooling as in the official code of Reg-DGM (Zhong et al., ICLR 2023,
arXiv 2208.14133): 2048 channels at any resolution. The architecture is timm's (optional dependency) and so is the
layout of the weights (OpenAI's, MIT), which the user fetches. Differs from the official code in: float32, where
CLIP itself loads as float16 on a GPU.
"""

from typing import Literal

from pydantic import Field

from pygan.features.frozen import FrozenSpec
from pygan.features.timm import Timm, create, load_model
from pygan.spec import spec

MODEL = "resnet50_clip_gap.openai"


@spec
class Spec(FrozenSpec):
    """CLIP RN50 without its attention pool; the final output is the vector of 2048 means."""

    kind: Literal["clip_rn50"] = "clip_rn50"
    resolution: int = Field(default=224, ge=64, le=512)
    """Side that the network sees, pixels (224 in its training)."""

    def _weight_file(self) -> str:
        return f"timm/{MODEL}.safetensors"

    def _architecture(self) -> Timm:
        return Timm(self.name, create(MODEL), self.resolution, self.taps)

    def _load(self, network: Timm) -> str:
        return load_model(network, self.weight_file)
