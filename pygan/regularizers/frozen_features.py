"""What the terms on a frozen network's features of generated pictures share: the look, the weight and the records.

A term is `weight * energy(x)` with features x `[N, F]` of the generated pictures. Published weights are not portable:
the energy's scale depends on network, layer and number of features (the same network and data set were published with
1e-5, 5e-6 and 0.1). So the weight may instead be set from a target ratio of gradient norms with respect to G's
parameters, `|weight grad energy| / |grad L_adv|`, measured on the first batch and kept from then on.
"""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pygan import features
from pygan.context import Context, Step
from pygan.errors import ConfigError, DataError, NumericalError
from pygan.features.frozen import FrozenNetwork
from pygan.spec import OneOf, spec

ENLARGED_SIDE, ENLARGED = 32, 8
"""The official code shows pictures of 32 pixels enlarged 8 times (each pixel repeated), all others as they are."""
BATCH = 64


@spec
class FeatureSpec:
    """Which features of which network, and how much they weigh."""

    network: Annotated[Any, OneOf("pygan.features", features.KINDS)] = Field(
        default={"kind": "efficientnet_lite0"}, validate_default=True
    )
    """The frozen pretrained network."""
    tap: str | None = None
    """Its tap whose features are compared, maps averaged over their positions; null: what the whole network returns,
    class logits for a classifier (official code)."""
    normalization: Literal["training_set", "network"] = "training_set"
    """What the network sees. `training_set`: pictures standardized by mean and deviation of each channel over the
    training set, at their own size, those of 32 pixels enlarged 8 times (official code); `network`: resized and
    normalized as in the network's training."""
    weight: float | None = Field(default=None, ge=0)
    """Factor of the energy (the paper's lambda); null: 1, the official default, or what `ratio` asks for. 0 leaves the
    term out."""
    ratio: float | None = Field(default=None, gt=0)
    """Set the weight from this ratio of gradient norms |weight grad energy| / |grad L_adv| at the first step; null:
    `weight` is given."""
    measure_every: int = Field(default=100, ge=1)
    """Generator steps between two measurements of that ratio for the records; each costs two backward passes."""

    @model_validator(mode="after")
    def _one_weight(self) -> "FeatureSpec":
        if self.weight is not None and self.ratio is not None:
            raise ValueError(f"got weight {self.weight} and ratio {self.ratio}, expected one of them")
        return self


class FeatureTerm(nn.Module):
    """`weight * energy(x, step)` in every generator step; subclasses say what the energy is.

    The frozen network is deliberately not registered: it appears in no state dict, no optimizer and no `train()` call.
    The state is the statistics of the training pictures, the weight and the last measured ratio.

    Args:
        settings: which features, and their weight.
        ctx: its `pictures` are looked at once, here.

    Raises:
        ConfigError: the network has no such tap or cannot look at pictures of this size.
        DataError: a channel of the training pictures is constant.
        MissingInput: the network's file is not installed.
    """

    phases = ("G",)
    every = 1

    def __init__(self, settings: FeatureSpec, ctx: Context) -> None:
        super().__init__()
        if ctx.pictures is None:
            raise ConfigError(f"regularizers: {settings.kind} looks at the training pictures, but there are none")
        self.settings = settings
        network = settings.network.build(ctx)
        self._frozen = (network,)
        mean, std = _channel_moments(ctx) if settings.normalization == "training_set" else (None, None)
        self.register_buffer("img_mean", mean)
        self.register_buffer("img_std", std)
        if mean is not None:
            _take_as_it_is(network, ctx.resolution)
        self._check(ctx)
        fixed = 1.0 if settings.weight is None else settings.weight
        self.skipped = fixed == 0
        """Whether the term is left out."""
        self.register_buffer("weight", torch.tensor(fixed if settings.ratio is None else torch.nan))
        self.register_buffer("gradient_ratio", torch.tensor(torch.nan))
        real = self._real_features(ctx)
        self.register_buffer("real_mean", real.mean(0))
        self.register_buffer("real_trace", real.var(0, correction=min(len(real) - 1, 1)).sum())
        self.remember(real)
        self._gen_features: Tensor | None = None
        self.to(ctx.device)

    def remember(self, real: Tensor) -> None:
        """Keep what the energy needs of the features of all training pictures, `[M, F]`, besides their mean."""

    def energy(self, x: Tensor, step: Step) -> Tensor:
        """Return the scalar energy of the features `x` `[N, F]` of the generated pictures."""
        raise NotImplementedError

    def forward(self, step: Step) -> Tensor:
        if self.skipped:
            return step.gen_img.new_zeros([])
        x = self.look(step.gen_img)
        self._gen_features = x.detach()
        energy = self.energy(x, step)
        if self._is_open() or step.step % self.settings.measure_every == 0:
            self._measure(energy, step)
        return self.weight * energy

    def numbers(self) -> dict[str, Tensor | float]:
        """Return weight, last measured gradient ratio and, of the last batch, moments of the features.

        `trace_gen` and `trace_real` are the traces of the covariances of generated and real features;
        `mean_distance` is an unbiased estimate of the squared distance of their means, which can fall below 0.
        """
        if self.skipped:
            return {"weight": 0.0}
        gen = self._gen_features
        return {
            "weight": self.weight,
            "gradient_ratio": self.gradient_ratio,
            "trace_gen": gen.var(0).sum(),
            "trace_real": self.real_trace,
            "mean_distance": squared_mean_distance(gen, self.real_mean),
        }

    def look(self, img: Tensor) -> Tensor:
        """Return the features `[N, F]` of pictures `[N, C, H, W]` in [-1, 1], differentiable."""
        if self.img_mean is not None:
            img = (img - self.img_mean) / self.img_std
            if img.shape[-1] == ENLARGED_SIDE:
                img = F.interpolate(img, scale_factor=ENLARGED, mode="nearest")
        return self._frozen[0].final(img, self.settings.tap)

    @torch.no_grad()
    def _real_features(self, ctx: Context) -> Tensor:
        return torch.cat([self.look(_to_float(img, ctx)) for img in ctx.pictures(BATCH)])

    def _is_open(self) -> bool:
        """Whether the first step has still to set the weight."""
        return self.settings.ratio is not None and bool(self.weight.isnan())

    def _measure(self, energy: Tensor, step: Step) -> None:
        """Set the weight where it is still open, and note the ratio of the gradients."""
        weights = [parameter for parameter in step.G.parameters() if parameter.requires_grad]
        adversarial = _gradient_norm(adversarial_loss(step), weights)
        own = _gradient_norm(energy, weights)
        if self._is_open():
            if own == 0 or not (own.isfinite() and adversarial.isfinite()):
                raise NumericalError(
                    f"regularizers.{type(self).__name__}: got gradient norms {float(own)} of the energy and "
                    f"{float(adversarial)} of the adversarial loss, from which `ratio` cannot set a weight"
                )
            self.weight.copy_(self.settings.ratio * adversarial / own)
        self.gradient_ratio.copy_(self.weight * own / adversarial)

    @torch.no_grad()
    def _check(self, ctx: Context) -> None:
        """Let the network see one blank picture."""
        network, side = self._frozen[0], ctx.resolution
        try:
            self.look(torch.zeros(1, ctx.channels, side, side, device=ctx.device))
        except ValueError as error:
            raise ConfigError(f"regularizers.{self.settings.kind}.tap: {error}") from error
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"regularizers.{self.settings.kind}: {network.name} cannot look at pictures of {network.resolution} "
                f"pixels (the data set has {side}); choose another network or normalization: network ({error})"
            ) from error


def squared_mean_distance(x: Tensor, mean: Tensor) -> Tensor:
    """Return the unbiased estimate of |E x - mean|^2 from independent features `x` `[N, F]`, N at least 2.

    The square of the batch mean's distance contains 1/N of the trace of the covariance, which is taken off; what is
    left is the average of (x_i - mean).(x_j - mean) over all pairs i != j.
    """
    return (x.mean(0) - mean).square().sum() - x.var(0).sum() / len(x)


def adversarial_loss(step: Step) -> Tensor:
    """Return G's loss of the step without any term, over the heads of the players that have joined."""
    return sum(objective.G(gen) for objective, gen in zip(step.objectives(), step.gen_logits, strict=True))


def _gradient_norm(loss: Tensor, weights: list[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return sum(gradient.square().sum() for gradient in gradients if gradient is not None).sqrt()


def _take_as_it_is(network: FrozenNetwork, side: int) -> None:
    """Stop the network from resizing and normalizing: it sees what it is given."""
    network.resolution = side * ENLARGED if side == ENLARGED_SIDE else side
    network.scale.fill_(1)
    network.shift.zero_()


def _to_float(img: Tensor, ctx: Context) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1] on the run's device."""
    return img.to(ctx.device).float() / 127.5 - 1


def _channel_moments(ctx: Context) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel over all pixels of the training pictures, `[1, C, 1, 1]`."""
    sums, squares, count = 0.0, 0.0, 0
    for img in ctx.pictures(BATCH):
        x = _to_float(img, ctx).double()
        sums, squares = sums + x.sum((0, 2, 3)), squares + x.square().sum((0, 2, 3))
        count += x.numel() // x.shape[1]
    mean = sums / count
    variance = (squares - count * mean.square()) / (count - 1)
    if not (variance > 1e-12).all():
        raise DataError(f"the training pictures have channels of variance {variance.tolist()}, expected none constant")
    return tuple(value.float().view(1, -1, 1, 1) for value in (mean, variance.sqrt()))
