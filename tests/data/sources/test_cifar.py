"""CIFAR archives: tiny ones of the same format, and hostile ones."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pygan.context import Context
from pygan.data.sources import cifar10, cifar100
from pygan.errors import ConfigError, DataError, MissingInput

CTX = Context(resolution=32)


def pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), np.uint8)


def cifar10_files(classes: int = 10) -> dict[str, object]:
    files: dict[str, object] = {
        f"cifar-10-batches-py/{name}": {b"data": pixels(20, seed), b"labels": [i % 10 for i in range(20)]}
        for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
    }
    files["cifar-10-batches-py/batches.meta"] = {b"label_names": [f"class {i}".encode() for i in range(classes)]}
    return files


def write_archive(path: Path, files: dict[str, object], protocol: int = 2) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar10(tmp_path, protocol):
    files = cifar10_files()
    collection = cifar10.Spec(path=write_archive(tmp_path / "a.tar.gz", files, protocol)).build(CTX)
    assert collection.class_names == tuple(f"class {i}" for i in range(10))
    test = collection.splits["test"]
    expected = files["cifar-10-batches-py/test_batch"][b"data"].reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(np.stack([picture.load() for picture, _ in test]), expected)
    assert [c for _, c in test] == [i % 10 for i in range(20)]
    # 100 training pictures, each with probability 0.1 in validation: standard deviation 3
    assert len(collection.splits["train"]) + len(collection.splits["validation"]) == 100
    assert 0 < len(collection.splits["validation"]) < 10 + 4 * 3


def test_extracted_folder_gives_the_same(tmp_path):
    path = write_archive(tmp_path / "a.tar.gz", cifar10_files())
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "folder", filter="data")
    first, second = (cifar10.Spec(path=p).build(CTX) for p in (path, str(tmp_path / "folder")))
    for split in first.splits:
        for (a, c), (b, d) in zip(first.splits[split], second.splits[split], strict=True):
            assert c == d and np.array_equal(a.load(), b.load())


def test_cifar100(tmp_path):
    batch = {b"data": pixels(5, 0), b"fine_labels": [0, 1, 2, 0, 1], b"coarse_labels": [0] * 5}
    names = {b"fine_label_names": [b"x", b"y", b"z"], b"coarse_label_names": [b"all"]}
    files = {"cifar-100-python/train": batch, "cifar-100-python/test": batch, "cifar-100-python/meta": names}
    collection = cifar100.Spec(path=write_archive(tmp_path / "a.tar.gz", files)).build(CTX)
    assert collection.class_names == ("x", "y", "z")
    assert [c for _, c in collection.splits["test"]] == [0, 1, 2, 0, 1]


class Hostile:
    """A pickle of this runs a command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_a_pickle_cannot_run_code(tmp_path):
    files = cifar10_files()
    files["cifar-10-batches-py/data_batch_3"] = {b"data": Hostile(tmp_path / "canary")}
    with pytest.raises(DataError, match=r"data_batch_3: not a CIFAR batch \(the global .*system is not allowed\)"):
        cifar10.Spec(path=write_archive(tmp_path / "a.tar.gz", files)).build(CTX)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": pixels(20, 0), b"labels": [0] * 19}, "19 labels for 20 pictures"),
        ({b"data": pixels(20, 0), b"labels": [0] * 19 + [10]}, "1 labels are outside 0 to 9: 10"),
        ({b"data": pixels(20, 0)}, "no key 'labels'"),
        ({b"data": pixels(20, 0)[:, :5], b"labels": [0] * 20}, "another form"),
        ({b"data": np.array([None]), b"labels": [0]}, "type object is not allowed"),
        ([1], "a list, expected a mapping"),
        (b"garbage", "not a CIFAR batch"),
        (b"", "not a CIFAR batch"),
    ],
)
def test_damaged_batches(tmp_path, change, message):
    files = {**cifar10_files(), "cifar-10-batches-py/test_batch": change}
    with pytest.raises(DataError, match=message):
        cifar10.Spec(path=write_archive(tmp_path / "a.tar.gz", files)).build(CTX)


def test_missing_files(tmp_path):
    with pytest.raises(MissingInput, match="no such archive"):
        cifar10.Spec(path=str(tmp_path / "x.tar.gz")).build(CTX)
    files = cifar10_files()
    del files["cifar-10-batches-py/data_batch_2"]
    with pytest.raises(MissingInput, match="no file data_batch_2"):
        cifar10.Spec(path=write_archive(tmp_path / "a.tar.gz", files)).build(CTX)


def test_truncated_archive(tmp_path):
    path = Path(write_archive(tmp_path / "a.tar.gz", cifar10_files()))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="not a readable tar archive"):
        cifar10.Spec(path=str(path)).build(CTX)


def test_only_32_pixels(tmp_path):
    with pytest.raises(ConfigError, match="expected 32"):
        cifar10.Spec(path="x").build(Context(resolution=64))
