"""How long and how fast a model is trained."""

from typing import Literal

from pydantic import Field, model_validator

from pygan.spec import spec


@spec
class TrainingSpec:
    """Budget, optimizers, average and records of one training."""

    batch: int = Field(default=32, ge=2)
    """Real pictures per discriminator step."""
    batch_gpu: int | None = Field(default=None, ge=1)
    """Pictures that one process computes at a time, gradients being accumulated to `batch`; null: all of its share."""
    g_batch: int | None = Field(default=None, ge=1)
    """Generated pictures per generator step; None: `batch`."""
    d_steps: int = Field(default=1, ge=1)
    """Discriminator steps per generator step."""
    total_nimg: int = Field(default=57_600, ge=1)
    """Real pictures shown to the discriminator in all, repetitions counted."""
    snapshots: tuple[int, ...] = (0, 57_600)
    """Image counts at which networks and a sample grid are written; the last one is the trained model."""
    g_lr: float = Field(default=1e-3, gt=0)
    """Adam learning rate of G, or of a denoiser (EDM: 1e-3)."""
    d_lr: float = Field(default=1e-3, gt=0)
    """Adam learning rate of every discriminator."""
    betas: tuple[float, float] | None = None
    """Adam moments; null: (0.5, 0.99) for G and D, (0.9, 0.999) for a denoiser (EDM)."""
    adam_eps: float = Field(default=1e-8, gt=0)
    """Adam's epsilon, G and D."""
    warmup_kimg: float | None = Field(default=None, ge=0)
    """Thousands of pictures over which the learning rate of a denoiser rises from 0; null: the 10,000 of EDM, but at
    most 5 % of the training. Of no effect on a GAN."""
    lazy: Literal["merged", "separate"] = "merged"
    """Terms with an interval belong to the step in which they are due, or make an optimizer step of their own with
    Adam corrected for it (StyleGAN2)."""
    g_lazy_every: int | None = Field(default=None, ge=2)
    """Steps between two lazy moves of G that no term makes and for which Adam is corrected all the same; null: none.
    Needs `lazy: separate`. StyleGAN2-ADA's configuration `cifar` gives path length no weight and keeps its interval."""
    sanitize_gradients: bool = False
    """Replace gradients that are not finite by 0 (NaN) and 1e5 (infinity), as StyleGAN2-ADA does."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the forward passes; weights, optimizers and lazy terms keep float32. fp16 needs a GPU."""
    tf32: bool = False
    """Let GPUs round the factors of float32 products to 10 bits."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    ema_halflife_kimg: float = Field(default=7.4, gt=0)
    """Half-life of the moving average of G, or of a denoiser, thousands of pictures."""
    ema_rampup: float | None = Field(default=0.08, gt=0)
    """Cap the half-life at this fraction of the pictures seen; None: no ramp (StyleGAN2-ADA uses 0.05)."""
    ema_start_nimg: int = Field(default=0, ge=0)
    """Pictures until which the average is a copy of G (BigGAN averages from step 1000 on)."""
    standing_batches: int = Field(default=8, ge=0)
    """Batches that re-estimate the batch-normalization statistics of the averaged G; 0: G's running statistics."""
    tick_nimg: int = Field(default=3_200, ge=1)
    """Pictures between two lines of statistics."""
    checkpoint_nimg: int = Field(default=9_600, ge=1)
    """Pictures between two resumable checkpoints."""
    monitor_images: int = Field(default=100, ge=1)
    """Training, held-out and generated pictures on which logits, or losses of a denoiser, are recorded at each tick."""

    def micro_batches(self, share: int) -> set[int]:
        """Return the sizes of the parts in which one process computes its share of a batch."""
        part = min(self.batch_gpu or share, share)
        return {part, share % part} - {0}

    @property
    def nimg_per_step(self) -> int:
        """Real pictures per iteration: discriminator steps times batch."""
        return self.batch * self.d_steps

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingSpec":
        for name in ("snapshots", "total_nimg", "tick_nimg", "checkpoint_nimg"):
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if value % self.nimg_per_step:
                    raise ValueError(
                        f"{name}: got {value}, expected a multiple of batch x d_steps = {self.nimg_per_step}"
                    )
        if self.g_lazy_every is not None and self.lazy == "merged":
            raise ValueError(f"g_lazy_every: got {self.g_lazy_every} with lazy: merged, expected lazy: separate")
        if not self.snapshots or list(self.snapshots) != sorted({*self.snapshots}):
            raise ValueError(f"snapshots: got {list(self.snapshots)}, expected increasing image counts")
        if self.snapshots[-1] != self.total_nimg:
            raise ValueError(f"snapshots: the last one is {self.snapshots[-1]}, expected total_nimg {self.total_nimg}")
        return self
