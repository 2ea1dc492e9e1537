"""`pygan advise DATA`: looks at pictures before a training and says which setting suits them, and why.

Pictures count as near copies of one another where thumbnails of 16 x 16 gray pixels correlate by more than 0.995 and
are about equally bright; a mirrored copy counts too. That finds resized, recompressed and flipped copies, and leaves
alone what only resembles: neighboring frames of a video may be on either side.
"""

import hashlib
import io
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from pygan.context import Context
from pygan.data import formats
from pygan.data.manifest import open_split, read_manifest
from pygan.data.pictures import SPLITS, Fit, over_white
from pygan.data.sources import folder
from pygan.errors import DataError
from pygan.folder_pictures import choose_resolution, held_out_share, too_few
from pygan.recipes import FEW, Recipe, recipe
from pygan.wording import duration, number_of

LOOKED_AT = 5_000
"""Pictures that are decoded at most, spread evenly over all of them."""
SIDE, ALIKE, BRIGHTNESS, FLAT = 16, 0.995, 8.0, 2.0
"""Of a thumbnail: its side; the correlation and the difference of means up to which two are near copies; the standard
deviation below which there is nothing to compare. Gray levels of 255."""
TAIL = 10
"""Pictures of the largest class over those of the smallest, from which a data set counts as long-tailed."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of the pictures."""

    path: Path
    n: int
    """Pictures, unreadable ones included."""
    split_counts: dict[str, int]
    """Split -> pictures, those that are known to be unreadable left out."""
    left_out: list[str]
    """Sentences about pictures in formats that cannot be read here."""
    class_counts: dict[str, int]
    """Class -> pictures."""
    sizes: list[tuple[int, int]]
    """Width and height of those that were looked at."""
    unreadable: list[tuple[str, str]]
    """File and reason, of those that were looked at."""
    modes: Counter[str]
    """"color", "gray" and "transparent" pictures among those that were looked at."""
    copies: int
    """Pictures whose file is a copy of an earlier one."""
    near: list[tuple[str, str]]
    """Pairs of near copies, exact ones left out."""
    resolution: int | None
    """Side of prepared pictures; None: not prepared."""

    @property
    def n_train(self) -> int:
        """Pictures to train with."""
        return self.split_counts["train"]

    @property
    def imbalance(self) -> float:
        """Pictures of the largest class over those of the smallest."""
        return max(self.class_counts.values()) / max(min(self.class_counts.values()), 1)


def look(path: Path) -> Findings:
    """Look at a folder or zip of pictures, or at a data set that the workflow prepared.

    Raises:
        MissingInput: there is no such folder or zip.
        DataError: there is no picture, the folders do not say one class per picture, or a store is damaged.
    """
    return _look_at_prepared(path) if (path / "manifest.json").is_file() else _look_at_files(path)


def _look_at_files(path: Path) -> Findings:
    survey = folder.survey(str(path), at_most=1)
    n, share = survey.n, held_out_share(survey.n)
    source = folder.Spec(path=str(path), skip_bad=True, validation=share, test=share)
    collection = source.build(Context(resolution=SIDE))
    labels = Counter(label for split in SPLITS for _, label in collection.splits[split])
    seen = _Seen()
    for name, content in _with_bar(folder.contents(str(path), LOOKED_AT), min(n, LOOKED_AT)):
        seen.add(name, content)
    facts = seen.facts()
    unreadable = {name for name, _ in facts["unreadable"]}
    return Findings(
        path=path,
        n=n,
        split_counts={split: _readable(collection.splits[split], unreadable) for split in SPLITS},
        left_out=formats.left_out(survey.others),
        class_counts={name: labels[i] for i, name in enumerate(collection.class_names)},
        resolution=None,
        **facts,
    )


def _readable(items: Iterable[tuple[Any, int]], unreadable: set[str]) -> int:
    """Return how many pictures of a split can be read, as far as they were read."""
    return sum(picture.name not in unreadable for picture, _ in items)


def _with_bar(items: Iterator[Any], total: int) -> Iterator[Any]:
    with tqdm(items, "reading", total, unit="img", disable=None, leave=False) as bar:
        yield from bar


def _look_at_prepared(path: Path) -> Findings:
    manifest = read_manifest(path / "manifest.json")
    splits = manifest["splits"]
    seen = _Seen()
    for name, image in _with_bar(_stored(path / "manifest.json"), _looked_at(splits)):
        if seen.is_new(image.tobytes()):
            seen.add_image(name, image)
    counts = np.sum([splits[split]["counts"] for split in SPLITS], axis=0)
    return Findings(
        path=path,
        n=sum(splits[split]["n"] for split in SPLITS),
        split_counts={split: splits[split]["n"] for split in SPLITS},
        left_out=[],
        class_counts=dict(zip(manifest["class_names"], map(int, counts), strict=True)),
        resolution=manifest["resolution"],
        **seen.facts() | {"copies": manifest["duplicates"]},
    )


def _looked_at(splits: dict[str, Any]) -> int:
    """Return how many pictures of a prepared data set are read."""
    return sum(min(splits[split]["n"], LOOKED_AT // len(SPLITS)) for split in SPLITS)


def _stored(manifest: Path) -> Iterator[tuple[str, Image.Image]]:
    for split in SPLITS:
        store = open_split(manifest, split)
        count = min(len(store), LOOKED_AT // len(SPLITS))
        for index in np.arange(count) * len(store) // max(count, 1):
            img = store.read([index])[0]
            yield f"{split} {index}", Image.fromarray(img[0] if len(img) == 1 else img.transpose(1, 2, 0))


class _Seen:
    """Collects what is known of the pictures, one after the other."""

    def __init__(self) -> None:
        self._sizes: list[tuple[int, int]] = []
        self._unreadable: list[tuple[str, str]] = []
        self._modes: Counter[str] = Counter()
        self._names: list[str] = []
        self._thumbnails: list[np.ndarray] = []
        self._digests: set[bytes] = set()
        self._copies = 0

    def add(self, name: str, content: bytes | DataError) -> None:
        """Take note of a file, or of why it cannot be read."""
        if isinstance(content, DataError):
            self._unreadable.append((name, str(content)))
            return
        if not self.is_new(content):
            return
        try:
            with formats.open_picture(io.BytesIO(content)) as image:
                image.load()
                self.add_image(name, image)
        except UnidentifiedImageError:
            self._unreadable.append((name, "not a picture of a known format"))
        except Exception as error:  # decoders raise nearly anything on a broken file
            self._unreadable.append((name, f"not a readable picture ({error or type(error).__name__})"))

    def is_new(self, content: bytes) -> bool:
        """Tell whether a content comes for the first time, and count the others."""
        digest = hashlib.sha256(content).digest()
        is_copy = digest in self._digests
        self._digests.add(digest)
        self._copies += is_copy
        return not is_copy

    def add_image(self, name: str, image: Image.Image) -> None:
        """Take note of a picture."""
        transparent = image.has_transparency_data
        gray = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
        flat = over_white(image) if transparent else image
        thumbnail = np.asarray(flat.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
        self._modes["transparent" if transparent else "gray" if gray else "color"] += 1
        self._sizes.append(image.size)
        self._names.append(name)
        self._thumbnails.append(thumbnail)

    def facts(self) -> dict[str, Any]:
        """Return the fields of `Findings` that come from single pictures."""
        pairs = near_copies(np.stack(self._thumbnails)) if self._thumbnails else []
        return {
            "sizes": self._sizes,
            "unreadable": self._unreadable,
            "modes": self._modes,
            "copies": self._copies,
            "near": [(self._names[a], self._names[b]) for a, b in pairs],
        }


def near_copies(thumbnails: np.ndarray, rows: int = 512) -> list[tuple[int, int]]:
    """Return the pairs of near copies, each picture with the first one that it resembles.

    Args:
        thumbnails: gray levels `[N, SIDE, SIDE]`.
        rows: compared at a time.
    """
    means, deviations = thumbnails.mean((1, 2)), thumbnails.std((1, 2))
    usable = np.flatnonzero(deviations > FLAT)
    directions = [_directions(img[usable]) for img in (thumbnails, thumbnails[:, :, ::-1])]
    pairs = []
    for start in range(0, len(usable), rows):
        here = slice(start, start + rows)
        correlation = np.maximum(*(directions[0][here] @ other[: start + rows].T for other in directions))
        alike = correlation > ALIKE
        alike &= np.abs(means[usable[here]][:, None] - means[usable[: start + rows]][None]) < BRIGHTNESS
        alike &= np.arange(alike.shape[1])[None] < np.arange(start, start + len(alike))[:, None]
        found = np.flatnonzero(alike.any(1))
        pairs += [(int(usable[alike[row].argmax()]), int(usable[start + row])) for row in found]
    return pairs


def _directions(img: np.ndarray) -> np.ndarray:
    """Return unit vectors without mean `[N, SIDE * SIDE]`."""
    flat = img.reshape(len(img), SIDE * SIDE)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


# Advice


Rate = Callable[[dict[str, Any], int], float]
"""Setting of a run and side of its pictures to the pictures per second that it trains on this machine."""


def advise(path: Path, device: str = "cpu", rate: Rate | None = None) -> str:
    """Return what was found, the recommended setting with its reasons, and the command that uses it.

    Args:
        device: where the training will run, `cpu` or a kind of GPU.
        rate: measures the setting; None: nothing is said about the time.

    Raises:
        MissingInput, DataError: as `look`.
    """
    found = look(path)
    if not found.sizes:
        raise DataError(f"{path}: no picture can be read; the first of {found.n} is {': '.join(found.unreadable[0])}")
    fit: Fit = "pad" if _oblong(found) > len(found.sizes) / 10 and found.resolution is None else "crop"
    resolution, why = (
        (found.resolution, "as prepared")
        if found.resolution is not None
        else choose_resolution(found.sizes, fit=fit, asked=None, device=device)
    )
    lacking = too_few(found.split_counts, found.n)
    chosen = recipe(max(found.n_train, 1), resolution, num_classes=len(found.class_counts), device=device)
    sections = [
        ("found", _facts(found)),
        ("beware", _warnings(found, resolution, fit)),
        ("resolution", [f"{resolution} pixels: {why}"]),
        (f"recipe: {chosen.name}", [f"{key}: {reason}" for key, reason in chosen.reasons.items()]),
        ("worth trying", _trials(found, chosen, device)),
    ]
    if lacking is not None:
        sections.append(("too few pictures to train", [lacking]))
    else:
        sections.append(("time", [] if rate is None else [_time(chosen, resolution, rate)]))
        sections.append(("command", [_command(found, resolution, fit)]))
    text = []
    for title, lines in sections:
        if lines:
            text += [title, *(f"  {line}" for line in lines)]
    return "\n".join(text)


def _facts(found: Findings) -> list[str]:
    counts = found.class_counts
    few, many = (pick(counts, key=counts.get) for pick in (min, max))
    widths, heights = zip(*found.sizes, strict=True)
    lines = [
        f"{number_of(found.n, 'picture')}, {found.n_train} of them to train with, the others to choose and measure by",
        *found.left_out,
    ]
    if len(counts) > 1:
        lines.append(
            f"{len(counts)} classes of {counts[few]} ({few}) to {number_of(counts[many], 'picture')} ({many}), "
            f"imbalance {found.imbalance:.1f}"
        )
    else:
        lines.append("one class, because no sub-folder separates others")
    lines.append(f"sizes from {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)}")
    lines.append(", ".join(f"{count} {mode}" for mode, count in found.modes.most_common()))
    if len(found.sizes) + len(found.unreadable) + found.copies < found.n:
        lines.append(f"{len(found.sizes)} of them were read, spread evenly")
    return lines


def _are(n: int) -> str:
    return number_of(n, "picture is", "pictures are")


def _oblong(found: Findings) -> int:
    """Return how many pictures are more than twice as long as wide."""
    return sum(max(size) > 2 * min(size) for size in found.sizes)


def _small(found: Findings, resolution: int, fit: Fit) -> int:
    """Return how many pictures have to be enlarged."""
    side = max if fit == "pad" else min
    return sum(side(size) < resolution for size in found.sizes)


def _warnings(found: Findings, resolution: int, fit: Fit) -> list[str]:
    lines = []
    if found.unreadable:
        name, why = found.unreadable[0]
        lines.append(f"{number_of(len(found.unreadable), 'picture')} cannot be read, the first is {name} ({why})")
    if found.copies:
        copies = "1 exact copy" if found.copies == 1 else f"{found.copies} exact copies"
        lines.append(f"{copies}: pictures that are there twice count twice, remove them unless you mean that")
    if found.near:
        shown = "; ".join(f"{a} and {b}" for a, b in found.near[:3])
        copies = "1 near copy" if len(found.near) == 1 else f"{len(found.near)} near copies"
        lines.append(
            f"{copies} ({shown}): in training and held-out pictures alike they make every distance look better than it "
            "is; remove them, or deal them yourself to folders train, validation and test"
        )
    if small := _small(found, resolution, fit):
        lines.append(f"{_are(small)} smaller than {resolution} pixels and will be enlarged, which blurs")
    if oblong := _oblong(found):
        lines.append(f"{_are(oblong)} more than twice as long as wide: see --fit")
    if transparent := found.modes["transparent"]:
        count = number_of(transparent, "picture has", "pictures have")
        lines.append(f"{count} transparent parts, which become white")
    if (gray := found.modes["gray"]) and found.modes["color"] + found.modes["transparent"]:
        lines.append(f"{_are(gray)} gray among colored ones: some generated pictures will be gray, too")
    single = [name for name, count in found.class_counts.items() if count == 1]
    if single and len(found.class_counts) > 1:
        count = number_of(len(single), "class has", "classes have")
        lines.append(f"{count} a single picture ({', '.join(single[:3])}), which can only be copied")
    return lines


def _trials(found: Findings, chosen: Recipe, device: str) -> list[str]:
    lines = ["--mirror: twice as many pictures where a flipped picture is as right as the original"]
    if found.n_train < FEW and device != "cpu":
        lines.append(
            "--recipe vision_aided_paper256: pretrained networks beside the discriminator, which help most where "
            "pictures are few; it takes several times as long"
        )
    if len(found.class_counts) > 1 and found.imbalance >= TAIL:
        lines.append(
            "a study of your own with `regularizers: [{kind: group_spectral}]` and `conditional: true` in `base`: rare "
            "classes of a long tail collapse first; `evaluate.metrics: [{kind: intra}]` measures each class (studies "
            "need a clone of pygan's repository)"
        )
    return lines


def _time(chosen: Recipe, resolution: int, rate: Rate) -> str:
    total, per_second = chosen.run["training"]["total_nimg"], rate(chosen.run, resolution)
    return (
        f"about {duration(total / per_second)} on this machine, where {per_second:.3g} pictures a second were measured "
        f"({total} are shown, each many times); --kimg changes the length"
    )


def _command(found: Findings, resolution: int, fit: Fit) -> str:
    if found.resolution is not None:
        return "prepared already: name its source in a study file (`datasets`), and `pygan check` that"
    flags = ["--resolution", str(resolution)] + (["--skip-bad"] if found.unreadable else [])
    if fit != "crop":
        flags += ["--fit", fit]
    if _small(found, resolution, fit):
        flags.append("--allow-upscale")
    path = str(found.path)
    return shlex.join(["pygan", "train", f"./{path}" if path.startswith("-") else path, *flags])
