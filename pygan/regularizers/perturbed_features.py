"""The second loss of methods that perturb feature maps: both networks cut in two, a perturbation between the halves.

D = head o features: the perturbation is added to what the head reads. G = body o stem: it is added to the first feature
map (or, in StyleGAN2, to ws), and D judges the picture that comes out. It is a constant to the derivative, which flows
through the perturbed branch into both halves all the same.

The branch sees what the clean one saw: the same pictures, labels, noise and augmentation, and with
`update_buffers: never` the same spectral norms; running statistics are left alone. So a perturbation of nothing gives
the clean loss again. It plays against the base network's own discriminator alone.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from pygan.context import Step
from pygan.draws import Draws

Side = Literal["D", "G"]
Logits = Callable[[Tensor], Tensor]
"""Features `[N, ...]` to logits `[N]`."""


@contextmanager
def still_buffers(*networks: nn.Module) -> Iterator[None]:
    """Leave the buffers of networks in training mode alone, whatever runs.

    Batch normalization goes on normalizing with the batch; other modules with buffers of their own (the vectors of
    spectral normalization, StyleGAN2's average w) behave as in evaluation, where they use them as they are.
    """
    changed: list[tuple[nn.Module, str]] = []
    for module in (module for network in networks for module in network.modules()):
        name = "track_running_stats" if isinstance(module, nn.modules.batchnorm._BatchNorm) else "training"
        if module.training and getattr(module, name) and next(module.buffers(recurse=False), None) is not None:
            setattr(module, name, False)
            changed.append((module, name))
    try:
        yield
    finally:
        for module, name in changed:
            setattr(module, name, True)


class PerturbedFeatures:
    """`weight` times the run's objective on perturbed features; subclasses say how they are perturbed.

    Args:
        sides: phases in which it is added.
        weight: factor of the perturbed loss.
        mixing: "sum": it is added to the clean loss L; "mean": the loss becomes (L + weight L') / (1 + weight).
        update_buffers: "as_released": its forwards move running statistics and spectral norms like any other.
        augment_g: the generator's perturbed pictures are augmented like its clean ones.
        detached: no gradient into the half before the perturbation.
    """

    every = 1

    def __init__(
        self,
        *,
        sides: tuple[Side, ...],
        weight: float,
        mixing: Literal["sum", "mean"],
        update_buffers: Literal["never", "as_released"],
        augment_g: bool,
        detached: bool = False,
    ) -> None:
        self.phases = sides
        self.weight = weight
        self.mixing = mixing
        self.update_buffers = update_buffers
        self.augment_g = augment_g
        self.detached = detached

    def perturbation(self, h: Tensor, logits: Logits, harm: Tensor, draws: Draws) -> Tensor:
        """Return what is added to `h`, without gradient.

        Args:
            h: features `[N, ...]`, without gradient.
            harm: `[N]`, the direction of each logit that harms the player who is trained: 1 up, -1 down.
            draws: of these samples.
        """
        raise NotImplementedError

    def __call__(self, step: Step) -> Tensor:
        networks = (step.D[0].network,) if step.phase == "D" else (step.G, step.D[0].network)
        with still_buffers(*networks) if self.update_buffers == "never" else nullcontext():
            perturbed = self._loss_D(step) if step.phase == "D" else self._loss_G(step)
        if self.mixing == "sum":
            return self.weight * perturbed
        clean = (
            step.objective.D(step.real_logits[0], step.gen_logits[0])
            if step.phase == "D"
            else step.objective.G(step.gen_logits[0])
        )
        return self.weight / (1 + self.weight) * (perturbed - clean)

    def _loss_D(self, step: Step) -> Tensor:
        player, n = step.D[0], len(step.real_img)
        real_img, real_c = player.real(step, step.draws("deceive/0"))
        img = torch.cat([real_img, step.gen_img]).contiguous(memory_format=torch.channels_last)
        c = None if real_c is None else torch.cat([real_c, step.gen_c])
        index = torch.cat([2 * step.index, 2 * step.index + 1])  # the samples of the pair, as the loop counts them
        h = player.network.features(player.augmented(img, Draws(step.seed, "augment/0/D", index))).to(img.dtype)
        harm = torch.cat([-torch.ones(n, device=h.device), torch.ones(len(h) - n, device=h.device)])
        draws = Draws(step.seed, "perturbed_features/D", index)

        def logits(h: Tensor) -> Tensor:
            with torch.autocast(h.device.type, enabled=False):  # bfloat16 would round small perturbations away
                return player.network.head(h, c)

        perturbed = self._perturbed(h, logits, harm, draws)
        return step.objective.D(perturbed[:n], perturbed[n:])

    def _loss_G(self, step: Step) -> Tensor:
        G, player, draws = step.G, step.D[0], step.draws("synthesis")
        stem = G.stem(step.gen_z, step.gen_c, draws)
        h, *rest = stem if isinstance(stem, tuple) else (stem,)
        h = h.to(step.gen_img.dtype)

        def logits(h: Tensor) -> Tensor:
            cut = (h, *rest) if isinstance(stem, tuple) else h
            img = G.body(cut, step.gen_c, copy.copy(draws))  # the same noise at every call
            return player.network(
                player.augmented(img, step.draws("augment/0") if self.augment_g else None), step.gen_c
            )

        harm = -torch.ones(len(h), device=h.device)
        return step.objective.G(self._perturbed(h, logits, harm, step.draws("perturbed_features")))

    def _perturbed(self, h: Tensor, logits: Logits, harm: Tensor, draws: Draws) -> Tensor:
        delta = self.perturbation(h.detach(), logits, harm, draws)
        return logits((h.detach() if self.detached else h) + delta)
