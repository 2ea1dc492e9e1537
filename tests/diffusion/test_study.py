"""Sets that share no picture, and the exact denoisers of satellite pictures."""

import numpy as np
import pytest
import torch

from pygan.context import Context
from pygan.data.sources.earthcover import Spec as EarthCover
from pygan.diffusion.study import DiffusionSpec, ExactSpec, divide, exact_study
from pygan.errors import ConfigError, MissingInput
from pygan.metrics.memorization import RATIO, nn_ratio
from pygan.metrics.neighbors import nearest

SETTINGS = DiffusionSpec(samples=8, calibration=10, components=4)


def test_sets_are_disjoint_and_the_others_no_more_than_trained_on() -> None:
    pictures = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 1, 2, 2)
    for n, others in ((5, 5), (30, 12)):
        real = divide(pictures, n, SETTINGS, "key")
        sets = (real.train, real.held_out, real.calibration, real.other)
        assert [len(x) for x in sets] == [n, 8, 10, others]
        values = torch.cat(sets)[:, 0, 0, 0]
        assert len(values.unique()) == len(values)
        assert torch.equal(real.train[:, 0, 0, 0], torch.arange(n) / 127.5 - 1)


def test_too_few_pictures_name_the_key() -> None:
    pictures = torch.zeros(24, 1, 2, 2, dtype=torch.uint8)
    assert len(divide(pictures, 4, SETTINGS, "key").other) == 2
    with pytest.raises(ConfigError, match=r"^runs\.a\.subset: got 5 training pictures of 24, expected 20 more"):
        divide(pictures, 5, SETTINGS, "runs.a.subset")


@pytest.mark.slow
def test_the_optimum_of_satellite_pictures_returns_them_and_the_gaussian_does_not() -> None:
    """The experiment behind the claim that sampling the empirical optimum, with fresh noise or without, copies."""
    try:
        splits = EarthCover().build(Context(resolution=16)).splits
    except MissingInput as error:
        pytest.skip(str(error))
    items = [item for split in splits.values() for item in split]
    pool = torch.from_numpy(np.stack([picture.load() for picture, _ in items[:700]]))
    settings = DiffusionSpec(
        samples=32, calibration=100, components=16, sigmas=(0.3, 3.0), exact=ExactSpec(dataset="x")
    )
    record, pictures = exact_study(settings, 100, pool, seed=0)
    train = pictures["train"]

    def rms(x: torch.Tensor) -> torch.Tensor:
        return nearest(x, train).distance[:, 0] / train[0].numel() ** 0.5

    def share(x: torch.Tensor) -> float:
        return float((nn_ratio(nearest(x, train)) < RATIO).double().mean())

    for name in ("optimum", "ancestral"):
        assert rms(pictures[name]).max() < 1e-3 and share(pictures[name]) == 1
    for name in ("gaussian", "held_out"):
        assert rms(pictures[name]).min() > 0.02 and share(pictures[name]) < 0.1
    proxies = {name: found["proxy"] for name, found in record["information"].items()}
    assert proxies["optimum"] > 2 * record["information"]["optimum"]["standard_error"]
    assert proxies["optimum"] > proxies["gaussian"] + 3
    low = record["profiles"]["optimum"][0]
    assert low["max_weight"] > 0.999 and low["membership"] > 0.99 and low["gap"] > 5 * low["gap_standard_error"]
    assert record["profiles"]["gaussian"][0]["from_optimum"] < record["profiles"]["gaussian"][1]["from_optimum"]
