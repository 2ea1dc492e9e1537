"""A prepared data set: stores, manifest and contact sheet agree."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pygan.data.manifest import open_split, read_manifest
from pygan.data.pictures import SPLITS
from pygan.data.prepare import contact_sheet, prepare
from pygan.data.sources.folder import Spec
from pygan.data.store import Store, write_store
from pygan.errors import DataError, MissingInput


def make_folder(root, names) -> Spec:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)
    return Spec(path=str(root))


NAMES = [f"{split}/{c}/{i}.png" for split, n in zip(SPLITS, (6, 3, 4), strict=True) for c in "ab" for i in range(n)]


def test_files_and_manifest(tmp_path):
    source = make_folder(tmp_path / "p", NAMES)
    (tmp_path / "p/train/b/0.png").write_bytes((tmp_path / "p/train/a/0.png").read_bytes())
    out = tmp_path / "out"
    manifest = prepare("mine", source, out, resolution=8)
    assert {path.name for path in out.iterdir()} == {
        *(f"{split}.lmdb" for split in SPLITS),
        "manifest.json",
        "contact_sheet.png",
    }
    assert manifest == json.loads((out / "manifest.json").read_text()) == read_manifest(out / "manifest.json")
    assert manifest["source"]["kind"] == "folder" and manifest["class_names"] == ["a", "b"]
    assert (manifest["duplicates"], manifest["shared_between_splits"], manifest["rejected"]) == (1, 0, [])
    for split, n in zip(SPLITS, (6, 3, 4), strict=True):
        entry, store = manifest["splits"][split], open_split(out / "manifest.json", split)
        assert (entry["n"], entry["counts"]) == (2 * n, [n, n])
        total = hashlib.sha256()
        for label, picture in zip(store.labels.tolist(), store.read(range(2 * n)), strict=True):
            total.update(label.to_bytes(8, "little") + hashlib.sha256(picture.tobytes()).digest())
        assert entry["sha256"] == total.hexdigest()


def test_pictures_that_splits_share_are_refused(tmp_path):
    source = make_folder(tmp_path / "p", NAMES)
    shutil.copy(tmp_path / "p/train/a/0.png", tmp_path / "p/test/a/0.png")
    with pytest.raises(DataError, match="mine: 1 pictures are in more than one of"):
        prepare("mine", source, tmp_path / "out", resolution=8)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_empty_split_is_refused(tmp_path):
    source = make_folder(tmp_path / "p", ["a/1.png"])
    with pytest.raises(DataError, match="has no picture"):
        prepare("mine", source, tmp_path / "out", resolution=8)


def test_bad_pictures_are_listed_when_skipped(tmp_path):
    make_folder(tmp_path / "p", NAMES)
    (tmp_path / "p/train/a/0.png").write_bytes(b"")
    manifest = prepare("mine", Spec(path=str(tmp_path / "p"), skip_bad=True), tmp_path / "out", resolution=8)
    assert manifest["rejected"] == [{"file": "train/a/0.png", "reason": "not a picture of a known format"}]
    assert manifest["splits"]["train"]["counts"] == [5, 6]


def test_what_is_left_out_is_told_before_the_data_set_is_taken_as_good(tmp_path):
    make_folder(tmp_path / "p", NAMES)
    for name in NAMES:
        (tmp_path / "p" / name).write_bytes(b"")
    source, told = Spec(path=str(tmp_path / "p"), skip_bad=True), []
    with pytest.raises(DataError, match="has no picture"):  # all are bad, and all are told
        prepare(
            "mine", source, tmp_path / "out", resolution=8, accepting=lambda rejected, counts: told.extend(rejected)
        )
    assert sorted(name for name, _ in told) == sorted(NAMES)

    def refuse(rejected, counts):
        raise DataError(f"{len(rejected)} bad, {sum(counts.values())} left")

    with pytest.raises(DataError, match=f"{len(NAMES)} bad, 0 left"):
        prepare("mine", source, tmp_path / "out", resolution=8, accepting=refuse)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_stores_of_another_data_set_are_noticed(tmp_path, make_items):
    prepare("mine", make_folder(tmp_path / "p", NAMES), tmp_path / "out", resolution=8)
    write_store(tmp_path / "out" / "test.lmdb", make_items(3), resolution=8)
    with pytest.raises(DataError, match="8 pictures of 8 px expected, 3 of 8 px found"):
        open_split(tmp_path / "out" / "manifest.json", "test")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}'])
def test_damaged_manifests(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match="manifest"):
        read_manifest(tmp_path / "manifest.json")
    with pytest.raises(MissingInput, match="prepare_data"):
        read_manifest(tmp_path / "other.json")


@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet_shows_the_classes_in_order(tmp_path, make_items, channels):
    items = make_items(90, resolution=32, channels=channels)
    for picture, label in items:
        picture.array[:] = 100 * label
    write_store(tmp_path / "a.lmdb", items, resolution=32, channels=channels)
    contact_sheet(Store(tmp_path / "a.lmdb"), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == ((640, 640) if channels == 1 else (640, 640, 3))
    cells = sheet.reshape(10, 64, 10, 64, -1)[:, 32, :, 32, 0].ravel()
    assert cells.tolist() == [0] * 34 + [100] * 33 + [200] * 33
