"""`pygan advise DATA`: looks at pictures before a training and says which setting suits them, and why.

Pictures count as near copies of one another where thumbnails of 16 x 16 gray pixels correlate by more than 0.995 and
are about equally bright; a mirrored copy counts too. That finds resized, recompressed and flipped copies, and leaves
alone what only resembles: neighboring frames of a video may be on either side.
"""

import hashlib
import io
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pygan.context import Context
from pygan.data.manifest import open_split, read_manifest
from pygan.data.pictures import SPLITS, over_white
from pygan.data.sources import folder
from pygan.errors import DataError
from pygan.folder_plan import choose_resolution, held_out_share
from pygan.recipes import FEW, Recipe, recipe

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
    n_train: int
    """Of them, to train with."""
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
    n = folder.survey(str(path), at_most=1).n
    share = held_out_share(n)
    source = folder.Spec(path=str(path), skip_bad=True, validation=share, test=share)
    collection = source.build(Context(resolution=SIDE))
    labels = Counter(label for split in SPLITS for _, label in collection.splits[split])
    seen = _Seen()
    for name, content in folder.contents(str(path), LOOKED_AT):
        seen.add(name, content)
    return Findings(
        path=path,
        n=n,
        n_train=len(collection.splits["train"]),
        class_counts={name: labels[i] for i, name in enumerate(collection.class_names)},
        resolution=None,
        **seen.facts(),
    )


def _look_at_prepared(path: Path) -> Findings:
    manifest = read_manifest(path / "manifest.json")
    splits = manifest["splits"]
    seen = _Seen()
    for name, image in _stored(path / "manifest.json"):
        if seen.is_new(image.tobytes()):
            seen.add_image(name, image)
    counts = np.sum([splits[split]["counts"] for split in SPLITS], axis=0)
    return Findings(
        path=path,
        n=sum(splits[split]["n"] for split in SPLITS),
        n_train=splits["train"]["n"],
        class_counts=dict(zip(manifest["class_names"], map(int, counts), strict=True)),
        resolution=manifest["resolution"],
        **seen.facts() | {"copies": manifest["duplicates"]},
    )


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
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                self.add_image(name, image)
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

    def facts(self) -> dict[str, object]:
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


def advise(path: Path, device: str = "cpu") -> str:
    """Return what was found, the recommended setting with its reasons, and the command that uses it.

    Args:
        device: where the training will run, `cpu` or a kind of GPU.

    Raises:
        MissingInput, DataError: as `look`.
    """
    found = look(path)
    if not found.sizes:
        raise DataError(
            f"{path}: none of {found.n} pictures can be read, the first is {': '.join(found.unreadable[0])}"
        )
    resolution, why = (
        (found.resolution, "as prepared")
        if found.resolution is not None
        else choose_resolution(found.sizes, fit="crop", asked=None, device=device)
    )
    chosen = recipe(max(found.n_train, 1), resolution, num_classes=len(found.class_counts), device=device)
    sections = (
        ("found", _facts(found)),
        ("beware", _warnings(found, resolution)),
        ("resolution", [f"{resolution} pixels: {why}"]),
        (f"recipe: {chosen.name}", [f"{key}: {reason}" for key, reason in chosen.reasons.items()]),
        ("worth a study of its own (config/study.yaml has these arms)", _studies(found, chosen)),
        ("command", [_command(found, resolution)]),
    )
    return "\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections if lines)


def _facts(found: Findings) -> list[str]:
    counts = found.class_counts
    few, many = (pick(counts, key=counts.get) for pick in (min, max))
    widths, heights = zip(*found.sizes, strict=True)
    lines = [f"{found.n} pictures, {found.n_train} of them to train with, the others to choose and to measure by"]
    if len(counts) > 1:
        lines.append(
            f"{len(counts)} classes of {counts[few]} ({few}) to {counts[many]} ({many}) pictures, imbalance "
            f"{found.imbalance:.1f}"
        )
    else:
        lines.append("one class: no sub-folders say otherwise")
    lines.append(f"sizes from {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)}")
    lines.append(", ".join(f"{count} {mode}" for mode, count in found.modes.most_common()))
    if len(found.sizes) + len(found.unreadable) + found.copies < found.n:
        lines.append(f"{len(found.sizes)} of them were looked at, spread evenly")
    return lines


def _warnings(found: Findings, resolution: int) -> list[str]:
    lines = []
    if found.unreadable:
        name, why = found.unreadable[0]
        lines.append(f"{len(found.unreadable)} pictures cannot be read, the first is {name} ({why})")
    if found.copies:
        lines.append(
            f"{found.copies} exact copies: they count more often than others, remove them unless you mean that"
        )
    if found.near:
        shown = "; ".join(f"{a} and {b}" for a, b in found.near[:3])
        lines.append(
            f"{len(found.near)} near copies ({shown}): in training and held-out pictures alike they make every "
            "distance look better than it is; remove them, or deal them yourself to folders train, validation and test"
        )
    small = sum(min(size) < resolution for size in found.sizes)
    if small:
        lines.append(f"{small} pictures are smaller than {resolution} pixels and are enlarged, which blurs")
    oblong = sum(max(size) > 2 * min(size) for size in found.sizes)
    if oblong:
        lines.append(f"{oblong} pictures are more than twice as long as wide: see --fit")
    if found.modes["transparent"]:
        lines.append(f"{found.modes['transparent']} pictures have transparent parts, which become white")
    if found.modes["gray"] and found.modes["color"] + found.modes["transparent"]:
        lines.append(f"{found.modes['gray']} pictures are gray among colored ones: G will make some gray, too")
    single = [name for name, count in found.class_counts.items() if count == 1]
    if single and len(found.class_counts) > 1:
        lines.append(f"{len(single)} classes have a single picture ({', '.join(single[:3])}): G can only copy it")
    return lines


def _studies(found: Findings, chosen: Recipe) -> list[str]:
    lines = []
    if found.n_train < FEW:
        lines.append(
            "discriminators: [{kind: plain}, {kind: vision_aided, ...}]: a pretrained network beside the "
            "discriminator; with 100 pictures it lowered the distance of DiffAugment in the default study"
        )
    if len(found.class_counts) > 1 and found.imbalance >= TAIL:
        lines.append(
            "regularizers: [{kind: group_spectral}], with `conditional: true` in `base`: a long tail, on which the "
            "rare classes collapse first; evaluate.metrics: [{kind: intra}] shows class by class"
        )
    return lines


def _command(found: Findings, resolution: int) -> str:
    if found.resolution is not None:
        return "prepared already: name its source in a study file (`datasets`), and `pygan check` that"
    flags = ["--skip-bad"] if found.unreadable else []
    if sum(max(size) > 2 * min(size) for size in found.sizes) > len(found.sizes) / 10:
        flags += ["--fit", "pad"]
    if any(min(size) < resolution for size in found.sizes):
        flags.append("--allow-upscale")
    return shlex.join(["pygan", "train", str(found.path), *flags])
