"""Moving pictures: the frames are there, in order, in every format."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from pygan.animation import save_animation
from pygan.errors import MissingInput


def frames(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Frame i is of one brightness, 40 i."""
    return (torch.arange(count)[:, None, None, None] * 40).to(torch.uint8).expand(count, channels, height, width)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_has_its_frames(tmp_path, suffix):
    save_animation(tmp_path / f"walk{suffix}", frames(6, 3, 4, 4))
    with Image.open(tmp_path / f"walk{suffix}") as file:
        assert (file.n_frames, file.size) == (6, (8, 8))


@pytest.mark.parametrize(("channels", "height", "width", "scale"), [(3, 16, 16, 2), (1, 17, 15, 1)])
def test_a_video_has_even_sides_and_its_frames(tmp_path, channels, height, width, scale):
    av = pytest.importorskip("av")
    save_animation(tmp_path / "walk.mp4", frames(6, channels, height, width), fps=10, scale=scale)
    with av.open(str(tmp_path / "walk.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    side = (height * scale + height * scale % 2, width * scale + width * scale % 2, 3)
    assert [picture.shape for picture in pictures] == [side] * 6
    for i, picture in enumerate(pictures):
        assert np.abs(picture.astype(int) - 40 * i).max() <= 8  # rounding of colors and loss of the encoder


def test_other_suffixes_and_a_missing_package(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"got the suffix '\.avi', expected \.gif, \.webp, \.mp4"):
        save_animation(tmp_path / "walk.avi", frames(2, 3, 4, 4))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingInput, match=r"walk\.mp4: the suffix \.mp4 needs the package av: run `.* -m pip install av`"
    ):
        save_animation(tmp_path / "walk.mp4", frames(2, 3, 4, 4))
    assert not list(tmp_path.iterdir())
