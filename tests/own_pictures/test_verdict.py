"""The words at the end of `pygan train`."""

import pytest

from pygan.folder_verdict import verdict

IMPROVING, SETTLED = {"10": 5.0, "20": 4.0, "30": 2.0}, {"10": 2.1, "20": 2.0, "30": 1.99}


def record(interval=(1.0, 2.0), copies=None) -> dict:
    real = {"kid_mobilenet_v2": {"value": 0.01, "interval": [-0.1, 0.2]}}
    ours = {"kid_mobilenet_v2": {"value": sum(interval) / 2, "interval": list(interval)}}
    return {"metrics": ours, "training_pictures": real, "copies": copies or {}, "protocol": {"n_real": 11}}


def said(scores=SETTLED, *, mirrored=False, kimg=100.0, **about) -> str:
    return "\n".join(verdict(record(**about), scores, kimg=kimg, usual_kimg=100.0, mirrored=mirrored))


def test_a_result_is_good_where_its_interval_reaches_that_of_the_training_pictures():
    assert "a good result: as far as 11 pictures can tell" in said(interval=(0.2, 0.5))
    assert "farther from them than the training pictures are" in said(interval=(0.21, 0.5))


@pytest.mark.parametrize(
    ("scores", "kimg", "words"),
    [
        (IMPROVING, 100.0, "still getting nearer, so train longer (the same command with --kimg 200)"),
        (SETTLED, 100.0, "no longer getting nearer, so more pictures help most, or --mirror"),
        (SETTLED, 10.0, "train longer (the same command with --kimg 100), as this was shorter than the recipe's 100"),
        ({"10": -0.001, "20": -0.00099}, 100.0, "no longer getting nearer"),
        ({"10": 3.0}, 100.0, "no longer getting nearer"),
    ],
)
def test_what_comes_next_follows_from_the_last_snapshots(scores, kimg, words):
    assert words in said(scores, kimg=kimg)
    assert "--mirror" not in said(scores, kimg=kimg, mirrored=True)


@pytest.mark.parametrize(
    "copies",
    [
        {"memorized_mobilenet_v2": {"value": 0.25, "interval": [0.01, 0.4]}},
        {"training_kid_mobilenet_v2": {"copying": True}},
    ],
)
def test_copies_are_said_and_advise_against_a_longer_training(copies):
    words = said(IMPROVING, copies=copies)
    assert "beware of copies" in words and "a longer training would copy more" in words
    harmless = {"memorized_mobilenet_v2": {"value": 0.1, "interval": [-0.1, 0.2]}}
    assert "copies" not in said(copies=harmless | {"training_kid_mobilenet_v2": {"copying": False}})
