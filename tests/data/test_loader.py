"""The loader: a picture is a function of the seed and the global sample index."""

import numpy as np
import pytest
import torch

from pygan.data.loader import BalancedLoader, Loader, mirrored
from pygan.data.store import Store, write_store
from pygan.errors import DataError


@pytest.fixture
def store(tmp_path, make_items) -> Store:
    write_store(tmp_path / "a.lmdb", make_items(30), resolution=8)
    return Store(tmp_path / "a.lmdb")


def test_an_epoch_visits_each_chosen_picture_once(store):
    chosen = np.arange(5, 25)
    loader = Loader(store, chosen, seed=1)
    assert len(loader) == 20
    for epoch in (0, 3):
        img, c = loader(torch.arange(20) + 20 * epoch)
        assert img.dtype == torch.uint8 and img.shape == (20, 3, 8, 8) and c.dtype == torch.int64
        visited = {picture.tobytes() for picture in img.numpy()}
        assert visited == {picture.tobytes() for picture in store.read(chosen)}
        assert sorted(c.tolist()) == sorted(store.labels[chosen].tolist())


def test_pictures_do_not_depend_on_how_they_are_asked_for(store):
    together, labels = Loader(store, np.arange(30), seed=1)(torch.arange(100))
    loader = Loader(store, np.arange(30), seed=1)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    for part in order.split(7):
        img, c = loader(part)
        assert torch.equal(img, together[part]) and torch.equal(c, labels[part])


def test_seeds_and_epochs_differ(store):
    img = Loader(store, np.arange(30), seed=1)(torch.arange(60))[0]
    assert not torch.equal(img[:30], img[30:])
    assert not torch.equal(img[:30], Loader(store, np.arange(30), seed=2)(torch.arange(30))[0])


def test_nothing_to_train_on(store):
    with pytest.raises(DataError, match="no picture"):
        Loader(store, np.arange(0), seed=0)


def test_half_of_the_pictures_are_mirrored_whoever_asks(store):
    index = torch.arange(600)
    plain, labels = (loader := Loader(store, np.arange(30), seed=1))(index)
    img, c = mirrored(loader, 1)(index)
    assert torch.equal(c, labels) and img.dtype == torch.uint8
    flipped = (img == plain.flip(3)).flatten(1).all(1)
    assert torch.equal(img[~flipped], plain[~flipped])
    assert abs(flipped.sum() - 300) < 4 * (600 / 4) ** 0.5
    for part in torch.randperm(600, generator=torch.Generator().manual_seed(0)).split(7):
        assert torch.equal(mirrored(loader, 1)(part)[0], img[part])
    assert not torch.equal(mirrored(loader, 2)(index)[0], img)


LABELS = [0] * 20 + [1] * 7 + [3] * 3


@pytest.fixture
def tailed(tmp_path, make_items) -> Store:
    items = [(picture, label) for (picture, _), label in zip(make_items(30), LABELS, strict=True)]
    write_store(tmp_path / "tailed.lmdb", items, resolution=8)
    return Store(tmp_path / "tailed.lmdb")


def test_balanced_gives_every_class_a_turn_in_every_round(tailed):
    loader = BalancedLoader(tailed, np.arange(30), seed=1)
    _, c = loader(torch.arange(60))
    rounds = c.view(20, 3)
    assert (rounds.sort(1).values == torch.tensor([0, 1, 3])).all()
    assert len({tuple(order) for order in rounds.tolist()}) > 1


def test_balanced_walks_through_each_class_in_epochs_of_its_own(tailed):
    """After 21 turns the class of 7 has shown each picture three times, that of 3 seven times."""
    img, c = BalancedLoader(tailed, np.arange(30), seed=1)(torch.arange(3 * 21))
    for label, size in ((1, 7), (3, 3)):
        shown = [picture.tobytes() for picture in img[c == label].numpy()]
        own = {picture.tobytes() for picture in tailed.read(np.flatnonzero(tailed.labels == label))}
        assert len(own) == size
        for start in range(0, 21, size):
            assert set(shown[start : start + size]) == own
    assert len(set(picture.tobytes() for picture in img[c == 0][:20].numpy())) == 20


def test_balanced_pictures_do_not_depend_on_how_they_are_asked_for(tailed):
    together, labels = BalancedLoader(tailed, np.arange(30), seed=1)(torch.arange(100))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    loader = BalancedLoader(tailed, np.arange(30), seed=1)
    for part in order.split(7):
        img, c = loader(part)
        assert torch.equal(img, together[part]) and torch.equal(c, labels[part])
    assert not torch.equal(together, BalancedLoader(tailed, np.arange(30), seed=2)(torch.arange(100))[0])


def test_balanced_keeps_to_the_subset(tailed):
    chosen = np.array([0, 3, 22, 29])
    img, c = BalancedLoader(tailed, chosen, seed=0)(torch.arange(30))
    assert torch.bincount(c).tolist() == [10, 10, 0, 10]
    assert {p.tobytes() for p in img.numpy()} == {p.tobytes() for p in tailed.read(chosen)}
