"""What the measurements of `pygan train` mean in words, and what to try next."""

from collections.abc import Mapping
from typing import Any

_STILL_BETTER = 0.05
"""Part of the distance of the best earlier snapshot by which the last one is nearer where training still helps."""


def verdict(
    record: Mapping[str, Any], scores: Mapping[str, float], *, kimg: float, usual_kimg: float, mirrored: bool
) -> list[str]:
    """Return sentences about a result: is it good, does it copy, and what to do next.

    Args:
        record: the content of `metrics.json`.
        scores: image count -> distance to the validation pictures of every snapshot that competed.
        kimg: thousand pictures that were shown in all.
        usual_kimg: as many as the recipe shows.
        mirrored: whether training pictures were mirrored.
    """
    copied = _copied(record["copies"])
    improving = _improving({int(nimg): score for nimg, score in scores.items()})
    longer = max(2 * kimg, usual_kimg)
    lines = [_distance(record)]
    if copied:
        lines.append(copied)
    mirror = "" if mirrored else ", or --mirror with a new --out where flipped pictures are right"
    if copied:
        lines.append(f"next: more pictures{mirror}; a longer training would copy more")
    elif improving:
        lines.append(f"next: it was still getting nearer, so train longer (the same command with --kimg {longer:g})")
    elif kimg < usual_kimg:
        lines.append(
            f"next: train longer (the same command with --kimg {longer:g}), as this was shorter than the recipe's "
            f"{usual_kimg:g} thousand pictures"
        )
    else:
        lines.append(f"next: it was no longer getting nearer, so more pictures help most{mirror}")
    return lines


def _distance(record: Mapping[str, Any]) -> str:
    """Compare the kernel distance, which is unbiased, with that of the training pictures, the best that can be."""
    ours, real = (record[key]["kid_mobilenet_v2"] for key in ("metrics", "training_pictures"))
    n_real = record["protocol"]["n_real"]
    if ours["interval"][0] <= real["interval"][1]:
        return (
            f"this is a good result: as far as {n_real} pictures can tell, generated pictures are no farther from them "
            "than the training pictures are"
        )
    return "generated pictures are farther from them than the training pictures are, so they can become better"


def _copied(copies: Mapping[str, Any]) -> str | None:
    """Say how many generated pictures nearly repeat a training picture, where more do so than unseen pictures do."""
    share, distance = copies.get("memorized_mobilenet_v2"), copies.get("training_kid_mobilenet_v2")
    if share is not None and share["interval"][0] > 0:
        return f"beware of copies: {share['value']:.0%} of the pictures nearly repeat a training picture"
    if distance is not None and distance["copying"]:
        return "beware of copies: generated pictures are nearer to the training pictures than other real ones are"
    return None


def _improving(scores: dict[int, float]) -> bool:
    """Whether the last snapshot is clearly the best; without an earlier one there is nothing to compare with."""
    *others, last = (scores[nimg] for nimg in sorted(scores))
    return bool(others) and last < min(others) - _STILL_BETTER * abs(min(others))
