"""The image tower of CLIP ViT-B/32: what language says about a picture.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, arXiv 2103.00020.
Weights: OpenAI's (MIT) in the layout of timm's vit_base_patch32_clip_224.openai, fetched by the user. Taps of the
vision-aided GAN: patch tokens after blocks 4 and 8, and the 512-d embedding.
"""

from typing import Literal

from pydantic import Field

from pygan import weights
from pygan.features.frozen import CLIP_MEAN, CLIP_STD, FrozenSpec, on_bytes
from pygan.features.vision_transformer import VisionTransformer
from pygan.spec import spec

FILE = "vit_base_patch32_clip_224.openai.safetensors"


class ClipVit(VisionTransformer):
    """CLIP's image tower; its embedding is not normalized."""

    usual_taps = ("block4", "block8", "embedding")
    pooled_tap = "embedding"


@spec
class Spec(FrozenSpec):
    """CLIP ViT-B/32."""

    kind: Literal["clip_vit"] = "clip_vit"
    resolution: int = Field(default=224, ge=32, le=512, multiple_of=32)
    """Side that the network sees, pixels (224 in its training); a multiple of 32."""

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> ClipVit:
        return ClipVit(
            self.name,
            patch=32,
            width=768,
            depth=12,
            heads=12,
            eps=1e-5,
            pre_norm=True,
            quick_gelu=True,
            embedding=512,
            resolution=self.resolution,
            mean=on_bytes(CLIP_MEAN),
            std=on_bytes(CLIP_STD),
            taps=self.taps,
            resize="area",
        )

    def _load(self, network: ClipVit) -> str:
        state, digest = weights.read(self.weight_file)
        network.load(state)
        return digest
