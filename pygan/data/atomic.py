"""Files that appear under their name when they are complete, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb

from pygan.errors import CannotWrite


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a scratch file beside `path`; move it to `path` when the block ends well, else remove it.

    Raises:
        CannotWrite: the disk is full or the folder can't be written.
    """
    scratch = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except (lmdb.Error, OSError) as error:
        raise CannotWrite(f"{path}: cannot be written ({error})") from error
    finally:
        with suppress(OSError):
            scratch.unlink()
