"""A GAN in training, whose parts of a step can be run and timed one at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pygan.context import Objective, Regularizer, Step
from pygan.discriminators.plain import Plain
from pygan.training.ema import Average

SEED, REAL_STREAM = 3, 11


class AverageByParameter:
    """The average of the weights as StyleGAN2-ADA's loop has it, one tensor after the other."""

    def __init__(self, G: nn.Module, decay: float) -> None:
        self.tensors = [tensor.detach().clone() for tensor in G.state_dict().values()]
        self.decay = decay

    @torch.no_grad()
    def update(self, G: nn.Module, nimg: int, batch: int) -> None:
        for mine, theirs in zip(self.tensors, G.state_dict().values(), strict=True):
            mine.copy_(theirs.lerp(mine, self.decay) if mine.is_floating_point() else theirs)


class Game:
    """The parts of a training step of G and D: adversarial steps of both, and lazy terms in steps of their own.

    Args:
        plain: update the optimizers and the average tensor by tensor, as PyTorch does unless asked otherwise.
        channels_last: the layout of pictures and convolutional weights.
        autocast: the adversarial steps in bfloat16; lazy terms keep float32, as in pygan's loop.
        compiled: G and D by `torch.compile` in the adversarial steps (it cannot differentiate twice, as terms do).
        terms: lazy regularization.
        d_steps: steps of D for one of G.
    """

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        *,
        objective: Objective,
        batch: int,
        resolution: int,
        num_classes: int = 0,
        d_steps: int = 1,
        terms: Sequence[Regularizer] = (),
        lr: float,
        betas: tuple[float, float],
        plain: bool = False,
        channels_last: bool = True,
        autocast: bool = False,
        compiled: bool = False,
    ) -> None:
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.G = G.train().requires_grad_(False).to(memory_format=self.format)
        self.D = nn.ModuleList([Plain(D.train().requires_grad_(False).to(memory_format=self.format))])
        self.adversaries = (torch.compile(self.G), torch.compile(self.D[0])) if compiled else (self.G, self.D[0])
        self.objective, self.batch, self.autocast = objective, batch, autocast
        adam: dict[str, Any] = {"lr": lr, "betas": betas, "fused": None if plain else True}
        self.optimizers = {"G": torch.optim.Adam(G.parameters(), **adam), "D": torch.optim.Adam(D.parameters(), **adam)}
        self.average = AverageByParameter(G, 0.999) if plain else Average(G, 10_000, None)
        generator = torch.Generator().manual_seed(REAL_STREAM)
        real = torch.rand(batch, 3, resolution, resolution, generator=generator) * 2 - 1
        self.real = real.contiguous(memory_format=self.format)
        self.c = torch.arange(batch) % num_classes if num_classes else None
        self.nimg = 0
        self.parts: dict[str, Callable[[], Tensor]] = {"D": self._d_loss, "G": self._g_loss}
        self.shares = {"D": float(d_steps), "G": 1.0}
        """How often a part is run in one step, on average."""
        for term in terms:
            name = type(term).__name__
            self.parts[name] = lambda term=term: self._term(term)
            self.shares[name] = 1 / term.every
        self.phases = {"D": "D", "G": "G"} | {type(term).__name__: term.phases[0] for term in terms}

    def gradients(self, part: str) -> Tensor:
        """Compute the gradients of a part's player and return the loss."""
        phase = self.phases[part]
        player = self.G if phase == "G" else self.D
        player.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast and part == phase):
            loss = self.parts[part]()
        self.optimizers[phase].zero_grad(set_to_none=True)
        loss.backward()
        player.requires_grad_(False)
        return loss.detach()

    def run(self, part: str) -> None:
        """Run a part of a step to its end."""
        self.gradients(part)
        self.optimizers[self.phases[part]].step()
        if part == "G":
            self.nimg += self.batch
            self.average.update(self.G, self.nimg, self.batch)

    def gradient(self, part: str) -> Tensor:
        """Return what `gradients` left in the parameters, as one vector.

        They are ordered by size first, because contenders list weight and bias of a layer in different orders.
        """
        parameters = [p for group in self.optimizers[self.phases[part]].param_groups for p in group["params"]]
        parameters.sort(key=lambda p: p.numel())
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])

    def _step(self, phase: str) -> Step:
        index = torch.arange(self.nimg, self.nimg + self.batch)
        step = Step(
            phase=phase, step=0, nimg=self.nimg, G=self.G, D=self.D, index=index, seed=SEED, objective=self.objective
        )
        step.real_img, step.real_c, step.gen_c = self.real, self.c, self.c
        step.gen_z = step.draws("z").normal(self.G.z_dim)
        return step

    def _generate(self, step: Step) -> Tensor:
        return self.adversaries[0](step.gen_z, step.gen_c, step.draws("synthesis"))

    def _d_loss(self) -> Tensor:
        step = self._step("D")
        with torch.no_grad():
            gen = self._generate(step)
        # Alternating, so that no group of the minibatch standard deviation has both.
        img = torch.stack([self.real, gen], 1).flatten(0, 1).contiguous(memory_format=self.format)
        c = None if self.c is None else self.c.repeat_interleave(2)
        (logits,) = self.adversaries[1](img, c, None)
        return self.objective.D(logits[0::2].float(), logits[1::2].float())

    def _g_loss(self) -> Tensor:
        step = self._step("G")
        (logits,) = self.adversaries[1](self._generate(step), self.c, None)
        return self.objective.G(logits.float())

    def _term(self, term: Regularizer) -> Tensor:
        step = self._step(term.phases[0])
        return term.every * term(step)
