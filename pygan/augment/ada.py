"""ADA: Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020 (arXiv 2006.06676).

A pipeline of 18 transforms (section 2 and appendix B), each applied to each picture on its own with probability p, and
a controller that moves p until the discriminator's logits of real pictures say that it overfits as much as `target`
(section 3). Real and generated pictures pass through it in both phases, and gradients of any order pass through it too.
Order, strengths and rounding are those of the authors' code; the 18 count the image-space filter once for each of its
four bands. At p = 0 pictures are returned as they are, where the authors' code resamples them onto themselves.

One picture's result depends on the rest of its batch in one way only: all pictures get the reflected margin that the
widest transform needs. A wider margin changes nothing but rounding, unless a picture shrinks below about two thirds:
its outermost pixels then read a little past the margin of its own, where zeros are (less than 0.01 of difference).
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pygan.augment.ada_transforms import (
    BLIT,
    COLOR,
    FAMILIES,
    GEOM,
    SYM6,
    amplify,
    check_pictures,
    cutout,
    draw_colors,
    draw_gains,
    draw_geometry,
    filter_bank,
    noise,
    recolor,
    warp,
)
from pygan.context import Context
from pygan.draws import Draws
from pygan.ops import setup_filter
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["ada"] = "ada"
    family: Literal[tuple(FAMILIES)] = "bgc"
    """Transforms: blit, geom, color, filter, noise, cutout, or several by their initials; the paper trains with bgc."""
    p: float = Field(default=0.0, ge=0, le=1)
    """Probability of each transform, at the start if there is a target."""
    target: float | None = Field(default=0.6, ge=-1, le=1)
    """Mean sign of the real logits that p is adjusted to; null: p stays. The paper's heuristic r_t."""
    interval: int = Field(default=4, ge=1)
    """Training steps between two adjustments of p."""
    speed_kimg: float = Field(default=500.0, gt=0)
    """Thousands of real pictures in which p can move by 1."""

    def build(self, ctx: Context) -> "ADA":
        """Raise ValueError where the family cannot work on the pictures of `ctx`."""
        return ADA(
            dict.fromkeys(check_family(self.family, ctx), 1.0),
            p=self.p,
            target=self.target,
            interval=self.interval,
            speed_kimg=self.speed_kimg,
        )


class ADA(nn.Module):
    """Callable augmentation whose strength follows the discriminator; one object serves one discriminator.

    The buffers `p`, `sign_sum` and `sign_count` are its whole state and travel with the discriminator's.

    Args:
        multipliers: transform to the factor of p that is its probability; those missing or 0 draw nothing and cost
            nothing.
        p: probability, at the start if there is a target.
        target: mean sign of the real logits that p is adjusted to; None: p stays.
        interval: steps between two adjustments.
        speed_kimg: thousands of pictures in which p can move by 1.
        bands: factors of the probability of the image-space filter's four frequency bands, lowest first.

    Raises:
        ValueError: an unknown transform.
    """

    def __init__(
        self,
        multipliers: Mapping[str, float],
        *,
        p: float = 0.0,
        target: float | None = 0.6,
        interval: int = 4,
        speed_kimg: float = 500.0,
        bands: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if unknown := multipliers.keys() - set(FAMILIES["bgcfnc"]):
            raise ValueError(f"ADA: got {sorted(unknown)}, expected transforms out of {', '.join(FAMILIES['bgcfnc'])}")
        self.multipliers = {name: factor for name, factor in multipliers.items() if factor > 0}
        self.target = target
        self.interval = interval
        self.speed_nimg = speed_kimg * 1000
        self.bands = bands
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("sign_sum", torch.tensor(0.0))
        self.register_buffer("sign_count", torch.tensor(0.0))
        self.register_buffer("taps", setup_filter(SYM6), persistent=False)
        self.register_buffer("bank", filter_bank(), persistent=False)

    def forward(self, img: Tensor, draws: Draws) -> Tensor:
        """Return augmented pictures.

        Args:
            img: `[N, C, H, W]` in [-1, 1]; half precision is augmented in, and returned as, float32.
            draws: random numbers for those N samples, on the device of `img`.

        Raises:
            ValueError: color of other than 1 or 3 channels, or the image-space filter on 21 pixels or fewer a side.
        """
        check_pictures(self.multipliers, *img.shape[1:])
        img = img.to(torch.promote_types(img.dtype, torch.float32))
        p = float(self.p)
        if p == 0:
            return img
        img = img.contiguous()  # whole planes are resampled and filtered several times faster than interleaved colors
        chance = {name: factor * p for name, factor in self.multipliers.items()}
        with torch.autocast(img.device.type, enabled=False):
            if chance.keys() & (BLIT + GEOM):
                img = warp(img, draw_geometry(draws, chance, img), self.taps)
            if chance.keys() & COLOR:
                img = recolor(img, draw_colors(draws, chance, img))
            if "imgfilter" in chance:
                gains = draw_gains(draws, [chance["imgfilter"] * band for band in self.bands], img)
                img = amplify(img, (gains @ self.bank).to(img))
            if "noise" in chance:
                img = noise(img, draws, chance["noise"])
            if "cutout" in chance:
                img = cutout(img, draws, chance["cutout"])
        return img

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Count the signs of logits, any shape, that the discriminator gave augmented real pictures."""
        self.sign_sum += real_logits.sign().sum().to(self.sign_sum.dtype)
        self.sign_count += real_logits.numel()

    @torch.no_grad()
    def adapt(self, step: int, nimg: int) -> dict[str, Tensor]:
        """Move p after every `interval` steps: up where the mean sign since the last time exceeds the target.

        p never falls below 0; as published, nothing bounds it above.

        Args:
            step: number of the training step that ended, from 0.
            nimg: real pictures per step.

        Returns:
            What to record: {"p"}.
        """
        if (step + 1) % self.interval == 0:
            if self.target is not None:
                surplus = self.sign_sum.double() - self.target * self.sign_count  # 0 where nothing was observed
                self.p += surplus.sign() * (nimg * self.interval / self.speed_nimg)
                self.p.clamp_(min=0)
            self.sign_sum.zero_()
            self.sign_count.zero_()
        return {"p": self.p}


def check_family(family: str, ctx: Context) -> tuple[str, ...]:
    """Return the transforms of a family; raise ValueError where they cannot work on the pictures of `ctx`."""
    try:
        check_pictures(FAMILIES[family], ctx.channels, ctx.resolution, ctx.resolution)
    except ValueError as error:
        raise ValueError(f"augment.family: {family} does not fit the data: {error}") from error
    return FAMILIES[family]
