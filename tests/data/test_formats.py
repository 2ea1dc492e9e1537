"""Formats that need help: HEIC with and without its package, AVIF, and raw data of cameras."""

import importlib.util
import io
import zipfile

import numpy as np
import pytest
from PIL import Image, features

from pygan.context import Context
from pygan.data import formats
from pygan.data.pictures import decode
from pygan.data.sources.folder import Spec, survey
from pygan.errors import DataError

COLORS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


@pytest.fixture
def plain(monkeypatch):
    """An environment without pillow-heif and without AVIF."""
    find = importlib.util.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "pillow_heif" else find(name))
    monkeypatch.setattr(features, "modules", {})


def large(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).resize((64, 64), Image.Resampling.NEAREST)


def test_what_cannot_be_read_is_counted_by_suffix_with_the_way_out(plain):
    names = ["a.HEIC", "b/c.heic", "d.heif", "e.CR2", "f.avif", "g.txt", "h.png"]
    said = formats.left_out(names)
    assert [line.partition(" left out")[0] for line in said] == [
        "1 .avif file is",
        "1 .cr2 file is",
        "2 .heic files are",
        "1 .heif file is",
    ]
    assert "-m pip install pillow-heif`" in said[2] and "convert to JPEG or PNG" in said[1]
    assert "-m pip install 'pillow>=11.3'`" in said[0]


@pytest.mark.parametrize("archived", [False, True])
def test_a_folder_of_heic_alone_is_refused_with_the_way_out(plain, tmp_path, archived):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.heic").write_bytes(b"x")
    path = folder
    if archived:
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
    assert survey(str(path)).others == ["0.heic", "1.heic", "2.heic"]
    with pytest.raises(DataError, match=r"no picture was found \(3 .heic files are left out: install pillow-heif"):
        Spec(path=str(path)).build(Context(resolution=16))


def test_ordinary_pictures_do_not_import_the_package(monkeypatch):
    monkeypatch.setattr(formats, "_register_heif", None)
    file = io.BytesIO()
    large(COLORS).save(file, "png")
    file.seek(0)
    assert formats.open_picture(file).size == (64, 64)


def test_heic_is_read_where_its_package_is(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    file = io.BytesIO()
    heif.from_pillow(large(COLORS)).save(file, quality=-1)
    (tmp_path / "a.HEIC").write_bytes(file.getvalue())
    found = survey(str(tmp_path))
    assert (found.n, found.sizes, found.others) == (1, [(64, 64)], [])
    pixels = decode(file.getvalue(), resolution=64, channels=3, fit="crop", allow_upscale=False)
    expected = np.asarray(large(COLORS)).transpose(2, 0, 1)
    assert np.abs(pixels.astype(int) - expected).max() <= 8  # the format stores colors at half the resolution


def test_heic_under_another_name_is_refused_in_a_sentence(plain, monkeypatch):
    monkeypatch.setattr(formats, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    formats._register_heif.cache_clear()
    with pytest.raises(DataError, match="not a picture of a known format"):
        decode(b"\0\0\0\x18ftypheic" + bytes(32), resolution=16, channels=3, fit="crop", allow_upscale=False)
    formats._register_heif.cache_clear()


@pytest.mark.skipif(not ("avif" in features.modules and features.check("avif")), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_can(tmp_path):
    large(COLORS).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    assert survey(str(tmp_path)).sizes == [(64, 64)]
    pixels = decode((tmp_path / "a.avif").read_bytes(), resolution=64, channels=3, fit="crop", allow_upscale=False)
    assert np.abs(pixels.astype(int) - np.asarray(large(COLORS)).transpose(2, 0, 1)).max() <= 8
