"""The game of one step: what each side sees, plays for and moves its weights by."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pygan.context import Objective, Regularizer, Step
from pygan.draws import Draws
from pygan.pruning.masks import Masked, Masks
from pygan.training.descent import Descent
from pygan.training.distributed import Ranks
from pygan.training.material import Batch, pictures
from pygan.training.spec import TrainingSpec

BETAS = (0.5, 0.99)
"""Adam's moments in a game, where the training does not say."""


@dataclass(kw_only=True)
class Run:
    """Everything that the loop needs besides its budget: players, rules, pictures, and where to start."""

    seed: int
    G: nn.Module
    D: nn.ModuleList
    objective: Objective
    regularizers: Sequence[Regularizer]
    batch: Batch
    """Training pictures."""
    held_out: Batch
    """Validation pictures, for the statistics alone."""
    gen_labels: Callable[[Draws], Tensor | None]
    """Labels for generated pictures."""
    masks: Masks
    """Living weights by their names in a snapshot, `G.*` and `D.*`; empty: dense."""
    init: dict[str, Tensor] | None
    """State to start from, or None: the networks as they are."""
    init_nimg: int
    """Pictures that `init` has seen."""
    metadata: Callable[[int], dict[str, Any]]
    """Image count to the metadata of a snapshot."""


class Side(Descent):
    """One side of the game: the network that it trains, its optimizer, and the regularizers of its phase.

    The gradients of a move are accumulated over micro-batches of `batch_gpu` pictures and averaged over the processes.
    Lazy terms, those with an interval, either belong to the move in which they are due (`lazy: merged`) or make a move
    of their own, Adam being corrected for the additional ones (`separate`; Karras et al., CVPR 2020, arXiv 1912.04958,
    appendix B): with k lazy moves per move of the game, the learning rate is multiplied by s = 1 / (1 + k) and each
    moment raised to the power of s. `g_lazy_every` counts among the lazy moves of G, though no term makes it. In a lazy
    move of its own, weights that its terms do not reach have a gradient of zero, so that Adam's moments of all weights
    decay alike, as in StyleGAN2-ADA. Lazy terms are computed in float32, because they differentiate a gradient.

    Args:
        phase: "D" or "G".
        lr: of Adam.
        masked: the weights of `network` that stay zero.
    """

    def __init__(
        self,
        phase: str,
        network: nn.Module,
        lr: float,
        masked: Masked,
        run: Run,
        spec: TrainingSpec,
        ranks: Ranks,
    ) -> None:
        self.phase = phase
        self.run = run
        self.regularizers = [regularizer for regularizer in run.regularizers if phase in regularizer.phases]
        self.terms: dict[str, Tensor] = {}
        """The newest value of every term of the loss, by name."""
        intervals = [r.every for r in self.regularizers if r.every > 1]
        if phase == "G" and spec.g_lazy_every is not None:
            intervals.append(spec.g_lazy_every)
        lazy_moves = sum(1 / every for every in intervals) if spec.lazy == "separate" else 0.0
        share = 1 / (1 + lazy_moves)
        first, second = spec.betas or BETAS
        super().__init__(network, lr * share, (first**share, second**share), masked, spec, ranks)

    def move(self, number: int, nimg: int, index: Tensor) -> Step:
        """Train the network on the samples `index` of step `number`; return what was played last.

        Args:
            nimg: real pictures seen, this batch included.
            index: int64 `[N]`, global sample indices of all processes.
        """
        share = self.ranks.share(index)
        due = [r for r in self.regularizers if number % r.every == r.every - 1]
        alone = [r for r in due if r.every > 1 and self.spec.lazy == "separate"]
        self.network.requires_grad_(True)
        step = self._descend(number, nimg, share, [r for r in due if r not in alone], play=True)
        if alone:
            self._descend(number, nimg, share, alone, play=False)
        self.network.requires_grad_(False)
        return step

    def _descend(
        self, number: int, nimg: int, share: Tensor, regularizers: Sequence[Regularizer], *, play: bool
    ) -> Step:
        """Make one move of the optimizer: the game with `regularizers`, or these alone."""
        self.begin()
        means: dict[str, Tensor] = {}
        for part in self.micro_batches(share):
            step = Step(
                phase=self.phase,
                step=number,
                nimg=nimg,
                G=self.run.G,
                D=self.run.D,
                objective=self.run.objective,
                index=part,
                seed=self.run.seed,
            )
            weight = len(part) / len(share)
            loss = torch.zeros([], device=share.device)
            for name, every, term in self._terms(step, regularizers, play=play):
                loss = loss + every * term
                means[name] = means.get(name, 0) + weight * term.detach()
            self.add(weight * loss)
        if not play:
            self._reach_all(step)
        self.terms |= means
        self.apply()
        return step

    def _reach_all(self, step: Step) -> None:
        """Give a gradient of zero to the weights without one, of the networks that play in `step`."""
        for network in [step.G] if self.phase == "G" else [d for _, d in step.players()]:
            for parameter in network.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _terms(
        self, step: Step, regularizers: Sequence[Regularizer], *, play: bool
    ) -> Iterator[tuple[str, int, Tensor]]:
        """Yield the terms of the loss: name, weight and value."""
        see, decide = _PHASES[self.phase]
        see(self.run, step)
        if play:
            with self.autocast():
                yield f"loss/{self.phase}", 1, decide(self.run, step)
        for regularizer in regularizers:
            with self.autocast() if regularizer.every == 1 else self._eager():
                yield f"loss/{self.phase}/{type(regularizer).__name__}", regularizer.every, regularizer(step)

    def _eager(self) -> AbstractContextManager:
        """Without compiled networks, whose gradients cannot be differentiated."""
        return torch.compiler.set_stance("force_eager") if self.spec.compile else nullcontext()


def _see_D(run: Run, step: Step) -> None:
    """Real pictures, and what generated ones are made from."""
    step.real_img, step.real_c = pictures(run.batch, step.index)
    _see_G(run, step)


def _see_G(run: Run, step: Step) -> None:
    step.gen_z = step.draws("z").normal(run.G.z_dim)
    step.gen_c = run.gen_labels(step.draws("c"))


def _generate(step: Step) -> None:
    """Run G with fresh noise."""
    step.gen_img = step.G(step.gen_z, step.gen_c, step.draws("synthesis")).float()


def _decide_D(run: Run, step: Step) -> Tensor:
    """Return D's loss: every head's logits of the real and of the generated pictures, seen in one batch."""
    with torch.no_grad():
        _generate(step)
    step.real_logits, step.gen_logits = [], []
    for i, d in step.players():
        heads = [logits.float() for logits in d(*d.pair(step, i), paired=True)]
        real_logits = [logits[..., 0::2] for logits in heads]
        d.observe(real_logits)
        step.real_logits += real_logits
        step.gen_logits += [logits[..., 1::2] for logits in heads]
    logits = zip(step.objectives(), step.real_logits, step.gen_logits, strict=True)
    return sum(objective.D(real, gen) for objective, real, gen in logits)


def _decide_G(run: Run, step: Step) -> Tensor:
    """Return G's loss: what every head says of fresh pictures."""
    _generate(step)
    step.gen_logits = [
        logits.float() for i, d in step.players() for logits in d(step.gen_img, step.gen_c, step.draws(f"augment/{i}"))
    ]
    return sum(objective.G(logits) for objective, logits in zip(step.objectives(), step.gen_logits, strict=True))


_PHASES = {"D": (_see_D, _decide_D), "G": (_see_G, _decide_G)}
"""How a side gets the inputs of a step, and how it plays."""
