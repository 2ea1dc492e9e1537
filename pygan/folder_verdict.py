"""What the measurements of `pygan train` mean in words, and what to try next."""

import math
from collections.abc import Mapping
from typing import Any

_STILL_BETTER = 0.05
"""Part of the distance of the best earlier snapshot by which a recent one is nearer where training still helps."""


def verdict(
    record: Mapping[str, Any], scores: Mapping[str, float], *, kimg: float, usual_kimg: float | None, mirrored: bool
) -> list[str]:
    """Return sentences about a result: is it good, does it copy, and what to do next.

    Args:
        record: the content of `metrics.json`; that of an earlier version does not count copies.
        scores: image count -> distance to the validation pictures of every snapshot that competed.
        kimg: thousand pictures that were shown in all.
        usual_kimg: as many as the recipe shows; None: a plan of an earlier version does not say.
        mirrored: whether training pictures were mirrored.
    """
    copied = _copied(record.get("copies", {}))
    improving = _improving({int(nimg): score for nimg, score in scores.items()}, 1000 * kimg)
    longer = f"the same command with --kimg {_round_up(max(2 * kimg, usual_kimg or 0))}"
    mirror = "" if mirrored else ", or --mirror with a new --out where flipped pictures are right"
    if copied:
        return [_farther(record), copied, f"next: more pictures{mirror}; a longer training would copy more"]
    lines = [_distance(record)]
    if improving:
        lines.append(f"next: it was still getting nearer, so train longer ({longer})")
    elif usual_kimg is not None and kimg < usual_kimg:
        lines.append(
            f"next: train longer ({longer}), as this was shorter than the recipe's {usual_kimg:g} thousand pictures"
        )
    elif improving is None:
        lines.append(f"next: train longer ({longer}) and compare, or give it more pictures{mirror}")
    else:
        lines.append(f"next: it was no longer getting nearer, so more pictures help most{mirror}")
    return lines


def _round_up(kimg: float) -> str:
    """Return a number of thousands of pictures without rounding it down."""
    return f"{math.ceil(kimg * 1000) / 1000:.15g}"


def _distance(record: Mapping[str, Any]) -> str:
    """Compare the kernel distance, which is unbiased, with that of the training pictures, the best that can be."""
    ours, real = (record[key]["kid_mobilenet_v2"] for key in ("metrics", "training_pictures"))
    n_real = record["protocol"]["n_real"]
    if ours["interval"][0] <= real["interval"][1]:
        return (
            f"this is a good result: as far as {n_real} pictures can tell, generated pictures are no farther from them "
            "than the training pictures are"
        )
    return _FARTHER


def _farther(record: Mapping[str, Any]) -> str:
    """Compare the distances without a judgment: copies of training pictures are as near as these."""
    ours, real = (record[key]["kid_mobilenet_v2"]["value"] for key in ("metrics", "training_pictures"))
    return _FARTHER if ours > real else "generated pictures are as near to them as the training pictures are"


_FARTHER = "generated pictures are farther from them than the training pictures are, so they can become better"


def _copied(copies: Mapping[str, Any]) -> str | None:
    """Say how many generated pictures nearly repeat a training picture, where more do so than unseen pictures do."""
    share, distance = copies.get("memorized_mobilenet_v2"), copies.get("training_kid_mobilenet_v2")
    if share is not None and share["interval"][0] > 0:
        return (
            f"beware of copies: {share['generated']:.1%} of the pictures nearly repeat a training picture; of pictures "
            f"that training did not see {share['held_out']:.1%} do"
        )
    if distance is not None and distance["copying"]:
        return "beware of copies: generated pictures are nearer to the training pictures than other real ones are"
    return None


def _improving(scores: dict[int, float], nimg: float) -> bool | None:
    """Whether a snapshot of the last tenth of the training is clearly nearer than those before.

    Args:
        scores: image count -> distance.
        nimg: pictures of the whole training.

    Returns:
        None: there is no snapshot to compare with.
    """
    end = max(scores) - nimg / 10
    recent = [score for at, score in scores.items() if at > end]
    earlier = [score for at, score in scores.items() if at <= end]
    if not earlier:
        return None
    return min(recent) < min(earlier) - _STILL_BETTER * abs(min(earlier))
