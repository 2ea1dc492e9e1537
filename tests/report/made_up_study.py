"""A finished study on disk, with made-up numbers, as the stages before the report leave it."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

FD = {"base": (233.0, 249.0, 258.0), "diffaug": (183.0, 211.0, 212.0), "aided": (131.0, 131.0, 142.0)}
FD["ticket"] = (196.0, 202.0, 214.0)
SEEDS = (0, 1, 2)
SECONDS = {"base": 80.0, "diffaug": 92.0, "aided": 150.0, "ticket": 95.0}
TOTAL_NIMG, HALF_NIMG = 57600, 19200
TRAINING = {"batch": 32, "total_nimg": TOTAL_NIMG, "snapshots": [0, HALF_NIMG, 38400, TOTAL_NIMG]}
PROTOCOL = {
    "network": "mobilenet_v2",
    "network_sha256": "ab" * 32,
    "resize": "PIL bicubic to 128 px, unquantized (clean-fid)",
    "n_real": 1583,
    "n_gen": 1500,
    "reference_split": "test",
    "dtype": "float32",
    "versions": {"torch": "2.0"},
}
LINES = {
    "fd_mobilenet_v2": "Fréchet distance of Gaussians fitted to 1280-d features",
    "kid_mobilenet_v2": "polynomial kernel of degree 3, 10 subsets of 1000",
    "precision": "k = 5, 1000 + 1000 pictures",
    "recall": "k = 5, 1000 + 1000 pictures",
}
BASE = {
    "dataset": "land",
    "subset": {"kind": "n_shot", "n": 100},
    "base": {"kind": "dcgan"},
    "loss": "hinge",
    "augment": None,
    "discriminators": [{"kind": "plain"}],
    "regularizers": [{"kind": "r1", "gamma": 0.1, "every": 8}],
    "training": TRAINING,
    "continues": None,
    "ticket": None,
}
DIFFAUG = BASE | {"augment": {"kind": "diffaug", "policy": ["color", "translation", "cutout"]}}
RUNS = {
    "base": BASE,
    "diffaug": DIFFAUG,
    "ticket": DIFFAUG | {"ticket": {"kind": "lottery", "found_in": "diffaug", "rounds": 1, "fraction": 0.2}},
    "aided": DIFFAUG
    | {
        "discriminators": [{"kind": "plain"}, {"kind": "vision_aided", "count": 1}],
        "continues": {"run": "diffaug", "nimg": HALF_NIMG},
    },
}
METHODS = {
    "base": ["r1"],
    "diffaug": ["diffaug", "r1"],
    "ticket": ["diffaug", "r1", "lottery"],
    "aided": ["diffaug", "vision_aided", "r1"],
}
CLAIMS = [
    {
        "id": "diffaug",
        "method": "diffaug",
        "statement": "DiffAugment lowers the Fréchet distance at equal images.",
        "arm": "diffaug",
        "against": "base",
        "metric": "fd_mobilenet_v2",
        "direction": "lower",
        "minimum_effect": 10,
        "control": None,
    },
    {
        "id": "vision-aided",
        "method": "vision_aided",
        "statement": "Vision-aided heads lower it further.",
        "arm": "aided",
        "against": "diffaug",
        "metric": "fd_mobilenet_v2",
        "direction": "lower",
        "minimum_effect": 10,
        "control": "base",
    },
    {
        "id": "ticket",
        "method": "lottery",
        "statement": "A ticket is better than its dense network.",
        "arm": "ticket",
        "against": "diffaug",
        "metric": "fd_mobilenet_v2",
        "direction": "lower",
        "minimum_effect": 10,
        "control": None,
    },
    {
        "id": "ticket-null",
        "method": "lottery",
        "statement": "A ticket has much higher recall than its dense network.",
        "arm": "ticket",
        "against": "diffaug",
        "metric": "recall",
        "direction": "higher",
        "minimum_effect": 0.05,
        "control": None,
    },
]


def study_config(**changes: Any) -> dict[str, Any]:
    """Return the configuration of the made-up study."""
    return {
        "name": "earthcover land, 100 pictures",
        "seeds": list(SEEDS),
        "datasets": {"land": {"source": {"kind": "earthcover", "cut": "land"}, "resolution": 32, "codec": "raw"}},
        "runs": RUNS,
        "claims": CLAIMS,
        "anchors": {"untrained": "base", "pca_gaussian": "base", "real": "land"},
    } | changes


def write_study(root: Path, grid: Callable[[Path, int], None] | None = None) -> dict[str, list[Path]]:
    """Write every file that the report reads and return them by input name.

    Args:
        root: folder that gets `results/`.
        grid: writes a PNG for a seed; None: small squares of noise.
    """
    grid = grid or _noise
    results = root / "results"
    files: dict[str, list[Path]] = {}

    def put(name: str, path: Path, value: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
        files.setdefault(name, []).append(path)

    def put_png(name: str, path: Path, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        grid(path, seed)
        files.setdefault(name, []).append(path)

    land = results / "data/land"
    sizes = {"train": 804, "validation": 815, "test": 1583}
    put("manifest", land / "manifest.json", {"splits": {name: {"n": count} for name, count in sizes.items()}})
    put_png("contact_sheet", land / "contact_sheet.png", 99)
    for run, settings in RUNS.items():
        for i, seed in enumerate(SEEDS):
            start = HALF_NIMG if settings["continues"] else 0
            seconds = SECONDS[run] + seed
            folder = results / f"train/{run}/seed{seed}"
            put("run_json", folder / "run.json", _job(run, seed, seconds))
            files.setdefault("stats", []).append(_write_stats(folder / "stats.jsonl", run, seed, start, seconds))
            put_png("samples", folder / f"snapshots/{TOTAL_NIMG:09d}.png", seed)
            fd = FD[run][i]
            values = {
                "fd_mobilenet_v2": fd,
                "kid_mobilenet_v2": fd / 900,
                "precision": fd / 400,
                "recall": 0.09 - fd / 3000,
            }
            put("metrics", results / f"evaluate/{run}/seed{seed}/metrics.json", metrics_json(values, run, seed))
            scores = {"38400": fd / 850 + 0.01, str(TOTAL_NIMG): fd / 850}
            selected = {"run": run, "seed": seed, "nimg": TOTAL_NIMG, "metric": "kid_mobilenet_v2", "scores": scores}
            put("selected", results / f"select/{run}/seed{seed}/selected.json", selected)
    for seed in SEEDS:
        for subject, fd in (("untrained", 452.0 + seed), ("pca_gaussian", 301.0 - seed)):
            values = {"fd_mobilenet_v2": fd, "kid_mobilenet_v2": fd / 800, "precision": 0.001, "recall": 0.0}
            record = metrics_json(values, "base", seed, subject)
            put("anchors", results / f"anchors/{subject}/seed{seed}/metrics.json", record)
        networks = {
            name: {"accuracy": 0.9 - 0.06 * i, "accuracy_ci": [0.84 - 0.06 * i, 0.95 - 0.06 * i], "bce": 0.3 + 0.1 * i}
            for i, name in enumerate(("efficientnet_lite0", "hed_vgg16", "open_nsfw", "mtcnn_onet"))
        }
        probe = {"run": "aided", "seed": seed, "chosen": ["efficientnet_lite0"], "criterion": "accuracy"}
        put("probe", results / f"probe/aided/seed{seed}/probe.json", probe | {"networks": networks})
        prune = {"run": "ticket", "seed": seed, "round": 1, "sparsity": 0.2, "sparsity_of_generator": 0.1123}
        prune["tensors"] = {"body.0.weight": 0.15, "body.4.weight": 0.31}
        put("prune", results / f"masks/ticket/seed{seed}/round1/prune.json", prune)
    values = {"fd_mobilenet_v2": 54.7, "kid_mobilenet_v2": 0.0054, "precision": 0.70, "recall": 0.77}
    put("anchors", results / "anchors/real/metrics.json", metrics_json(values, None, None, "real", 804))
    for stage, seconds in (("prepare_data", 9.1), ("reference", 21.4), ("train", 82.5), ("evaluate", 8.8)):
        table = root / f"results/benchmarks/{stage}/a.tsv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t100\n")
        (table.parent / "b.tsv").write_text(f"s\th:m:s\tmax_rss\n{seconds + 1}\t0:00:01\t100\n")
    files["benchmarks"] = [root / "results/benchmarks"]
    return files


def metrics_json(
    values: dict[str, float], run: str | None, seed: int | None, subject: str = "run", n_gen: int = 1500
) -> dict[str, Any]:
    """Return the content of a `metrics.json`."""
    is_run = subject == "run"
    return {
        "subject": subject,
        "run": run,
        "dataset": "land",
        "n_images": 100 if is_run else None,
        "methods": METHODS[run] if is_run else [],
        "seed": seed,
        "nimg": TOTAL_NIMG if is_run else None,
        "metrics": {
            name: {"value": value, "interval": None, "protocol": LINES[name] + ("" if n_gen == 1500 else " (fewer)")}
            for name, value in values.items()
        },
        "protocol": PROTOCOL | {"n_gen": n_gen, "seed": seed},
        "seconds": 7.5,
    }


def _job(run: str, seed: int, seconds: float) -> dict[str, Any]:
    return {
        "run": run,
        "seed": seed,
        "dataset": "land",
        "n_images": 100,
        "methods": METHODS[run],
        "nimg": TOTAL_NIMG,
        "seconds": seconds,
        "ops": {"backend": "native", "reason": "compiled extension"},
        "device": {"type": "cpu", "name": "a processor", "machine": "x86_64"},
        "threads": 1,
        "versions": {"pygan": "0.1.0", "python": "3.11.4", "torch": "2.0"},
        "git": "0123456789ab",
        "masks": {"sparsity": 0.2, "tensors": 4} if run == "ticket" else None,
    }


def _write_stats(path: Path, run: str, seed: int, start: int, seconds: float) -> Path:
    draw = random.Random(f"{run}{seed}")
    ticks = []
    for i in range(1, 31):
        share = i / 30
        nimg = start + round(share * (TOTAL_NIMG - start))
        gap = nimg / TOTAL_NIMG * (0.4 if "aug" in run else 1.6)
        tick = {"nimg": nimg, "step": nimg // 32, "seconds": share * seconds, "img_per_sec": 700.0}
        tick |= {"loss/D": 1.4 - 0.5 * share + draw.gauss(0, 0.05), "loss/G": 0.3 + draw.gauss(0, 0.1)}
        tick |= {"logits/train": 0.8 * math.sqrt(share) + draw.gauss(0, 0.06)}
        tick |= {"logits/validation": tick["logits/train"] - gap + draw.gauss(0, 0.06)}
        tick |= {"logits/generated": -0.9 * math.sqrt(share) + draw.gauss(0, 0.06)}
        if run == "aided":
            for part, sign in (("train", 1), ("validation", 0.6), ("generated", -1)):
                tick[f"head/efficientnet_lite0/{part}"] = sign * 0.7 * share + draw.gauss(0, 0.05)
        ticks.append(json.dumps(tick))
    path.write_text("\n".join(ticks) + "\n")
    return path


def _noise(path: Path, seed: int) -> None:
    Image.frombytes("RGB", (16, 16), random.Random(seed).randbytes(16 * 16 * 3)).save(path)
