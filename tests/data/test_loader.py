"""The loader: a picture is a function of the seed and the global sample index."""

import numpy as np
import pytest
import torch

from pygan.data.loader import Loader, mirrored
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
