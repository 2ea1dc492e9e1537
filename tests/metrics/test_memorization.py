"""Memorization: by its definitions on points of a line, on generators that copy, and on fresh real pictures."""

import json

import pytest
import torch
from torch import Tensor

from pygan.errors import DataError
from pygan.metrics.base import Training
from pygan.metrics.frechet import frechet_distance
from pygan.metrics.kid import Spec as Kid
from pygan.metrics.memorization import (
    Spec,
    authentic,
    calibrated_distance,
    difference_interval,
    lowest_by_chance,
    nearest_pairs,
    nn_ratio,
    pairs_grid,
)
from pygan.metrics.neighbors import nearest, nearest_moved

LINE = torch.tensor([[0.0], [1.0], [4.0], [10.0]])


def test_ratio_on_a_line() -> None:
    # from 0.1: 0.1 and 0.9; from 7: 3 (4 and 10); from 4: 0 and 3
    ratio = nn_ratio(nearest(torch.tensor([[0.1], [7.0], [4.0]]), LINE))
    torch.testing.assert_close(ratio, torch.tensor([1 / 9, 1.0, 0.0]).double(), rtol=1e-6, atol=1e-8)


def test_a_copy_of_a_picture_that_is_there_twice_is_memorized() -> None:
    twice = torch.cat([LINE, LINE[2:3]])
    assert nn_ratio(nearest(torch.tensor([[4.0]]), twice)).tolist() == [0]


def test_calibrated_distance_on_a_line() -> None:
    # from 2: 1 (to 1), 2 (to 0), 2 (to 4); mean 5 / 3; with alpha 0.5: 1 / (5 / 6)
    near = nearest(torch.tensor([[2.0]]), LINE, 3)
    assert calibrated_distance(near, 0.5).item() == pytest.approx(6 / 5)


def test_authentic_on_a_line() -> None:
    # the nearest others: 0 -> 1 at 1, 1 -> 0 at 1, 4 -> 1 at 3, 10 -> 4 at 6
    # 0.5 is 0.5 from 0 (spacing 1): no; 2.4 is 1.4 from 1 (spacing 1): yes; 5 is 1 from 4 (spacing 3): no;
    # 17 is 7 from 10 (spacing 6): yes
    query = torch.tensor([[0.45], [2.4], [5.0], [17.0]])
    assert authentic(nearest(query, LINE), LINE).tolist() == [False, True, False, True]


def test_the_neighbor_of_a_picture_that_is_there_twice_is_its_twin() -> None:
    twice = torch.cat([LINE, LINE[2:3]])
    assert authentic(nearest(torch.tensor([[4.2]]), twice), twice).tolist() == [True]  # spacing 0


def test_interval_of_a_difference_is_newcombe_s() -> None:
    # his example 56 of 70 against 48 of 80, table II, line (a), method 10: 0.0524 to 0.3339
    low, high = difference_interval(56, 70, 48, 80)
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def _smooth(n: int, seed: int) -> Tensor:
    """Pictures with most of their variance at large scales, uint8 `[n, 3, 16, 16]`, as natural ones have."""
    noise = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(16, 16), mode="bilinear")
    return (128 + 60 * large).clamp(0, 255).to(torch.uint8)


TRAIN, HELD_OUT, FRESH = _smooth(60, 0), _smooth(300, 1), _smooth(200, 2)


def features_of(pixels: Tensor) -> Tensor:
    return pixels.float().flatten(1)[:, ::24] / 128


def compute(gen: Tensor, **fields) -> dict:
    training = Training(
        features=features_of(TRAIN),
        index=torch.arange(60) + 100,
        pixels=TRAIN,
        gen_pixels=gen,
        real_pixels=HELD_OUT,
    )
    return Spec(**fields).build().compute(features_of(HELD_OUT), features_of(gen), training=training)


COPIES = TRAIN[torch.arange(200) % 60]
NOISE = torch.randint(-3, 4, COPIES.shape, generator=torch.Generator().manual_seed(3))
GENERATORS = {
    "fresh": FRESH,
    "copies": COPIES,
    "noisy": (COPIES.short() + NOISE).clamp(0, 255).to(torch.uint8),
    "mirrored": COPIES.flip(3),
    "moved": torch.roll(COPIES, (2, -3), (2, 3)),
}


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    return {name: compute(gen) for name, gen in GENERATORS.items()}


def test_real_pictures_do_not_differ_from_held_out_ones(found) -> None:
    for name, entry in found["fresh"].items():
        if name.startswith(("memorized", "extracted", "authentic")):
            low, high = entry["interval"]
            assert low <= 0 <= high and entry["value"] == entry["generated"] - entry["held_out"]
    assert found["fresh"]["memorized_pictures"]["held_out"] == 0
    assert found["fresh"]["training_kid"]["copying"] is False


def test_copies_are_seen_by_every_measure(found) -> None:
    entries = found["copies"]
    for name in ("memorized", "memorized_pictures", "memorized_moved", "extracted_pictures"):
        assert entries[name]["generated"] == 1 and entries[name]["interval"][0] > 0.9
    for name in ("authentic", "authentic_pictures"):
        assert entries[name]["generated"] == 0 and entries[name]["interval"][1] < 0
    assert entries["training_kid"]["copying"] is True and entries["training_kid"]["value"] < 0
    assert entries["training_fd"]["value"] < -0.9 * entries["training_fd"]["held_out"] < 0


def test_the_alarm_is_a_quantile_of_the_distance_of_random_parts() -> None:
    real = features_of(HELD_OUT[:40]).double()
    values = []
    for i in range(400):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(i))
        values.append(Kid(resamples=100).build().compute(real[order[:10]], real[order[10:]])["kid"]["value"])
    exact = torch.tensor(values).quantile(torch.tensor([0.005, 0.06])).tolist()
    assert exact[0] < lowest_by_chance(real, 10, 400, seed=0) < exact[1] < 0
    assert lowest_by_chance(real, 30, 100, seed=0) == lowest_by_chance(real, 20, 100, seed=0)  # half of them at most


def test_the_alarm_seldom_rings_for_fresh_pictures() -> None:
    kid = Kid(resamples=100).build()
    alarm = lowest_by_chance(features_of(HELD_OUT), 60, 200, seed=0)
    sets = [features_of(_smooth(300, 10 + i)).double() for i in range(40)]
    rings = [kid.compute(x[:60], x[60:])["kid"]["value"] < alarm for x in sets]
    assert sum(rings) <= 4  # one is expected


def test_a_little_noise_does_not_hide_a_copy(found) -> None:
    for name in ("memorized_pictures", "memorized_moved", "extracted_pictures"):
        assert found["noisy"][name]["generated"] == 1


@pytest.mark.parametrize("how", ["mirrored", "moved"])
def test_moved_copies_are_seen_by_the_search_alone(found, how) -> None:
    assert found[how]["memorized_pictures"]["generated"] < 0.1
    assert found[how]["memorized_moved"]["generated"] == 1
    assert found[how]["memorized_moved"]["held_out"] < 0.05


def test_shares_by_definition(found) -> None:
    gen, train = (pixels.float() / 127.5 - 1 for pixels in (FRESH, TRAIN))
    near = nearest(gen, train, 50)
    entries = found["fresh"]
    assert entries["memorized_pictures"]["generated"] == float((nn_ratio(near) < 1 / 3).double().mean())
    assert entries["extracted_pictures"]["generated"] == float((calibrated_distance(near) < 0.5).double().mean())
    assert entries["authentic_pictures"]["generated"] == float(authentic(near, train).double().mean())
    ratio = nn_ratio(nearest(features_of(FRESH), features_of(TRAIN)))
    assert entries["memorized"]["generated"] == float((ratio < 1 / 3).double().mean())


def test_distances_to_the_training_pictures_by_definition(found) -> None:
    entries, train, gen = found["fresh"], features_of(TRAIN).double(), features_of(FRESH).double()
    assert entries["training_kid"]["value"] == Kid().build().compute(train, gen)["kid"]["value"]
    fd = entries["training_fd"]
    assert fd["generated"] == pytest.approx(frechet_distance(train, gen), rel=1e-9)
    assert fd["value"] == fd["generated"] - fd["held_out"]
    # 200 fresh and 200 held-out pictures of one distribution: both distances are nearly all bias, of the same size
    assert abs(fd["value"]) < 0.2 * fd["held_out"]


def test_larger_pictures_are_averaged_first() -> None:
    """Every pixel four times, in a picture of twice the side, changes nothing."""

    def large(pixels: Tensor) -> Tensor:
        return pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def measured(pixels: tuple[Tensor, ...], **fields: int) -> dict:
        train, gen, real = pixels
        given = {"pixels": train, "gen_pixels": gen, "real_pixels": real}
        training = Training(features=features_of(TRAIN), index=torch.arange(60), **given)
        found = Spec(**fields).build().compute(features_of(HELD_OUT), features_of(FRESH), training=training)
        return {name: entry["generated"] for name, entry in found.items() if name.endswith(("pictures", "moved"))}

    small = (TRAIN, FRESH, HELD_OUT)
    expected = measured(small)
    assert measured(tuple(map(large, small)), side=16) == expected
    assert 0 < expected["authentic_pictures"] < 1


def test_pairs_are_those_with_the_smallest_ratios(found) -> None:
    entry = compute(torch.cat([FRESH[:8], TRAIN[[5]].flip(3), FRESH[8:16]]), pairs=3)["memorized_moved"]
    pairs = entry["pairs"]
    assert json.loads(json.dumps(pairs)) == pairs and len(pairs) == 3
    assert (pairs[0]["generated"], pairs[0]["training"], pairs[0]["flipped"]) == (8, 105, True)
    assert pairs[0]["ratio"] < 1 / 3 < pairs[1]["ratio"] < pairs[2]["ratio"]
    moved = nearest_moved(FRESH.float() / 127.5 - 1, TRAIN.float() / 127.5 - 1)
    smallest = nearest_pairs(moved, 4)
    assert [pair["ratio"] for pair in smallest] == nn_ratio(moved).sort().values[:4].tolist()


def test_the_grid_has_every_generated_picture_above_its_training_picture() -> None:
    gen = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    train = gen + 100
    pairs = [{"generated": i, "training": j} for i, j in ((3, 0), (1, 1), (0, 2))]
    assert pairs_grid(gen, train, pairs, columns=2).flatten().tolist() == [3, 1, 100, 101, 0, 255, 102, 255]


def test_without_pixels_there_are_features_alone() -> None:
    training = Training(features=features_of(TRAIN), index=torch.arange(60))
    entries = Spec().build().compute(features_of(HELD_OUT), features_of(FRESH), training=training)
    assert list(entries) == ["memorized", "authentic", "training_kid", "training_fd"]
    with pytest.raises(DataError, match="got 2 training pictures, expected at least 3"):
        few = Training(features=features_of(TRAIN[:2]), index=torch.arange(2))
        Spec().build().compute(features_of(HELD_OUT), features_of(FRESH), training=few)


def test_names_are_those_that_are_computed(found) -> None:
    assert set(Spec.names) == set(found["fresh"])


def test_the_protocol_does_not_name_the_number_of_training_pictures(found) -> None:
    """Runs on 60 and on 600 pictures share a column, because what is held out takes the difference away."""
    assert all("60" not in entry["protocol"] for entry in found["fresh"].values())
