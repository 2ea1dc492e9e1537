"""DINO ViT-B/16: what a network finds in pictures without any label.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, arXiv 2104.14294. Weights
(Apache-2.0) are fetched by the user. Taps of the vision-aided GAN: patch tokens after blocks 5 and 9 and the class
token after block 12, all through the final layer norm.
"""

from typing import Literal

from pydantic import Field

from pygan import weights
from pygan.features.frozen import CLIP_MEAN, IMAGENET_MEAN, IMAGENET_STD, FrozenSpec, on_bytes
from pygan.features.vision_transformer import VisionTransformer
from pygan.spec import spec

FILE = "dino_vitbase16_pretrain.pth"


class DinoVit(VisionTransformer):
    """DINO's teacher without its projection head."""

    usual_taps = ("block5", "block9", "cls")


@spec
class Spec(FrozenSpec):
    """DINO ViT-B/16."""

    kind: Literal["dino_vit"] = "dino_vit"
    resolution: int = Field(default=224, ge=32, le=512, multiple_of=16)
    """Side that the network sees, pixels (224 in its training); a multiple of 16."""
    mean: Literal["imagenet", "clip"] = "imagenet"
    """imagenet: as in the network's training; clip: as in the official code of vision-aided GANs, for parity."""

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> DinoVit:
        return DinoVit(
            self.name,
            patch=16,
            width=768,
            depth=12,
            heads=12,
            eps=1e-6,
            normalized_maps=True,
            resolution=self.resolution,
            mean=on_bytes(CLIP_MEAN if self.mean == "clip" else IMAGENET_MEAN),
            std=on_bytes(IMAGENET_STD),
            taps=self.taps,
            resize="area",
        )

    def _load(self, network: DinoVit) -> str:
        state, digest = weights.read(self.weight_file)
        network.load(state)
        return digest
