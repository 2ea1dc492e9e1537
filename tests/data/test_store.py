"""The store gives back what was written, in any process, or says that it can't."""

import multiprocessing
import pickle
import resource
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pygan.data import store as store_module
from pygan.data.lmdb_file import seal
from pygan.data.pictures import ArrayPicture
from pygan.data.store import Store, write_store
from pygan.errors import CannotWrite, ConfigError, DataError, MissingInput


def pixels_of(items) -> np.ndarray:
    return np.stack([picture.load() for picture, _ in items])


@pytest.fixture
def written(tmp_path, make_items):
    """A store of 40 pictures and its items."""
    items = make_items(40)
    write_store(tmp_path / "a.lmdb", items, resolution=8)
    return tmp_path / "a.lmdb", items


@pytest.mark.parametrize("codec", ["raw", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_codecs_give_back_the_pixels(tmp_path, make_items, codec, channels):
    items = make_items(50, channels=channels)
    write_store(tmp_path / "a.lmdb", items, resolution=8, channels=channels, codec=codec)
    store = Store(tmp_path / "a.lmdb")
    assert (len(store), store.resolution, store.channels, store.codec) == (50, 8, channels, codec)
    assert store.labels.tolist() == [label for _, label in items]
    indices = np.random.default_rng(1).integers(0, 50, 120)
    batch = store.read(indices)
    assert batch.dtype == np.uint8 and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, pixels_of(items)[indices])


def test_jpeg_is_close_and_the_digest_is_of_what_is_read(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8), (3, 32, 32))
    written = write_store(tmp_path / "a.lmdb", [(ArrayPicture("ramp", ramp), 0)], resolution=32, codec="jpeg")
    read = Store(tmp_path / "a.lmdb").read([0])[0]
    assert np.abs(read.astype(int) - ramp).mean() < 3
    assert written.digests[0] == store_module.hashlib.sha256(np.ascontiguousarray(read).tobytes()).digest()


def test_no_index_is_an_empty_batch(written):
    assert Store(written[0]).read([]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("index", [-1, 40])
def test_index_outside(written, index):
    with pytest.raises(IndexError, match="expected 0 to 39"):
        Store(written[0]).read([index])


def test_content_does_not_depend_on_the_number_of_workers(tmp_path, make_items, monkeypatch):
    monkeypatch.setattr(store_module, "_CHUNK_BYTES", 192 * 10)
    items = make_items(95)
    first, second = (write_store(tmp_path / f"{n}.lmdb", items, resolution=8, codec="png", workers=n) for n in (1, 3))
    assert first.sha256 == second.sha256
    assert (tmp_path / "1.lmdb").read_bytes() == (tmp_path / "3.lmdb").read_bytes()


def test_digest_covers_order_labels_and_pixels(tmp_path, make_items):
    items = make_items(6)
    relabeled = [(items[0][0], 5), *items[1:]]
    variants = [items, items[::-1], relabeled, make_items(6, seed=1)]
    digests = {write_store(tmp_path / "a.lmdb", variant, resolution=8).sha256 for variant in variants}
    assert len(digests) == len(variants)


def test_a_full_map_grows(tmp_path, make_items, monkeypatch):
    monkeypatch.setattr(store_module, "_INITIAL_MAP", 1 << 16)
    items = make_items(100, resolution=32)
    write_store(tmp_path / "a.lmdb", items, resolution=32)
    assert (tmp_path / "a.lmdb").stat().st_size > 4 * (1 << 16)
    np.testing.assert_array_equal(Store(tmp_path / "a.lmdb").read(range(100)), pixels_of(items))


class Unreadable:
    """A picture that can't be loaded."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> np.ndarray:
        raise DataError("broken")


def test_unreadable_pictures_are_refused_with_the_first_and_the_count(tmp_path, make_items):
    items = [*make_items(5), (Unreadable("x.png"), 0), (Unreadable("y.png"), 0)]
    with pytest.raises(DataError, match=r"^2 of 7 pictures can't be used, the first is x.png: broken$"):
        write_store(tmp_path / "a.lmdb", items, resolution=8)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_pictures_are_left_out_when_asked(tmp_path, make_items):
    good = make_items(5)
    items = [good[0], (Unreadable("x.png"), 2), *good[1:]]
    result = write_store(tmp_path / "a.lmdb", items, resolution=8, skip_bad=True)
    assert result.rejected == [("x.png", "broken")]
    np.testing.assert_array_equal(Store(tmp_path / "a.lmdb").read(range(5)), pixels_of(good))


def test_wrong_shape_is_a_bug_of_the_source(tmp_path, make_items):
    with pytest.raises(ValueError, match="expected uint8"):
        write_store(tmp_path / "a.lmdb", make_items(2, resolution=9), resolution=8)
    assert list(tmp_path.iterdir()) == []


def _write_with_a_small_file_limit(path: Path, items, results) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        write_store(path, items, resolution=32)
    except CannotWrite as error:
        results.put(str(error))


def test_a_full_disk_leaves_nothing(tmp_path, make_items):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (tmp_path / "a.lmdb", make_items(100, resolution=32), results)
    process = context.Process(target=_write_with_a_small_file_limit, args=arguments)
    process.start()
    assert "a.lmdb: cannot be written" in results.get(timeout=60)
    process.join(60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, make_items):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot be written"):
        write_store(tmp_path / "file" / "a.lmdb", make_items(1), resolution=8)


def _report_sums(store: Store, results) -> None:
    results.put((store.labels.tolist(), store.read(np.arange(len(store))[::-1]).sum(axis=(1, 2, 3)).tolist()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(written, method):
    path, items = written
    store = Store(path)
    store.read([3])
    context = multiprocessing.get_context(method)
    results = context.Queue()
    processes = [context.Process(target=_report_sums, args=(store, results)) for _ in range(2)]
    for process in processes:
        process.start()
    expected = (store.labels.tolist(), pixels_of(items)[::-1].sum(axis=(1, 2, 3)).tolist())
    assert [results.get(timeout=60) for _ in processes] == [expected, expected]
    for process in processes:
        process.join(60)
    np.testing.assert_array_equal(store.read([3]), pixels_of(items)[[3]])


def test_two_stores_of_one_file_and_a_pickled_one(written):
    path, items = written
    stores = [Store(path), Store(path)]
    stores.append(pickle.loads(pickle.dumps(stores[0])))
    for store in stores:
        np.testing.assert_array_equal(store.read([7, 7]), pixels_of(items)[[7, 7]])


def test_missing_file(tmp_path):
    with pytest.raises(MissingInput, match="no such store"):
        Store(tmp_path / "a.lmdb")


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"<html></html>" * 1000])
def test_no_store_at_all(tmp_path, content):
    (tmp_path / "a.lmdb").write_bytes(content)
    with pytest.raises(DataError, match="truncated or no store"):
        Store(tmp_path / "a.lmdb")


def test_an_lmdb_file_of_someone_else(tmp_path):
    environment = lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, lock=False)
    with environment, environment.begin(write=True) as transaction:
        transaction.put(b"a", b"b")
    with pytest.raises(DataError, match="truncated or no store"):
        Store(tmp_path / "a.lmdb")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Bytes of a store whose records are large values (32 px) and small ones (8 px), with their pixels."""
    stores = []
    for resolution in (8, 32):
        pixels = np.random.default_rng(0).integers(0, 256, (30, 3, resolution, resolution), np.uint8)
        path = tmp_path_factory.mktemp("reference") / "a.lmdb"
        items = [(ArrayPicture(str(i), picture), i % 4) for i, picture in enumerate(pixels)]
        write_store(path, items, resolution=resolution)
        stores.append((path.read_bytes(), pixels))
    return stores


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_truncation_is_noticed(tmp_path, reference, data):
    content, _ = data.draw(st.sampled_from(reference))
    path = tmp_path / "cut.lmdb"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DataError):
        Store(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_is_noticed_or_harmless(tmp_path, reference, data):
    content, pixels = data.draw(st.sampled_from(reference))
    position = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped.lmdb"
    path.unlink(missing_ok=True)
    path.write_bytes(damaged)
    try:
        store = Store(path)
        read = store.read(range(len(store)))
    except DataError:
        return
    np.testing.assert_array_equal(read, pixels)
    assert store.labels.tolist() == [i % 4 for i in range(30)]


def test_a_flipped_pixel_is_noticed_at_the_first_read_and_listed(tmp_path, reference):
    content, pixels = reference[1]
    damaged = bytearray(content)
    damaged[content.index(pixels[17].tobytes()) + 1000] ^= 1
    path = tmp_path / "flipped.lmdb"
    path.write_bytes(damaged)
    store = Store(path)
    np.testing.assert_array_equal(store.read([16, 18]), pixels[[16, 18]])
    with pytest.raises(DataError, match="picture 17"):
        store.read([16, 17])
    assert store.damaged() == [17]


def test_a_record_in_anothers_place_is_noticed(tmp_path, reference):
    content, pixels = reference[1]
    damaged = bytearray(content)
    at = [content.index(pixels[i].tobytes()) - 4 for i in (3, 9)]
    records = [content[start : start + 4 + pixels[0].size] for start in at]
    for start, record in zip(at, reversed(records), strict=True):
        damaged[start : start + len(record)] = record
    path = tmp_path / "swapped.lmdb"
    path.write_bytes(damaged)
    assert Store(path).damaged() == [3, 9]


def test_a_rewritten_file_is_read_anew(tmp_path, make_items):
    path = tmp_path / "a.lmdb"
    write_store(path, make_items(5), resolution=8)
    old = Store(path)
    old.read([0])
    write_store(tmp_path / "b.lmdb", make_items(7, seed=1), resolution=8)
    shutil.move(tmp_path / "b.lmdb", path)
    np.testing.assert_array_equal(Store(path).read(range(7)), pixels_of(make_items(7, seed=1)))


def test_another_data_format_of_lmdb_is_refused(tmp_path):
    path = tmp_path / "a.lmdb"
    with lmdb.open(str(path), subdir=False, lock=False) as environment:
        page_size, pages = environment.stat()["psize"], environment.info()["last_pgno"] + 1
    content = bytearray(path.read_bytes())
    assert content[16:24] == (0xBEEFC0DE).to_bytes(4, "little") + (1).to_bytes(4, "little")  # mm_magic, mm_version
    content[20:24] = (2).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"data format 2, expected 0xbeefc0de and 1: install a version of .* lmdb"):
        seal(path, page_size, pages)
    assert path.read_bytes() == content
