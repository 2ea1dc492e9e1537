"""Classes of a run: counts, refusals, and the label marginals of real and generated pictures."""

import logging

import numpy as np
import pytest
import torch

from pygan.data.pictures import ArrayPicture
from pygan.data.store import Store, write_store
from pygan.draws import Draws
from pygan.errors import ConfigError, DataError
from pygan.training.assemble import assemble
from pygan.training.material import count_classes

NAMES = ("many", "some", "one")
COUNTS = (12, 5, 1)
CONFIG = {
    "seed": 0,
    "subset": None,
    "sampling": "natural",
    "mirror": False,
    "gen_labels": "natural",
    "base": {"kind": "dcgan", "z_dim": 8, "g_channels": 4, "d_channels": 4, "conditional": True},
    "loss": "hinge",
    "augment": None,
    "discriminators": [{"kind": "plain"}],
    "regularizers": [],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("data") / "train.lmdb"
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (sum(COUNTS), 3, 16, 16), dtype=np.uint8)
    labels = np.repeat(np.arange(3), COUNTS)
    items = [(ArrayPicture(f"{i}", img), int(c)) for i, (img, c) in enumerate(zip(pixels, labels, strict=True))]
    write_store(path, items, resolution=16)
    return Store(path)


def assembled(store: Store, names: tuple[str, ...] = NAMES, **fields):
    device = torch.device("cpu")
    return assemble(CONFIG | fields, store=store, held_out=store, class_names=names, device=device)[0]


def shares(labels: torch.Tensor) -> list[float]:
    return (torch.bincount(labels, minlength=3) / len(labels)).tolist()


def test_marginals_of_generated_pictures(store):
    """18,000 draws: the standard error of a share is at most 0.004."""
    draws = {name: Draws(0, "c", torch.arange(18_000)) for name in ("natural", "uniform")}
    natural, uniform = (assembled(store, gen_labels=name).gen_labels(draws[name]) for name in draws)
    assert shares(natural) == pytest.approx([n / 18 for n in COUNTS], abs=0.016)
    assert shares(uniform) == pytest.approx([1 / 3] * 3, abs=0.016)


def test_marginals_of_real_pictures(store):
    natural, balanced = (assembled(store, sampling=name).batch(torch.arange(18))[1] for name in ("natural", "balanced"))
    assert torch.bincount(natural).tolist() == [12, 5, 1]
    assert torch.bincount(balanced).tolist() == [6, 6, 6]
    held_out = assembled(store, sampling="balanced").held_out(torch.arange(18))[1]
    assert torch.bincount(held_out).tolist() == [12, 5, 1]


def test_snapshots_know_the_names_of_their_classes(store):
    assert assembled(store).metadata(40)["class_names"] == list(NAMES)
    base = CONFIG["base"] | {"conditional": False}
    assert "class_names" not in assembled(store, base=base).metadata(40)


def test_a_class_with_one_picture_works_with_a_warning(store, caplog):
    term = {"kind": "group_spectral", "beta": 0.5}
    with caplog.at_level(logging.WARNING):
        run = assembled(store, regularizers=[term])
    assert "the class 'one' has one training picture" in caplog.text and caplog.text.count("one training") == 1
    weights = run.regularizers[0].weights
    assert weights[2] > weights[1] > weights[0]


def test_what_classes_cannot_be_is_refused_in_a_sentence(store):
    with pytest.raises(DataError, match="class 'none' has no training picture"):
        assembled(store, names=(*NAMES, "none"))
    with pytest.raises(DataError, match="2 classes, but a picture with the label 2"):
        assembled(store, names=NAMES[:2])
    with pytest.raises(DataError, match="one class 'all', expected at least two"):
        count_classes(torch.zeros(3, dtype=torch.int64), ("all",))


def test_terms_by_class_are_refused_without_classes(store):
    base = CONFIG["base"] | {"conditional": False}
    for kind in ("group_spectral", "class_affine_l2", "class_affine_spectral"):
        with pytest.raises(ConfigError, match="needs labels, but the generator is unconditional"):
            assembled(store, base=base, regularizers=[{"kind": kind}])


def test_terms_by_class_are_attached_to_the_generator(store):
    run = assembled(store, regularizers=[{"kind": "group_spectral"}])
    assert {f"max/{c}" for c in range(3)} <= run.regularizers[0].numbers().keys()
    assert {"vectors.u", "vectors.v", "vectors.started"} == run.regularizers[0].state_dict().keys()
