"""Vision-aided discriminator: Kumari, Zhang, Shechtman and Zhu, CVPR 2022 (arXiv 2112.09130), eq. 2.

Frozen pretrained networks with small trainable heads play beside the base discriminator: min over G and max over D and
heads C_n of V(D, G) + sum_n V(C_n o F_n, G). Every network is a player of its own, with its own augmented copy of the
pictures. Which networks join is decided by a linear probe (`pygan.features.probe`), or by name.

The published heads are `heads: equalized` (official StyleGAN2 branch: `objective: bce`) and `heads: spectral` (its pip
package; BigGAN branch: `objective: hinge`). Their losses sum over the levels of a network, so CLIP and DINO with three
levels weigh three times a network with one. `heads: own` has a head per tap and averages them, so a network weighs as
much as D whatever its number of taps.

Differs from the official code in: during the warm-up heads do not run at all and their optimizer takes no step (there
they run with their loss times 0); an adaptive augmentation of a head does not count the real pictures of R1, which
heads do not see here (there they do, which is 1 batch of 17).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pygan import augment as augmentations
from pygan import features
from pygan.augment.diffaug import cutout
from pygan.context import Context, Objective
from pygan.discriminators.heads import Activation, Head, Init, OwnHead, published_head
from pygan.discriminators.plain import Augment, Player
from pygan.draws import Draws
from pygan.errors import ConfigError
from pygan.features.frozen import FrozenNetwork
from pygan.losses import OBJECTIVES, binary_cross_entropy, summed_over_levels
from pygan.spec import OneOf, spec


@spec
class Spec:
    kind: Literal["vision_aided"] = "vision_aided"
    count: int = Field(default=1, ge=1)
    """How many networks join: those that the run it continues has, then the first of the probe's ranking."""
    networks: tuple[Annotated[Any, OneOf("pygan.features", features.KINDS)], ...] = ()
    """Networks that join, without a probe; empty: `count` networks of the study's `bank`, as the probe chooses."""
    pick: Literal["best", "worst"] = "best"
    """Which end of the probe's ranking joins; worst: control."""
    random_init: bool = False
    """Control: the probe's choice with random weights drawn by the run's seed."""
    heads: Literal["own", "equalized", "spectral"] = "own"
    """own: per tap, averaged; equalized: published, StyleGAN2 branch; spectral: published, pip package."""
    width: int | None = Field(default=None, ge=1)
    """Channels inside a head; null: 64 in own heads, in the published ones 256, or 128 at taps of more than 7x7."""
    activation: Activation = "lrelu"
    """Of spectral heads: lrelu (pip package) or relu (BigGAN branch)."""
    init: Init = "layers"
    """Of spectral heads: as PyTorch draws them (pip package), or weights normal with deviation 0.02 (BigGAN branch)."""
    class_projection: bool = False
    """Spectral heads of conditional runs score how well the class fits, too (pip package, Miyato and Koyama 2018)."""
    objective: Literal["run", "bce", "hinge"] = "run"
    """What the heads play for: the run's `loss`, cross-entropy (published with StyleGAN2) or hinge (with BigGAN)."""
    real_target: float = Field(default=0.8, gt=0, le=1)
    """Target of real pictures, and of G, where the labels of `bce` are smoothed."""
    smoothing: Literal["auto", "always", "never"] = "auto"
    """Whether they are; auto, as published: where the probe's accuracy is above 0.9. The other target stays 0."""
    augment: Annotated[Any, OneOf("pygan.augment", augmentations.KINDS)] | None = None
    """What each network sees its pictures through; null: a copy of the run's. Published: ada with target 0.3."""
    cutout: bool = False
    """Cut half of each side out of every picture after the augmentation; published with ada."""
    warmup_nimg: int = Field(default=0, ge=0)
    """Real pictures before the heads join the game; published: 500000, or a run of its own that this one continues."""

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if self.networks and (self.count not in (1, len(self.networks)) or self.pick != "best" or self.random_init):
            raise ValueError("networks: they are named, so `count`, `pick` and `random_init` have nothing to choose")
        if self.heads != "spectral" and (self.activation != "lrelu" or self.init != "layers" or self.class_projection):
            raise ValueError("heads: `activation`, `init` and `class_projection` need heads: spectral")
        return self

    def players(self, ctx: Context, network: nn.Module, new_augment: Callable[[], Augment | None]) -> "list[Player]":
        """Return one player per network: those named here, or the first `count` of `ctx.frozen`.

        Args:
            new_augment: makes a copy of the run's augmentation.

        Raises:
            ConfigError: fewer were chosen.
        """
        frozen = tuple(entry.build(ctx) for entry in self.networks) or ctx.frozen[: self.count]
        if len(frozen) < self.count:
            raise ConfigError(f"discriminators.vision_aided.count: got {self.count}, but {len(frozen)} were chosen")
        return [self.build(replace(ctx, frozen=(one,)), network, new_augment()) for one in frozen]

    def build(self, ctx: Context, network: nn.Module, augment: Augment | None) -> "VisionAided":
        """Return the player of the first network in `ctx.frozen`."""
        (frozen,) = ctx.frozen[:1]
        return VisionAided(
            frozen.to(ctx.device),
            self._head(ctx, frozen),
            objective=self._objective(frozen),
            augment=augment if self.augment is None else self.augment.build(ctx),
            cutout=self.cutout,
            warmup_nimg=self.warmup_nimg,
        )

    def _head(self, ctx: Context, frozen: FrozenNetwork) -> Head:
        if self.heads == "own":
            return OwnHead(frozen.shapes, self.width or 64)
        if self.class_projection and not ctx.num_classes:
            raise ConfigError("discriminators.vision_aided.class_projection: the run has no classes")
        classes = ctx.num_classes if self.class_projection else 0
        return published_head(
            frozen.shapes,
            layers=self.heads,
            width=self.width,
            activation=self.activation,
            init=self.init,
            num_classes=classes,
        )

    def _objective(self, frozen: FrozenNetwork) -> Objective | None:
        if self.objective == "bce":
            return binary_cross_entropy(self.real_target if self._smooth(frozen) else 1.0)
        return OBJECTIVES[self.objective] if self.objective != "run" else None

    def _smooth(self, frozen: FrozenNetwork) -> bool:
        if self.smoothing != "auto":
            return self.smoothing == "always"
        if frozen.separable is None:
            raise ConfigError(
                f"discriminators.vision_aided.smoothing: no probe has looked at {frozen.name}, so it is `always` or "
                "`never` instead of `auto`"
            )
        return frozen.separable


class VisionAided(Player):
    """A head on the taps of a frozen network; `heads` is the network's name.

    The frozen network is deliberately not registered as a submodule: it appears in no state dict, no optimizer and no
    `train()` call. It and its head compute in float32 whatever the run's precision, as published.

    Args:
        objective: of each level of the head; None: the run's.
        augment: None shows it the pictures as they are.
        cutout: cut a square out of every picture after that.
        warmup_nimg: real pictures before it joins the game.
    """

    def __init__(
        self,
        frozen: FrozenNetwork,
        head: Head,
        *,
        objective: Objective | None = None,
        augment: Augment | None = None,
        cutout: bool = False,
        warmup_nimg: int = 0,
    ) -> None:
        super().__init__(augment)
        self._frozen = (frozen,)
        self.compares = head.compares
        self.head = head
        self.heads = (frozen.name,)
        self.warmup_nimg = warmup_nimg
        self.cutout = cutout
        self._objective = objective

    def objectives(self, default: Objective) -> list[Objective]:
        """Return the one objective: summed over the levels, each the mean over its logits."""
        return [summed_over_levels(self._objective or default, self.head.sizes)]

    def augmented(self, img: Tensor, draws: Draws | None) -> Tensor:
        """Return the pictures that the network sees; `draws` None: those given."""
        img = super().augmented(img, draws)
        return cutout(img, draws) if self.cutout and draws is not None else img

    def observe(self, real_logits: Sequence[Tensor]) -> None:
        """Show an adaptive augmentation the last level of the logits of augmented real pictures."""
        super().observe([logits[-self.head.sizes[-1] :] for logits in real_logits])

    def forward(self, img: Tensor, c: Tensor | None, draws: Draws | None, *, paired: bool = False) -> list[Tensor]:
        """Return the head's logits, `[[T, N]]`.

        Args:
            img: `[N, C, H, W]`.
            c: labels `[N]` or None.
            draws: of the augmentation; None: no augmentation.
            paired: of no effect: published heads compare no pictures, own heads compare all of a batch.
        """
        img = self.augmented(img, draws)
        with torch.autocast(img.device.type, enabled=False):
            with torch.set_grad_enabled(torch.is_grad_enabled() and img.requires_grad):
                taps = self._frozen[0](img)
            return [self.head(taps, c)]
