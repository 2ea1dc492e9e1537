"""What tests of `pygan train` share: pictures of noise, the length of their runs, and Ctrl-C at a step."""

import os
import signal

import numpy as np
import torch

from pygan import folder_training
from pygan.folder_settings import Place

KIMG = 0.128
"""Four steps of 32."""
HERE = Place(torch.device("cpu"), "no GPU is visible", 1)


def pixels(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (height, width, channels), dtype=np.uint8)


def interrupt_at(nimg: int, monkeypatch, batch_size: int = 32) -> None:
    """Send this process Ctrl-C when the pictures of a step are read."""
    timed = folder_training._timed

    def interrupting(batch, total, say):
        def at_last(index):
            if len(index) == batch_size and index[0] == nimg:
                os.kill(os.getpid(), signal.SIGINT)
            return batch(index)

        return timed(at_last, total, say)

    monkeypatch.setattr(folder_training, "_timed", interrupting)
