"""What the terms on a class-conditional generator share: its gains and biases by class, and how much a class counts.

Class weights: Cui, Jia, Lin, Song and Belongie, "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019
(arXiv 1901.05555), eq. 2 and section 4.1: in proportion to `1 / E_n`, `E_n = (1 - beta^n) / (1 - beta)`; mean 1.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pygan.context import Context
from pygan.draws import Draws
from pygan.errors import ConfigError, DataError
from pygan.ops import group_spectral_sigma

Weighting = Literal["effective_number", "uniform"]
EPS = 1e-12
"""Lower bound of the norms that a power iteration divides by (1e-3 in the gSR release)."""


def class_weights(ctx: Context, weighting: Weighting, beta: float) -> Tensor:
    """Return how much each class of a run counts, float32 `[num_classes]` of mean 1; all alike where `uniform`.

    Args:
        ctx: its `class_counts` are the training pictures of each class.
        beta: in [0, 1); 0: all alike, towards 1: one over the pictures.

    Raises:
        ConfigError: the run has no classes.
        DataError: a class has no picture.
    """
    if not ctx.num_classes:
        raise ConfigError(
            "regularizers: a term on gains and biases by class needs labels, but the generator is unconditional "
            "(set `conditional: true` in `base`)"
        )
    if len(ctx.class_counts) != ctx.num_classes:
        raise ConfigError(
            f"regularizers: got pictures counted for {len(ctx.class_counts)} classes, expected {ctx.num_classes}"
        )
    if 0 in ctx.class_counts:
        raise DataError(f"subset: class {ctx.class_counts.index(0)} has no training picture, expected at least one")
    if weighting == "uniform":
        return torch.ones(ctx.num_classes)
    inverse = (1 - beta) / (1 - beta ** torch.tensor(ctx.class_counts, dtype=torch.float64))
    return (inverse / inverse.mean()).float()


def class_tables(G: nn.Module) -> list[Tensor]:
    """Return `gain - 1` of every class-conditional normalization, then every bias, float32 `[num_classes, C]`.

    Autocast changes nothing.
    """
    with torch.autocast(next(G.parameters()).device.type, enabled=False):
        gains, biases = zip(*_affines(G), strict=True)
        return [*(gain.float() - 1 for gain in gains), *(bias.float() for bias in biases)]


def _affines(G: nn.Module) -> list[tuple[Tensor, Tensor]]:
    affines = G.class_affines() if hasattr(G, "class_affines") else []
    if not affines:
        raise ConfigError(
            f"regularizers: a term on gains and biases by class needs a class-conditional generator, but this "
            f"{type(G).__module__.rsplit('.', 1)[-1]} has no such normalization"
        )
    return affines


def quiet_tables(G: nn.Module) -> list[Tensor]:
    """Return `class_tables` without gradient and without advancing any power iteration inside `G`."""
    training = G.training
    tables = class_tables(G.eval())
    G.train(training)
    return [table.detach() for table in tables]


class SingularVectors(nn.Module):
    """Largest singular values of matrices that change slowly, by power iteration from the last step's vectors.

    The vectors start as standard normal numbers, and the first call takes ten times the iterations, as in the gSR
    release. Differs from it in: they are kept when a run is resumed; a matrix that is 0 (a bias before training) leaves
    its vectors alone, where they would become 0 for good.

    Args:
        shapes: (h, w) of each of the matrices, of which there is one for each of `classes`.
        iterations: a call.
        seed: of the start.
    """

    def __init__(self, shapes: list[tuple[int, int]], classes: int, iterations: int, seed: int) -> None:
        super().__init__()
        self.iterations = iterations
        self._sizes = [classes * h for h, _ in shapes], [classes * w for _, w in shapes]
        self._shapes = [(classes, h) for h, _ in shapes], [(classes, w) for _, w in shapes]
        for name, sizes in zip("uv", self._sizes, strict=True):
            self.register_buffer(name, Draws(seed, f"singular_vectors/{name}", torch.arange(sum(sizes))).normal())
        self.register_buffer("started", torch.tensor(False))
        self._known_to_have_started = False

    def forward(self, matrices: list[Tensor]) -> list[Tensor]:
        """Return the largest singular values, `[classes]` for each of `matrices`, `[classes, h, w]`; differentiable."""
        sigmas, us, vs = group_spectral_sigma(matrices, *self.vectors(), self.iterations_due(), EPS)
        self.keep(us, vs)
        return sigmas

    def iterations_due(self) -> int:
        """Return how many iterations this call takes, and count the call."""
        first = not self._known_to_have_started and not self.started  # asks the device once
        self._known_to_have_started = True
        self.started.fill_(True)
        return 10 * self.iterations if first else self.iterations

    def vectors(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return u and v of each of the matrices, `[classes, h]` and `[classes, w]`, memory shared with the state."""
        us, vs = (
            [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
            for flat, sizes, shapes in zip((self.u, self.v), self._sizes, self._shapes, strict=True)
        )
        return us, vs

    @torch.no_grad()
    def keep(self, us: list[Tensor], vs: list[Tensor]) -> None:
        """Make these the state, where they are not 0."""
        for state, vectors in ((self.u, us), (self.v, vs)):
            new = torch.cat([vector.flatten() for vector in vectors])
            state.copy_(torch.where(new == 0, state, new))
