"""One process per folder: a lock that the kernel drops when its holder ends, however it ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pygan.errors import TryAgain


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Hold the lock of a folder, which is made where it is missing.

    Raises:
        TryAgain: another process holds it; the message names the holder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise TryAgain(f"{folder}: held by {file.read().strip() or 'another process'}") from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on host {socket.gethostname()}\n")
        file.flush()
        yield folder
