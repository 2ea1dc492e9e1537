"""Decoding: the table of modes, the rotation, the fits, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pygan.data.pictures import deal, decode
from pygan.errors import DataError


def encode(image: Image.Image, form: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def load(data: bytes, resolution: int = 4, channels: int = 3, fit: str = "crop", allow_upscale: bool = False):
    return decode(data, resolution=resolution, channels=channels, fit=fit, allow_upscale=allow_upscale)


def filled(mode: str, color, size=(4, 4)) -> Image.Image:
    return Image.new(mode, size, color)


@pytest.mark.parametrize(
    ("image", "form", "expected"),
    [
        (filled("RGB", (10, 20, 30)), "png", (10, 20, 30)),
        (filled("L", 77), "png", (77, 77, 77)),
        (filled("1", 1), "png", (255, 255, 255)),
        (filled("RGB", (10, 20, 30)).quantize(4), "png", (10, 20, 30)),
        (filled("RGBA", (0, 0, 0, 0)), "png", (255, 255, 255)),
        (filled("RGBA", (100, 0, 200, 51)), "png", (224, 204, 244)),  # 255 + 0.2 * (color - 255)
        (filled("LA", (100, 51)), "png", (224, 224, 224)),
        (filled("CMYK", (255, 0, 0, 0)), "tiff", (0, 255, 255)),
    ],
    ids=["RGB", "L", "1", "P", "transparent", "RGBA", "LA", "CMYK"],
)
def test_modes(image, form, expected):
    np.testing.assert_array_equal(
        load(encode(image, form)), np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 4, 4))
    )


def test_sixteen_bits_are_scaled_and_not_clipped():
    gray = np.array([[0, 257, 32896, 65535]] * 4, np.uint16)
    np.testing.assert_array_equal(load(encode(Image.fromarray(gray)))[0], [[0, 1, 128, 255]] * 4)


def test_transparent_color_becomes_white():
    image = filled("RGB", (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    pixels = load(encode(image, transparency=(1, 2, 3)))
    assert pixels[:, 0, 0].tolist() == [9, 9, 9] and pixels[:, 1:].min() == 255


def test_float_pictures_are_refused():
    with pytest.raises(DataError, match="mode F has no fixed range"):
        load(encode(filled("F", 0.5), "tiff"))


def test_one_channel():
    assert load(encode(filled("RGB", (50, 50, 50))), channels=1).tolist() == [[[50] * 4] * 4]


def test_the_rotation_is_applied():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the top row becomes the right column
    turned = load(encode(Image.fromarray(pixels), exif=exif))
    assert turned[0, :, 3].tolist() == [255] * 4 and turned[0, :, :3].max() == 0


def test_first_frame_of_an_animation():
    frames = [filled("RGB", color) for color in ((255, 0, 0), (0, 0, 255))]
    assert load(encode(frames[0], "gif", save_all=True, append_images=frames[1:]))[:, 0, 0].tolist() == [255, 0, 0]


def test_fits():
    # 8x4: the left and right quarters black, the middle white
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 2:6] = 255
    data = encode(Image.fromarray(pixels))
    assert load(data, fit="crop").min() == 255
    stretched = load(data, fit="stretch")
    assert stretched.shape == (3, 4, 4) and stretched[0, 0, 0] < 64
    padded = load(data, fit="pad")
    assert padded[0, 0].tolist() == padded[0, 3].tolist() == [255] * 4 and padded[0, 1, 0] < 64


@pytest.mark.parametrize(
    ("size", "fit", "fits"),
    [((3, 8), "crop", False), ((3, 8), "stretch", False), ((3, 8), "pad", True), ((3, 3), "pad", False)],
)
def test_small_pictures_are_enlarged_only_when_asked(size, fit, fits):
    data = encode(filled("RGB", 0, size))
    if not fits:
        with pytest.raises(DataError, match="smaller than the resolution 4"):
            load(data, fit=fit)
    assert load(data, fit=fit, allow_upscale=True).shape == (3, 4, 4)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8200, 10_000, 20_000])
def test_bombs_are_refused_before_decoding(side):
    with pytest.raises(DataError, match=r"64 megapixels|decompression bomb"):
        load(png_header(side, side))


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>404</html>", encode(filled("RGB", 9, (50, 50)))[:-60], encode(filled("RGB", 9), "jpeg")[:40]],
    ids=["empty", "html", "truncated png", "truncated jpeg"],
)
def test_broken_files(data):
    with pytest.raises(DataError, match=r"not a (readable )?picture"):
        load(data)


def test_broken_png_checksum():
    data = bytearray(encode(filled("RGB", 9)))
    data[data.index(b"IDAT") + 6] ^= 1
    with pytest.raises(DataError):
        load(bytes(data))


def test_deal_follows_the_shares():
    digests = [(i * 2**54).to_bytes(8, "big") + bytes(24) for i in range(1024)]  # evenly spread
    splits = [deal(digest, 0.25, 0.125) for digest in digests]
    assert [splits.count(name) for name in ("train", "validation", "test")] == [640, 256, 128]
