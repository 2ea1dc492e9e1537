"""Stage `diffusion`: what generative models owe their training set (pygan/diffusion, pygan/metrics/memorization.py)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import run_stage
from pipeline.granted import computed_on, device_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pygan.diffusion.study import DiffusionSpec
    from pygan.metrics.neighbors import Moved

PAIRS = 20
"""Samples nearest to a training picture that are shown."""
NEIGHBORS = 50
"""Training pictures that the distance of Carlini et al. is calibrated by; all where there are fewer."""


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Measure one subject.

    Args:
        spec: `config` holds `subject` ("toy", "exact" or "run"), `seed` and `diffusion`, the section of the study file
            without other parts; with run also `run`, and of that run `dataset`, `subset`, `mirror`, `base` and `loss`.
        inputs: for exact all stores as `pictures`; for run the stores `train` and `validation`, its `snapshot`s, and
            as `other` the last one of another seed, where there is one.
        out: gets `diffusion.json`, and panels of samples above their nearest training pictures.
    """
    from pygan.checkpoint import write_json
    from pygan.diffusion.study import DiffusionSpec
    from pygan.spec import parse

    config = spec["config"]
    settings = parse(DiffusionSpec, config["diffusion"], "diffusion")
    measure = {"toy": _toy, "exact": _exact, "run": _run}[config["subject"]]
    found = measure(_Job(config, settings, inputs, out, device_of(spec)))
    write_json(out / "diffusion.json", {"subject": config["subject"], "device": computed_on(spec), **found})


@dataclass(frozen=True)
class _Job:
    """One subject: its configuration, its files, and the device that measures it."""

    config: dict[str, Any]
    settings: "DiffusionSpec"
    inputs: dict[str, list[Path]]
    out: Path
    """Gets the panels."""
    device: "torch.device"


def _toy(job: _Job) -> dict[str, Any]:
    from pygan.diffusion.toy import toy_study
    from pygan.metrics.memorization import RATIO, nn_ratio
    from pygan.metrics.neighbors import nearest

    record, points = toy_study(job.settings.toy, job.config["seed"])
    for name, system in record["systems"].items():
        near = nearest(points[name], points["train"])
        system["median_nearest"] = float(near.distance[:, 0].median())
        system["copies"] = float((nn_ratio(near) < RATIO).double().mean())
    return {**record, "numbers": {f"toy_{name}": system for name, system in record["systems"].items()}}


def _exact(job: _Job) -> dict[str, Any]:
    import torch

    from pygan.diffusion.study import exact_study

    pool = torch.cat([_pictures(path) for path in job.inputs["pictures"]])
    entries, panels, numbers = [], {}, {}
    for n in job.settings.exact.sizes:
        entry, pictures = exact_study(job.settings, n, pool, job.config["seed"], job.device)
        train = pictures.pop("train")
        entry["copying"] = {}
        for name, samples in pictures.items():
            entry["copying"][name], moved = _copying(samples, train, job.settings)
            if name != "held_out":
                entry["copying"][name]["energy_distance"] = _from_held_out(samples, pictures["held_out"])
            numbers[f"{name}_{n}"] = dict(entry["copying"][name])
            if name in ("optimum", "gaussian"):
                panel = f"neighbors_{n}_{name}.png"
                _save_panel(job.out / panel, samples, train, moved)
                panels[panel] = f"{name}, n = {n:,}"
        for name, found in entry["information"].items():
            numbers[f"{name}_{n}"]["information"] = found["proxy"]
        entries.append(entry)
    record = {"dataset": job.settings.exact.dataset, "seed": job.config["seed"], "sizes": entries}
    return {**record, "panels": panels, "numbers": numbers}


def _run(job: _Job) -> dict[str, Any]:
    import torch

    from pygan.data.store import Store
    from pygan.data.subset import parse_subset, select
    from pygan.diffusion.generalization import information, two_model_test
    from pygan.diffusion.study import as_float, divide, run_study
    from pygan.draws import permutation
    from pygan.sampling import load_generator, sample

    run, seed = job.config["run"], job.config["seed"]
    pictures, others = (_pictures(job.inputs[split][0]) for split in ("train", "validation"))
    subset = None if job.config["subset"] is None else parse_subset(job.config["subset"])
    chosen = torch.from_numpy(select(Store(job.inputs["train"][0]).labels, subset, seed))
    unused = torch.ones(len(pictures), dtype=torch.bool).index_fill_(0, chosen, False)

    def shuffled(x: "Tensor", stream: str) -> "Tensor":
        return x[permutation(seed, f"diffusion/{stream}", len(x))]

    train, rest = shuffled(pictures[chosen], "train"), shuffled(pictures[unused], "rest")
    others = shuffled(others, "others").tensor_split([job.settings.samples])
    # held out are pictures of the validation split: what is left of the training split may overlap with what was chosen
    real = divide(torch.cat([train, others[0], rest, others[1]]), len(chosen), job.settings, f"runs.{run}.subset")
    snapshots = []
    for path in sorted(job.inputs["snapshot"]):
        G = load_generator(path).to(job.device)
        samples = as_float(sample(G, job.settings.samples, seed=seed, stream="diffusion"))
        copying, moved = _copying(samples, real.train, job.settings)
        copying["energy_distance"] = _from_held_out(samples, real.held_out)
        snapshots.append({"nimg": int(path.stem), "copying": copying})
    _save_panel(job.out / "neighbors.png", samples, real.train, moved)
    record = {
        "run": run,
        "dataset": job.config["dataset"],
        "objective": job.config["loss"]["kind"] if isinstance(job.config["loss"], dict) else None,
        "seed": seed,
        "n": len(chosen),
        "snapshots": snapshots,
        "held_out": _copying(real.held_out, real.train, job.settings)[0],
        "information": information(samples, real, job.settings.components),
        "panels": {"neighbors.png": f"{run}, seed {seed}, n = {len(chosen):,}"},
    }
    measured = copying | {"information": record["information"]["proxy"]}
    record["numbers"] = {run: measured, f"{run}_held_out": record["held_out"]}
    if hasattr(G, "denoiser"):
        found, copied = run_study(
            job.settings, G.denoiser, real, mirror=job.config["mirror"], steps=G.steps, seed=seed, device=job.device
        )
        of_optimum = {"energy_distance": _from_held_out(copied, real.held_out)}
        record |= found | {"optimum": _copying(copied, real.train, job.settings)[0] | of_optimum}
        record["numbers"][f"{run}_optimum"] = record["optimum"]
    if hasattr(G, "denoiser") and "other" in job.inputs:
        models = (G, load_generator(job.inputs["other"][0]).to(job.device))
        record["two_model_test"] = two_model_test(
            *(as_float(sample(model, job.settings.samples, seed=0, stream="diffusion/two_models")) for model in models)
        )
    return record


def _pictures(path: Path) -> "Tensor":
    """Return all pictures of a store, uint8 `[N, C, H, W]`."""
    import numpy as np
    import torch

    from pygan.data.store import Store

    store = Store(path)
    return torch.from_numpy(store.read(np.arange(len(store))))


def _copying(samples: "Tensor", train: "Tensor", settings: "DiffusionSpec") -> "tuple[dict[str, float], Moved]":
    """Return how samples relate to single training pictures, and their nearest ones over flips, shifts, brightness.

    Samples are rounded to 8 bits first, as pictures are when they are written.
    """
    from pygan.diffusion.study import as_float
    from pygan.metrics.memorization import RATIO, authentic, calibrated_distance, nn_ratio
    from pygan.metrics.neighbors import nearest, nearest_moved
    from pygan.sampling import to_uint8

    samples = as_float(to_uint8(samples))
    near = nearest(samples, train, min(NEIGHBORS, len(train)))
    moved = nearest_moved(samples, train, shift=settings.shift, brightness=settings.brightness)
    values = samples[0].numel()
    measured = {
        "copies": nn_ratio(near) < RATIO,
        "copies_moved": nn_ratio(moved) < RATIO,
        "nearest": near.distance[:, 0] / values**0.5,
        "calibrated": calibrated_distance(near),
        "authentic": authentic(near, train),
    }
    return {name: float(value.double().mean()) for name, value in measured.items()}, moved


def _from_held_out(samples: "Tensor", held_out: "Tensor") -> float:
    """Return the energy distance of samples from held-out pictures, per value: of quality, copying says nothing."""
    from pygan.diffusion.toy import energy_distance

    return energy_distance(*(x.flatten(1).double() for x in (samples, held_out))) / samples[0].numel() ** 0.5


def _save_panel(path: Path, samples: "Tensor", train: "Tensor", moved: "Moved") -> None:
    from pygan.metrics.memorization import nearest_pairs, pairs_grid
    from pygan.sampling import to_uint8
    from pygan.sheets import save_grid

    pairs = nearest_pairs(moved, PAIRS)
    save_grid(path, pairs_grid(to_uint8(samples), to_uint8(train), pairs), columns=10)


if __name__ == "__main__":
    run_stage(main)
