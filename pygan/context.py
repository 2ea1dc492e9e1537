"""What the parts of a run tell each other: the surroundings at build time and the state of one training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pygan.draws import Draws


@dataclass(frozen=True)
class Objective:
    """The two losses of one adversarial game; logits have the samples last, results are scalars."""

    D: Callable[[Tensor, Tensor], Tensor]
    """`(real_logits, gen_logits)` to the loss that the discriminator minimizes."""
    G: Callable[[Tensor], Tensor]
    """`gen_logits` to the loss that the generator minimizes."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What `Spec.build` may need to know about the run around it."""

    resolution: int
    """Side of the square pictures, pixels."""
    channels: int = 3
    """Colour channels of a picture."""
    num_classes: int = 0
    """0: unconditional."""
    class_counts: tuple[int, ...] = ()
    """Training pictures of each class; empty: unconditional."""
    pictures: Callable[[int], Iterator[Tensor]] | None = None
    """Batch size to the training pictures, each once and in the order of the store, uint8 `[N, C, H, W]`; None where
    there are none, as in a check."""
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    frozen: tuple[nn.Module, ...] = ()
    """Frozen pretrained networks for the vision-aided heads, in the order of the probe's choice."""


@dataclass
class Step:
    """What the loop has in one phase ("D" or "G") of one step; a term takes the fields it needs by name.

    Pictures are float32 `[N, C, H, W]` in [-1, 1]; labels int64 `[N]` or None (unconditional); logits are lists with
    one tensor per discriminator head, `[N]`, or `[T, N]` for a head with T outputs whose losses are averaged.
    """

    phase: str
    step: int
    nimg: int
    G: nn.Module
    D: nn.ModuleList
    objective: Objective
    """The run's adversarial objective."""
    index: Tensor
    """int64 `[N]`: the global sample indices of this batch, a share of the step's where it is accumulated."""
    seed: int
    real_img: Tensor | None = None
    real_c: Tensor | None = None
    gen_z: Tensor | None = None
    gen_c: Tensor | None = None
    gen_img: Tensor | None = None
    real_logits: list[Tensor] | None = None
    gen_logits: list[Tensor] | None = None

    def players(self) -> list[tuple[int, nn.Module]]:
        """The discriminators that have joined the game, with their places in `D`."""
        return [(i, d) for i, d in enumerate(self.D) if self.nimg > d.warmup_nimg]

    def objectives(self) -> list[Objective]:
        """What each head of the players plays for, in the order of the logits."""
        return [objective for _, d in self.players() for objective in d.objectives(self.objective)]

    def draws(self, stream: str) -> Draws:
        """Random draws for this batch's samples, named after `stream` and the phase."""
        return Draws(self.seed, f"{stream}/{self.phase}", self.index)


class Regularizer(Protocol):
    """A term of a loss: called in the phases it lists, on the steps that are due.

    One with a state of its own is an `nn.Module` and keeps the state in buffers; checkpoints then carry it. Frozen
    networks that it looks through are not part of it.
    """

    phases: tuple[str, ...]
    """Subset of ("D", "G")."""
    every: int
    """Evaluated on every `every`-th step, last of its round, and weighted by `every` (lazy regularization)."""

    def __call__(self, step: Step) -> Tensor:
        """Return the scalar penalty to add to the loss of `step.phase`."""
        ...


@runtime_checkable
class Attached(Protocol):
    """A regularizer that has to see the generator before training: to check it, or for the shapes of its state."""

    def attach(self, G: nn.Module) -> None:
        """Look at the generator as it was drawn; called once, before a state is loaded."""
        ...


@runtime_checkable
class Adaptive(Protocol):
    """An augmentation that follows its discriminator; what it has learned belongs into its buffers."""

    def observe(self, real_logits: Tensor) -> None:
        """Take note of one head's logits of augmented real pictures."""
        ...

    def adapt(self, step: int, nimg: int) -> dict[str, Tensor]:
        """End training step `step` (from 0) with its `nimg` real pictures; return numbers to record by name."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """A regularizer with numbers worth a place in `stats.jsonl` besides its loss."""

    def numbers(self) -> dict[str, Tensor | float]:
        """Return scalars to record by name; called once a tick."""
        ...


@runtime_checkable
class Deceiving(Protocol):
    """An augmentation that passes generated pictures off as real."""

    def deceive(
        self, real_img: Tensor, real_c: Tensor | None, gen_img: Tensor, gen_c: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor | None]:
        """Return the pictures and labels that its discriminator is shown as real."""
        ...
