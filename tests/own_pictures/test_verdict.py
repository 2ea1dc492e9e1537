"""The words at the end of `pygan train`."""

import pytest

from pygan.folder_verdict import verdict

IMPROVING = {"60000": 5.0, "80000": 4.0, "100000": 2.0}
SETTLED = {"60000": 2.1, "80000": 2.0, "100000": 1.99}


def record(interval=(1.0, 2.0), copies=None) -> dict:
    real = {"kid_mobilenet_v2": {"value": 0.01, "interval": [-0.1, 0.2]}}
    ours = {"kid_mobilenet_v2": {"value": sum(interval) / 2, "interval": list(interval)}}
    return {"metrics": ours, "training_pictures": real, "copies": copies or {}, "protocol": {"n_real": 11}}


def said(scores=SETTLED, *, mirrored=False, kimg=100.0, usual_kimg=100.0, **about) -> str:
    return "\n".join(verdict(record(**about), scores, kimg=kimg, usual_kimg=usual_kimg, mirrored=mirrored))


def test_a_result_is_good_where_its_interval_reaches_that_of_the_training_pictures():
    assert "a good result: as far as 11 pictures can tell" in said(interval=(0.2, 0.5))
    assert "farther from them than the training pictures are" in said(interval=(0.21, 0.5))


@pytest.mark.parametrize(
    ("scores", "kimg", "words"),
    [
        (IMPROVING, 100.0, "still getting nearer, so train longer (the same command with --kimg 200)"),
        (SETTLED, 100.0, "no longer getting nearer, so more pictures help most, or --mirror"),
        (
            {"6000": 2.1, "8000": 2.0, "10000": 1.99},
            10.0,
            "train longer (the same command with --kimg 100), as this was shorter than the recipe's 100",
        ),
        ({"50000": -0.001, "100000": -0.00099}, 100.0, "no longer getting nearer"),
        ({"100000": 3.0}, 100.0, "train longer (the same command with --kimg 200) and compare"),
        # a run that was made longer by a little is compared with what lies a tenth of it before
        ({"60000": 1.0, "100000": 0.5, "100032": 0.5}, 100.032, "still getting nearer"),
        (IMPROVING, 12345.6789, "--kimg 24691.358"),
    ],
)
def test_what_comes_next_follows_from_the_last_snapshots(scores, kimg, words):
    assert words in said(scores, kimg=kimg)
    assert "--mirror" not in said(scores, kimg=kimg, mirrored=True)


def test_the_length_of_an_older_plan_is_not_guessed():
    words = said({"200": 3.0}, kimg=0.2, usual_kimg=None)
    assert "no longer" not in words and "train longer" in words


def test_a_record_of_an_earlier_version_has_words_too():
    older = record()
    del older["copies"]
    words = verdict(older, SETTLED, kimg=100.0, usual_kimg=None, mirrored=False)
    assert words and not any("copies" in line for line in words)


def test_copies_are_those_of_generated_pictures_and_no_good_result():
    share = {"value": 0.55, "generated": 0.9, "held_out": 0.35, "interval": [0.4, 0.7]}
    words = said(interval=(0.0, 0.1), copies={"memorized_mobilenet_v2": share})
    assert "90.0% of the pictures nearly repeat a training picture; of pictures that" in words and "35.0% do" in words
    assert "good result" not in words


@pytest.mark.parametrize(
    "copies",
    [
        {"memorized_mobilenet_v2": {"value": 0.25, "generated": 0.3, "held_out": 0.05, "interval": [0.01, 0.4]}},
        {"training_kid_mobilenet_v2": {"copying": True}},
    ],
)
def test_copies_are_said_and_advise_against_a_longer_training(copies):
    words = said(IMPROVING, copies=copies)
    assert "beware of copies" in words and "a longer training would copy more" in words
    harmless = {"memorized_mobilenet_v2": {"value": 0.1, "interval": [-0.1, 0.2]}}
    assert "copies" not in said(copies=harmless | {"training_kid_mobilenet_v2": {"copying": False}})
