"""The base network's own discriminator, trained from scratch, and what every player has: an augmentation of its own."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pygan.context import Adaptive, Context, Deceiving, Objective, Step
from pygan.draws import Draws
from pygan.spec import spec

Augment = Callable[[Tensor, Draws], Tensor]


@spec
class Spec:
    kind: Literal["plain"] = "plain"

    def build(self, ctx: Context, network: nn.Module, augment: Augment | None) -> "Plain":
        return Plain(network, augment)

    def players(self, ctx: Context, network: nn.Module, new_augment: Callable[[], Augment | None]) -> "list[Plain]":
        """Return what this entry adds to the game; `new_augment` makes an augmentation for each player."""
        return [self.build(ctx, network, new_augment())]


class Player(nn.Module):
    """What plays against G: a discriminator behind an augmentation, which may adapt itself to it.

    Args:
        augment: None shows it the pictures as they are. Where it is a module, its state is part of the player's.
    """

    heads: tuple[str, ...]
    warmup_nimg: int = 0
    """Real pictures before it joins the game."""
    compares: bool = False
    """Whether a picture's logit depends on all pictures that are shown together."""

    def __init__(self, augment: Augment | None) -> None:
        super().__init__()
        self.augment = augment

    def objectives(self, default: Objective) -> list[Objective]:
        """Return what each head plays for; `default`: the run's objective."""
        return [default] * len(self.heads)

    def augmented(self, img: Tensor, draws: Draws | None) -> Tensor:
        """Return the pictures that the discriminator sees; `draws` None: those given."""
        return img if self.augment is None or draws is None else self.augment(img, draws)

    def real(self, step: Step, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Return the pictures and labels that the player is shown as real in a step of phase D: the real ones, unless
        its augmentation deceives it, for which generated ones are made where the step has none yet.
        """
        if isinstance(self.augment, Deceiving):
            if step.gen_img is None:
                with torch.no_grad():
                    step.gen_img = step.G(step.gen_z, step.gen_c, step.draws("synthesis"))
            return self.augment.deceive(step.real_img, step.real_c, step.gen_img, step.gen_c, draws)
        return step.real_img, step.real_c

    def pair(self, step: Step, place: int) -> tuple[Tensor, Tensor | None, Draws]:
        """Return what the player is shown in a step of phase D: real and generated pictures by turns, as one batch.

        It goes to the player with `paired=True`, so that StyleGAN2's minibatch standard deviation is that of either
        kind alone.

        Args:
            place: of the player among the discriminators.

        Returns:
            Pictures `[2 N, C, H, W]`, labels `[2 N]` or None, and the draws of their augmentation.
        """
        real_img, real_c = self.real(step, step.draws(f"deceive/{place}"))
        img = by_turns(real_img, step.gen_img).contiguous(memory_format=torch.channels_last)
        c = None if real_c is None else by_turns(real_c, step.gen_c)
        return img, c, Draws(step.seed, f"augment/{place}/D", by_turns(2 * step.index, 2 * step.index + 1))

    def observe(self, real_logits: Sequence[Tensor]) -> None:
        """Show an adaptive augmentation every head's logits of augmented real pictures."""
        if isinstance(self.augment, Adaptive):
            for logits in real_logits:
                self.augment.observe(logits)

    def adapt(self, step: int, nimg: int) -> dict[str, Tensor]:
        """Let an adaptive augmentation draw its conclusions from step `step` with `nimg` real pictures.

        Returns:
            Its numbers to record by name.
        """
        return self.augment.adapt(step, nimg) if isinstance(self.augment, Adaptive) else {}


def by_turns(a: Tensor, b: Tensor) -> Tensor:
    """Return `a[0], b[0], a[1], b[1], ...`."""
    return torch.stack([a, b], dim=1).flatten(0, 1)


class Plain(Player):
    """One head: `network`, `D(img, c, paired)`, pictures `[N, C, H, W]` in [-1, 1] and labels to logits `[N]`."""

    heads = ("D",)

    def __init__(self, network: nn.Module, augment: Augment | None = None) -> None:
        super().__init__(augment)
        self.network = network

    def forward(self, img: Tensor, c: Tensor | None, draws: Draws | None, *, paired: bool = False) -> list[Tensor]:
        """Return `[logits]`.

        Args:
            img: `[N, C, H, W]`.
            c: labels `[N]` or None.
            draws: of the augmentation; None: no augmentation.
            paired: real and generated pictures come by turns; they are not compared with each other.
        """
        return [self.network(self.augmented(img, draws), c, paired=paired)]
