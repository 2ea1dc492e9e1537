"""Moving pictures: the frames are there, in order, in every format, and are never all in memory."""

import importlib.util
import subprocess
import sys
import textwrap
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from pygan.animation import save_animation
from pygan.errors import MissingInput
from pygan.sheets import picture


def frames(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Frame i is of one brightness, 40 i."""
    return (torch.arange(count)[:, None, None, None] * 40).to(torch.uint8).expand(count, channels, height, width)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
def test_an_animation_has_its_frames(tmp_path, suffix, channels):
    img = frames(6, channels, 4, 4)
    save_animation(tmp_path / f"walk{suffix}", img.split(4), 6, fps=10)
    with Image.open(tmp_path / f"walk{suffix}") as file:
        assert (file.n_frames, file.size, file.info["loop"]) == (6, (8, 8), 0)
        for i, frame in enumerate(ImageSequence.Iterator(file)):
            assert np.abs(np.asarray(frame.convert("RGB")).astype(int) - 40 * i).max() <= 1  # of the palette
            assert frame.info["duration"] == 100
    assert i == 5


def test_a_gif_has_the_pixels_that_pillow_writes(tmp_path):
    torch.manual_seed(0)
    img = torch.randint(256, [3, 3, 16, 16], dtype=torch.uint8)
    save_animation(tmp_path / "walk.gif", img.split(2), 3, scale=1)
    first, *others = (picture(one, 1) for one in img)
    expected = BytesIO()
    first.save(expected, "GIF", save_all=True, append_images=others, loop=0)
    with Image.open(tmp_path / "walk.gif") as ours, Image.open(expected) as theirs:
        for a, b in zip(ImageSequence.Iterator(ours), ImageSequence.Iterator(theirs), strict=True):
            assert np.array_equal(np.asarray(a.convert("RGB")), np.asarray(b.convert("RGB")))


@pytest.mark.parametrize(("channels", "height", "width", "scale"), [(3, 16, 16, 2), (1, 17, 15, 1)])
def test_a_video_has_even_sides_and_its_frames(tmp_path, channels, height, width, scale):
    av = pytest.importorskip("av")
    save_animation(tmp_path / "walk.mp4", frames(6, channels, height, width).split(4), 6, fps=10, scale=scale)
    with av.open(str(tmp_path / "walk.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    side = (height * scale + height * scale % 2, width * scale + width * scale % 2, 3)
    assert [shown.shape for shown in pictures] == [side] * 6
    for i, shown in enumerate(pictures):
        assert np.abs(shown.astype(int) - 40 * i).max() <= 8  # rounding of colors and loss of the encoder


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_the_frames_are_never_all_in_memory(tmp_path, suffix):
    """Four times as many frames as before take less than half of what these would with a byte per pixel (a palette).

    The first 80 frames fill what an encoder of videos holds back.
    """
    if suffix == ".mp4":
        pytest.importorskip("av")
    count, side = 320, 512
    program = f"""
        import resource, torch
        from pathlib import Path
        from pygan.animation import save_animation

        def batches(count):
            for i in range(count):
                yield torch.full([1, 3, {side}, {side}], i % 256, dtype=torch.uint8)

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * {1 if sys.platform == "darwin" else 1024}

        save_animation(Path("first{suffix}"), batches(80), 80, scale=1)
        before = peak()
        save_animation(Path("walk{suffix}"), batches({count}), {count}, scale=1)
        print(peak() - before)
    """
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(printed.stdout) < (count - 80) * side**2 / 2


def test_other_suffixes_and_a_missing_package(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"got the suffix '\.avi', expected \.gif, \.webp, \.mp4"):
        save_animation(tmp_path / "walk.avi", [frames(2, 3, 4, 4)], 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingInput, match=r"walk\.mp4: the suffix \.mp4 needs the package av: run `.* -m pip install av`"
    ):
        save_animation(tmp_path / "walk.mp4", [frames(2, 3, 4, 4)], 2)
    assert not list(tmp_path.iterdir())
