"""A ticket found elsewhere: the mask of another run, or of a file.

Stage II of Chen et al., NeurIPS 2021, trains one ticket several times, with one augmentation or another; their appendix
carries tickets from one data set to another. The mask is taken as it is; the initialization is this run's own seed's,
which is the one that the ticket was found with where `mask_of` is a run of the same study.
"""

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from pygan.pruning.masks import Masks, Round, check_fit
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["transfer"] = "transfer"
    mask_of: str | None = None
    """Name of the run whose last mask is worn, seed by seed; null: see `path`."""
    path: str | None = None
    """A mask file (`mask.safetensors` of some round), the same for every seed; null: see `mask_of`."""
    found_in: str | None = None
    """Name of the run to whose snapshot training rewinds; null: it starts from the initialization."""
    rewind_nimg: int = Field(default=0, ge=0)
    """Images seen at that snapshot."""

    @model_validator(mode="after")
    def _one_source(self) -> "Spec":
        if (self.mask_of is None) == (self.path is None):
            raise ValueError("mask_of: expected either `mask_of` or `path`, and not both")
        if self.rewind_nimg and self.found_in is None:
            raise ValueError("found_in: the key is missing, `rewind_nimg` needs it")
        return self

    def check(self, networks: nn.Module) -> None:
        """Nothing to check before the mask is there."""

    def next_masks(self, last: Round, number: int = 1) -> Masks:
        """Return the other run's masks.

        Raises:
            DataError: they are of another architecture.
        """
        check_fit(last.networks, last.like, self.path or f"the mask of {self.mask_of}")
        return last.like
