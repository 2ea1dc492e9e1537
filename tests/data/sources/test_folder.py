"""Folders and zips of pictures: classes, labels, splits, and the sentences about what can't be used."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pygan.context import Context
from pygan.data.sources.folder import Spec, survey
from pygan.data.store import write_store
from pygan.errors import DataError, MissingInput

CTX = Context(resolution=8)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def make(root: Path, names) -> str:
    """Write a folder with a different picture under each name."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i))
    return str(root)


def dealt(collection) -> dict[str, list[str]]:
    return {split: [picture.name for picture, _ in items] for split, items in collection.splits.items()}


def labels_of(collection) -> dict[str, str]:
    return {p.name: collection.class_names[c] for items in collection.splits.values() for p, c in items}


def test_class_per_sub_folder(tmp_path):
    names = ["cat/1.png", "cat/deep/2.png", "dog/1.PNG", "dog/.hidden.png", "dog/notes.txt"]
    collection = Spec(path=make(tmp_path, names)).build(CTX)
    assert collection.class_names == ("cat", "dog")
    assert labels_of(collection) == {"cat/1.png": "cat", "cat/deep/2.png": "cat", "dog/1.PNG": "dog"}


def test_flat_folder_is_one_class(tmp_path):
    assert Spec(path=make(tmp_path, ["a.png", "b.png"])).build(CTX).class_names == ("pictures",)


def test_zip_and_folder_give_the_same(tmp_path):
    names = [f"{c}/{i}.png" for c in "ab" for i in range(20)]
    folder = make(tmp_path / "folder", names)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in reversed(names):
            archive.write(Path(folder, name), name)
    zipped = Spec(path=str(tmp_path / "a.zip")).build(CTX)
    collection = Spec(path=folder).build(CTX)
    assert dealt(zipped) == dealt(collection)
    written = [
        write_store(tmp_path / "a.lmdb", c.splits["train"], resolution=8, workers=2).sha256
        for c in (zipped, collection)
    ]
    assert written[0] == written[1]


def test_order_is_bytewise(tmp_path):
    names = ["B.png", "a.png", "Ä.png", "-x.png", "a\nb.png"]
    collection = Spec(path=make(tmp_path, names), validation=0, test=0).build(CTX)
    assert dealt(collection)["train"] == ["-x.png", "B.png", "a\nb.png", "a.png", "Ä.png"]


def test_shares_and_copies(tmp_path):
    make(tmp_path, [f"x/{i}.png" for i in range(400)])
    for i in range(400):
        (tmp_path / "x" / f"copy {i}.png").write_bytes((tmp_path / "x" / f"{i}.png").read_bytes())
    splits = dealt(Spec(path=str(tmp_path), validation=0.25, test=0.25).build(CTX))
    for names in splits.values():
        originals = {name.removeprefix("x/") for name in names if "copy" not in name}
        assert {name.removeprefix("x/copy ") for name in names if "copy" in name} == originals
    # binomial with n = 400, p = 1/4: standard deviation 8.7
    assert all(abs(len(splits[name]) / 2 - 100) < 4 * 8.7 for name in ("validation", "test"))


def test_own_splits(tmp_path):
    names = [f"{split}/{c}/{i}.png" for split in ("train", "test") for c in "ab" for i in range(30)]
    collection = Spec(path=make(tmp_path, names)).build(CTX)
    splits = dealt(collection)
    assert collection.class_names == ("a", "b") and collection.refuse_shared
    assert splits["test"] == sorted(name for name in names if name.startswith("test"))
    assert splits["validation"] and all(name.startswith("train") for name in splits["validation"] + splits["train"])


def test_labels_from_csv_and_json(tmp_path):
    folder = make(tmp_path / "p", ["a.png", "b.png", "c.png"])
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nc.png,red\na.png,blue\nb.png,red\n")
    expected = {"a.png": "blue", "b.png": "red", "c.png": "red"}
    assert labels_of(Spec(path=folder, labels=str(table)).build(CTX)) == expected
    for content in ({"a.png": 0, "b.png": 1, "c.png": 1}, {"labels": [["a.png", 0], ["b.png", 1], ["c.png", 1]]}):
        (tmp_path / "labels.json").write_text(json.dumps(content))
        collection = Spec(path=folder, labels=str(tmp_path / "labels.json")).build(CTX)
        assert labels_of(collection) == {"a.png": "0", "b.png": "1", "c.png": "1"}
    table.write_text("file,label\na.png,10\nb.png,x\nc.png,9\n")
    assert Spec(path=folder, labels=str(table)).build(CTX).class_names == ("10", "9", "x")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a.png": 0}, r"2 of 3 pictures have no label: b.png, c.png"),
        ({"a.png": 0, "b.png": 0, "c.png": 0, "d.png": 0}, r"1 of 4 labels name no picture: d.png"),
        ({"a.png": 0, "b.png": -1, "c.png": 1}, r"1 labels are negative: b.png: -1"),
        ({"a.png": 0, "b.png": 3, "c.png": 1}, r"go up to 3, but no picture has the label 2"),
        ({"a.png": 0, "b.png": 0.5, "c.png": 1}, r"neither all whole numbers nor all names"),
        ([["a.png", 0], ["a.png", 1], ["b.png", 0], ["c.png", 0]], r"a.png are listed more than once"),
        ([1, 2], r"expected json of the form"),
    ],
)
def test_labels_that_do_not_match(tmp_path, rows, message):
    folder = make(tmp_path / "p", ["a.png", "b.png", "c.png"])
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        Spec(path=folder, labels=str(tmp_path / "labels.json")).build(CTX)


def test_only_the_first_offenders_are_named(tmp_path):
    folder = make(tmp_path / "p", [f"{i:03}.png" for i in range(100)])
    (tmp_path / "labels.csv").write_text("file,label\n000.png,0\n")
    with pytest.raises(DataError, match=r"99 of 100 .*: 001.png, .*010.png and 89 more$"):
        Spec(path=folder, labels=str(tmp_path / "labels.csv")).build(CTX)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no picture was found"),
        (["a/1.png", "2.png"], "2.png lie beside the class folders"),
        (["train/1.png", "extra/2.png"], "extra/2.png lie outside of the folders train"),
        (["train/a/1.png", "test/b/2.png"], "b are classes without a picture in train"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        Spec(path=make(tmp_path, names)).build(CTX)


def test_unreadable_pictures_reach_the_writer_as_reasons(tmp_path):
    make(tmp_path / "p", ["a.png", "b.png", "c.png"])
    (tmp_path / "p" / "b.png").write_bytes(b"<html></html>")
    collection = Spec(path=str(tmp_path / "p"), validation=0, test=0).build(CTX)
    with pytest.raises(DataError, match=r"1 of 3 .* b.png: not a picture"):
        write_store(tmp_path / "a.lmdb", collection.splits["train"], resolution=8)


def test_missing(tmp_path):
    with pytest.raises(MissingInput, match="no such folder or zip"):
        Spec(path=str(tmp_path / "x")).build(CTX)
    with pytest.raises(MissingInput, match="no such file"):
        Spec(path=make(tmp_path, ["a.png"]), labels=str(tmp_path / "x.csv")).build(CTX)


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="neither a folder nor a readable zip"):
        Spec(path=str(tmp_path / "a.zip")).build(CTX)


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/../../x.png"])
def test_members_outside_of_the_archive_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), picture(0))
    with pytest.raises(DataError, match="points outside of the archive"):
        Spec(path=str(tmp_path / "a.zip")).build(CTX)


def test_a_zip_bomb_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("pygan.data.sources.folder._MAX_FILE", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1001))
    collection = Spec(path=str(tmp_path / "a.zip"), validation=0, test=0).build(CTX)
    with pytest.raises(DataError, match="1001 bytes unpacked"):
        write_store(tmp_path / "a.lmdb", collection.splits["train"], resolution=8)


def test_a_survey_reads_names_and_headers(tmp_path):
    """Of ten pictures at most five are opened, every second one: the broken first one, and four of 8 pixels."""
    folder = Path(make(tmp_path / "p", [*(f"c/{i}.png" for i in range(10)), ".hidden.png", "__MACOSX/x.png", "a.cr2"]))
    (folder / "c/0.png").write_bytes(b"broken")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    for path in (folder, tmp_path / "a.zip"):
        found = survey(str(path), at_most=5)
        assert (found.n, found.sizes, found.others) == (10, [(8, 8)] * 4, ["a.cr2"])
    with pytest.raises(MissingInput):
        survey(str(tmp_path / "none"))
