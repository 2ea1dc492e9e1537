"""`pygan advise`: what is seen in pictures, and the recommendation that follows from it."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pygan.advise import FLAT, SIDE, TAIL, advise, look, near_copies
from pygan.cli import app
from pygan.context import Context
from pygan.data.prepare import prepare
from pygan.data.sources import folder
from pygan.errors import DataError, MissingInput
from pygan.folder_pictures import held_out_share
from pygan.recipes import PER_CLASS, recipe


def picture(seed: int, width: int = 40, height: int = 36) -> Image.Image:
    """Smooth colors, which survive resizing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(folder: Path, counts: dict[str, int]) -> Path:
    """Write that many pictures per class."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            picture(1000 * label + i).save(folder / name / f"{i:03d}.png")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return save(tmp_path / "pictures", {"many": 60, "few": 5})


def test_classes_sizes_and_the_tail(pictures: Path) -> None:
    found = look(pictures)
    assert found.n == 65 and found.class_counts == {"few": 5, "many": 60}
    assert found.imbalance == 12 >= TAIL
    assert set(found.sizes) == {(40, 36)} and found.modes == {"color": 65}
    assert not found.near and not found.copies and not found.unreadable
    share = held_out_share(65)
    source = folder.Spec(path=str(pictures), validation=share, test=share)
    assert found.n_train == len(source.build(Context(resolution=SIDE)).splits["train"])
    said = advise(pictures)
    assert "2 classes of 5 (few) to 60 pictures (many), imbalance 12.0" in said
    assert "kind: group_spectral" in said and "--mirror" in said and "config/" not in said
    # The reasons are those of the recipe for what is left to train with
    chosen = recipe(found.n_train, 32, num_classes=2)
    assert all(f"{key}: {reason}" in said for key, reason in chosen.reasons.items())
    assert (found.n_train >= 2 * PER_CLASS) == chosen.run["base"]["conditional"]
    assert said.endswith(f"pygan train {pictures} --resolution 32")


def test_copies_that_were_resized_recompressed_flipped_or_not_touched(pictures: Path) -> None:
    original = pictures / "many/000.png"
    (pictures / "many/copy.png").write_bytes(original.read_bytes())
    picture(1).resize((80, 72)).save(pictures / "many/larger.png")
    picture(2).save(pictures / "many/smaller file.jpg", quality=70)
    picture(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(pictures / "many/mirrored.png")
    found = look(pictures)
    assert found.copies == 1
    assert {pair[1] for pair in found.near} == {"many/larger.png", "many/smaller file.jpg", "many/mirrored.png"}
    assert ("many/003.png", "many/mirrored.png") in found.near
    said = advise(pictures)
    assert "1 exact copy:" in said and "3 near copies (" in said


def test_near_copies_by_definition() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.uniform(60, 190, (2, SIDE, SIDE)).astype(np.float32)
    flat = np.full((SIDE, SIDE), 30, np.float32) + draw.uniform(0, FLAT, (SIDE, SIDE)).astype(np.float32)
    thumbnails = np.stack([a, b, a + 3, 0.5 * a, flat, flat, a[:, ::-1], b + 20])
    # a + 3 is a near copy, half as bright and 20 levels brighter are none, flat ones are not compared
    for rows in (1, 3, 512):
        assert near_copies(thumbnails, rows) == [(0, 2), (0, 6)]
    assert near_copies(np.zeros((3, SIDE, SIDE), np.float32)) == []


def test_what_needs_a_flag_gets_it(tmp_path: Path) -> None:
    path = save(tmp_path / "odd ones", {"": 30})
    (path / "broken.png").write_bytes(b"no picture")
    for i in range(6):
        picture(500 + i, 90, 30).save(path / f"long {i}.png")
    picture(600).convert("L").save(path / "gray.png")
    rgba = picture(700).convert("RGBA")
    rgba.putalpha(Image.fromarray(np.tile(np.arange(0, 240, 6, dtype=np.uint8), (36, 1))))
    rgba.save(path / "transparent.png")
    found = look(path)
    assert found.modes == {"color": 36, "gray": 1, "transparent": 1}
    assert [name for name, _ in found.unreadable] == ["broken.png"]
    said = advise(path)
    assert "1 picture cannot be read, the first is broken.png" in said and "become white" in said
    assert "6 pictures are more than twice as long as wide" in said and "one class" in said
    # Padded to squares, nine of ten are 40 pixels or wider: 32 is the power of two, so nothing is enlarged
    assert "32 pixels" in said and said.endswith(f"pygan train '{path}' --resolution 32 --skip-bad --fit pad")


def test_a_zip_and_smaller_pictures(tmp_path: Path) -> None:
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(40):
            file = io.BytesIO()
            picture(i, *((40, 40) if i else (20, 20))).save(file, "png")
            archive.writestr(f"{i}.png", file.getvalue())
    said = advise(path)
    assert "1 picture is smaller than 32 pixels" in said and said.endswith(
        f"pygan train {path} --resolution 32 --allow-upscale"
    )


def test_a_prepared_data_set(pictures: Path, tmp_path: Path) -> None:
    (pictures / "many/copy.png").write_bytes((pictures / "many/000.png").read_bytes())
    manifest = prepare("mine", folder.Spec(path=str(pictures)), tmp_path / "data", resolution=16)
    found = look(tmp_path / "data")
    assert found.n == 66 and found.n_train == manifest["splits"]["train"]["n"]
    assert found.copies == 1 and found.class_counts == {"few": 5, "many": 61}
    assert set(found.sizes) == {(16, 16)}
    said = advise(tmp_path / "data")
    assert "16 pixels: as prepared" in said and "pygan check" in said


def test_what_cannot_be_advised(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        advise(tmp_path / "nowhere")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no picture can be read; the first of 1 is broken"):
        advise(tmp_path)


@pytest.mark.slow
def test_the_verb(pictures: Path) -> None:
    result = CliRunner().invoke(app, ["advise", str(pictures)])
    assert result.exit_code == 0, result.output
    assert (
        "recipe: " in result.output
        and "pictures a second were measured" in result.output
        and "pygan train" in result.output
    )
