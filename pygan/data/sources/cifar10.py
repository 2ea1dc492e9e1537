"""CIFAR-10: photographs of 10 classes, 32x32 (Krizhevsky, "Learning Multiple Layers of Features ...", 2009)."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pygan.data.cifar_archive import read_cifar
from pygan.data.pictures import Collection
from pygan.spec import spec

if TYPE_CHECKING:
    from pygan.context import Context


@spec
class Spec:
    """The published archive, which has to be brought; a tenth of its training pictures becomes the validation split."""

    kind: Literal["cifar10"] = "cifar10"
    path: str
    """cifar-10-python.tar.gz, or the folder it was extracted to."""

    def build(self, ctx: "Context") -> Collection:
        return read_cifar(
            Path(self.path),
            resolution=ctx.resolution,
            train=tuple(f"data_batch_{i}" for i in range(1, 6)),
            test="test_batch",
            meta=("batches.meta", b"label_names"),
            label_key=b"labels",
        )
