"""Pictures and a finished training that the tests of the stages share."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from tiny_stages import CLASSES, RUN, stage

from pipeline import train
from pygan.data.pictures import ArrayPicture
from pygan.data.store import write_store


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> dict[str, list[Path]]:
    """Three stores of 32x32 pictures of two classes, told apart by brightness."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.Generator(np.random.PCG64(0))
    for split in ("train", "validation", "test"):
        pixels = noise.integers(0, 100, (24, 3, 32, 32), dtype=np.uint8)
        items = [
            (ArrayPicture(f"picture {i}", image + np.uint8(100 * (i % 2))), i % 2) for i, image in enumerate(pixels)
        ]
        write_store(folder / f"{split}.lmdb", items, resolution=32)
    (folder / "manifest.json").write_text(json.dumps({"class_names": CLASSES, "resolution": 32, "channels": 3}))
    return {name: [folder / f"{name}.lmdb"] for name in ("train", "validation", "test")} | {
        "manifest": [folder / "manifest.json"]
    }


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> Path:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    out = stage(train, tmp_path_factory.mktemp("trained"), data, **RUN)
    for number, handler in before.items():
        signal.signal(number, handler)
    return out
