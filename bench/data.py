"""Rates of writing and reading CIFAR-size pictures: our store beside a zip of PNGs and a folder of JPEGs.

    python bench/data.py [--pictures 10000] [--repeats 5] [--out bench]

The pictures are 32x32 cut-outs of the photograph behind the source earthcover. All contenders are measured in turn in
one run, each `repeats` times, and the median counts; readers fill uint8 batches of 32 in random order. Writes data.json
and data.md.
"""

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pygan import assets
from pygan.context import Context
from pygan.data.sources.folder import Spec
from pygan.data.store import Store, write_store

_SIDE = 32
_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), arguments.pictures, arguments.repeats)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "pictures": arguments.pictures,
        "repeats": arguments.repeats,
        "img_per_sec": rates,
    }
    table = as_table(result)
    (arguments.out / "data.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "data.md").write_text(table)
    print(table, end="")


def measure(folder: Path, n: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return pictures per second of each writer and reader."""
    jpegs = folder / "jpegs"
    make_jpegs(jpegs, n)
    items = Spec(path=str(jpegs), validation=0, test=0).build(Context(resolution=_SIDE)).splits["train"]
    files = sorted(jpegs.iterdir())
    raw, png, zipped = folder / "raw.lmdb", folder / "png.lmdb", folder / "pngs.zip"
    writers: dict[str, Callable[[], Any]] = {
        "store raw, 2 processes": lambda: write_store(raw, items, resolution=_SIDE, workers=2),
        "store raw, 1 process": lambda: write_store(raw, items, resolution=_SIDE),
        "store png, 2 processes": lambda: write_store(png, items, resolution=_SIDE, codec="png", workers=2),
        "zip of PNGs, 1 process": lambda: write_zip(zipped, files),
    }
    written = repeat(writers, n, repeats)
    order = np.random.default_rng(0).permutation(n)[: n // _BATCH * _BATCH].reshape(-1, _BATCH)
    store, png_store = Store(raw), Store(png)
    with zipfile.ZipFile(zipped) as archive:
        members = archive.namelist()
        readers: dict[str, Callable[[], Any]] = {
            "store raw, warm": lambda: read_all(store.read, order),
            "store raw, checking crc32": lambda: read_all(Store(raw).read, order),
            "store png, warm": lambda: read_all(png_store.read, order),
            "zip of PNGs, warm": lambda: read_all(decoder(lambda i: archive.read(members[i])), order),
            "folder of JPEGs, warm": lambda: read_all(decoder(lambda i: files[i].read_bytes()), order),
        }
        for reader in readers.values():  # once, so that the files are in memory
            reader()
        read = repeat(readers, order.size, repeats)
    return {"write": written, "read": read}


def make_jpegs(folder: Path, n: int) -> None:
    """Write n random cut-outs of the photograph."""
    photograph = Image.open(assets.find("bmng.jpg")).convert("RGB")
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(n):
        x, y = rng.integers(photograph.width - _SIDE), rng.integers(photograph.height - _SIDE)
        photograph.crop((x, y, x + _SIDE, y + _SIDE)).save(folder / f"{i:06d}.jpg", quality=95)


def write_zip(path: Path, files: list[Path]) -> None:
    """Write the pictures as uncompressed PNGs into a zip, the format of the StyleGAN2-ADA data tool."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i, file in enumerate(files):
            encoded = io.BytesIO()
            with Image.open(file) as image:
                image.convert("RGB").save(encoded, "png", compress_level=0, optimize=False)
            archive.writestr(f"{i // 1000:05d}/img{i:08d}.png", encoded.getvalue())


def decoder(content: Callable[[int], bytes]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a batch reader over encoded pictures."""

    def read(indices: np.ndarray) -> np.ndarray:
        batch = np.empty((len(indices), 3, _SIDE, _SIDE), np.uint8)
        for row, index in zip(batch, indices.tolist(), strict=True):
            row[:] = np.asarray(Image.open(io.BytesIO(content(index)))).transpose(2, 0, 1)
        return batch

    return read


def read_all(read: Callable[[np.ndarray], np.ndarray], order: np.ndarray) -> None:
    for indices in order:
        read(indices)


def repeat(contenders: dict[str, Callable[[], Any]], n: int, repeats: int) -> dict[str, float]:
    """Time all contenders in turn, `repeats` times; return the median rates."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: n / statistics.median(times) for name, times in seconds.items()}


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def as_table(result: dict[str, Any]) -> str:
    where = result["machine"]
    lines = [
        f"`{result['command']}`: {result['pictures']} pictures of 32x32, median of {result['repeats']}; "
        f"{where['processor']}, {where['cores']} cores, Python {where['python']}, load {where['load_average']:.1f}",
    ]
    for task, rates in result["img_per_sec"].items():
        reference = rates[next(name for name in rates if name.startswith("zip"))]
        lines += ["", f"| {task} | img/s | against the zip of PNGs |", "|---|---:|---:|"]
        lines += [f"| {name} | {rate:,.0f} | {rate / reference:.2f} |" for name, rate in rates.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
