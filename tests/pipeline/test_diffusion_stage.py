"""Stage `diffusion` on tiny pictures: every subject is measured, and what copies is told from what does not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from stand_in_device import stand_in_gpu

from pipeline import diffusion
from pygan.checkpoint import write_tensors
from pygan.context import Context
from pygan.data.pictures import ArrayPicture
from pygan.data.store import Store, write_store
from pygan.data.subset import NShot, select
from pygan.diffusion.study import DiffusionSpec, measured
from pygan.draws import permutation
from pygan.errors import ConfigError
from pygan.sampling import describe, untrained_generator
from pygan.spec import parse

SETTINGS = {"samples": 8, "calibration": 10, "components": 4, "sigmas": [0.1, 1.0, 5.0], "sampler_steps": 4, "shift": 1}
TOY = {"points": 8, "hidden": 4, "steps": 2, "batch": 4, "samples": 8, "sampler_steps": 2, "sigmas": [0.1]}
EXACT = {"dataset": "tiny", "sizes": [6, 12], "ancestral_steps": 5}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures of 8 pixels with smooth structure: shades that differ by picture, and a little noise."""
    folder, noise = tmp_path_factory.mktemp("tiny"), torch.Generator().manual_seed(0)
    for split, n in (("train", 30), ("validation", 12), ("test", 12)):
        coarse = torch.rand(n, 3, 2, 2, generator=noise)
        smooth = torch.nn.functional.interpolate(coarse, size=8, mode="bilinear", align_corners=True)
        img = (20 + 200 * smooth + 10 * torch.rand(n, 3, 8, 8, generator=noise)).byte()
        items = [(ArrayPicture(f"picture {i}", picture.numpy()), 0) for i, picture in enumerate(img)]
        write_store(folder / f"{split}.lmdb", items, resolution=8)
    return {split: folder / f"{split}.lmdb" for split in ("train", "validation", "test")}


def measure(
    out: Path, subject: str, inputs: dict[str, list[Path]], section: dict[str, Any], device: str = "cpu", **more: Any
) -> Any:
    out.mkdir(exist_ok=True)
    config = {"subject": subject, "diffusion": SETTINGS | {"toy": None} | section, **more}
    spec = {"stage": "diffusion", "config": config, "device": {"type": device, "why": "as in the test"}}
    diffusion.main(spec, inputs=inputs, out=out)
    return json.loads((out / "diffusion.json").read_text())


def assert_claimable(record: dict[str, Any], section: dict[str, Any], *denoisers: str) -> None:
    """What a configuration lets claims be about is what the stage writes."""
    settings = parse(DiffusionSpec, SETTINGS | {"toy": None} | section, "diffusion")
    assert {subject: set(found) for subject, found in record["numbers"].items()} == {
        subject: set(names) for subject, names in measured(settings, denoisers).items()
    }


def test_the_toy_names_every_system(tmp_path: Path) -> None:
    record = measure(tmp_path, "toy", {}, {"toy": TOY}, seed=3)
    assert record["subject"] == "toy" and record["seed"] == 3 and record["points"] == 8
    systems = {"optimum", "optimum_ddim", "chain_optimum", "denoising", "chain", "held_out"}
    assert record["systems"].keys() == systems
    assert record["numbers"].keys() == {f"toy_{name}" for name in systems}
    assert_claimable(record, {"toy": TOY})
    for name, system in record["systems"].items():
        assert system.keys() == {"energy_distance", "radius_error", "median_nearest", "copies"}
        assert record["numbers"][f"toy_{name}"] == system
    assert record["profiles"].keys() == record["reverse"].keys() == {"denoising", "chain"}


def test_the_optimum_copies_and_the_gaussian_does_not(stores: dict[str, Path], tmp_path: Path) -> None:
    inputs = {"pictures": list(stores.values())}
    record = measure(tmp_path, "exact", inputs, {"exact": EXACT}, seed=0)
    assert [entry["n"] for entry in record["sizes"]] == [6, 12] and record["dataset"] == "tiny"
    for entry in record["sizes"]:
        for name in ("optimum", "ancestral"):
            copied = {"copies": 1, "copies_moved": 1, "nearest": 0, "calibrated": 0, "authentic": 0}
            found = {key: entry["copying"][name][key] for key in copied}
            assert found == pytest.approx(copied, abs=0.02)  # of four steps
        for name in ("gaussian", "held_out"):
            assert entry["copying"][name]["nearest"] > 0.02 and entry["copying"][name]["copies"] < 0.5
        assert entry["information"].keys() == {"optimum", "ancestral", "gaussian"}
        assert entry["two_model_test"]["optimum"]["ratio"] > entry["two_model_test"]["gaussian"]["ratio"]
        assert [point["sigma"] for point in entry["profiles"]["gaussian"]] == SETTINGS["sigmas"]
        assert entry["profiles"]["optimum"][0]["max_weight"] == pytest.approx(1)
        assert entry["reverse"]["gaussian"][0]["sigma"] == pytest.approx(80)
    assert record["numbers"]["optimum_12"]["copies"] == 1 and "information" in record["numbers"]["gaussian_6"]
    assert set(record["panels"]) == {f"neighbors_{n}_{name}.png" for n in (6, 12) for name in ("optimum", "gaussian")}
    # eight pairs, samples above their neighbors: two rows of ten pictures of eight pixels, twice their size
    assert all(Image.open(tmp_path / name).size == (160, 32) for name in record["panels"])
    assert_claimable(record, {"exact": EXACT})
    again = measure(tmp_path / "again", "exact", inputs, {"exact": EXACT}, seed=0)
    assert again == record


def test_the_energy_distance_is_that_of_all_pairs() -> None:
    x, y = torch.rand(3, 1, 2, 2).double(), torch.rand(4, 1, 2, 2).double()

    def mean(first: torch.Tensor, second: torch.Tensor) -> float:
        pairs = [(a - b).norm().item() for a in first for b in second if a is not b and not torch.equal(a, b)]
        return sum(pairs) / len(pairs)

    expected = (2 * mean(x, y) - mean(x, x) - mean(y, y)) / 4**0.5
    assert diffusion._from_held_out(x, y) == pytest.approx(expected)


def test_too_few_pictures_are_named(stores: dict[str, Path], tmp_path: Path) -> None:
    inputs = {"pictures": [stores["train"]]}
    with pytest.raises(ConfigError, match=r"diffusion\.exact\.sizes: got 12 training pictures of 30, expected 20 more"):
        measure(tmp_path, "exact", inputs, {"exact": EXACT}, seed=0)


def snapshots(folder: Path, base: dict[str, Any], nimgs: tuple[int, ...], loss: dict[str, Any] | None = None) -> Any:
    """Write snapshots of untrained networks of 8 pixels."""
    ctx, paths = Context(resolution=8), []
    for nimg in nimgs:
        torch.manual_seed(nimg)
        metadata = describe(base, ctx, nimg, loss)
        state = {f"G_ema.{name}": value for name, value in untrained_generator(metadata).state_dict().items()}
        paths.append(folder / f"{nimg:09d}.safetensors")
        write_tensors(paths[-1], state, metadata)
    return paths


RUN = {"seed": 2, "dataset": "tiny", "subset": {"kind": "n_shot", "n": 6}, "mirror": True}


def test_a_gan_gets_the_measures_of_samples(stores: dict[str, Path], tmp_path: Path) -> None:
    base = {"kind": "dcgan", "g_channels": 4, "d_channels": 4}
    inputs = {split: [stores[split]] for split in ("train", "validation")}
    inputs["snapshot"] = snapshots(tmp_path, base, (10, 20))
    record = measure(tmp_path / "out", "run", inputs, {}, **RUN, run="base", base=base, loss="hinge")
    assert (record["objective"], record["seed"], record["n"]) == (None, 2, 6)
    assert [snapshot["nimg"] for snapshot in record["snapshots"]] == [10, 20]
    assert record["snapshots"][0]["copying"]["copies"] == 0
    assert "profile" not in record and "two_model_test" not in record
    assert record["numbers"]["base"]["information"] == record["information"]["proxy"]
    assert record["numbers"]["base_held_out"] == record["held_out"]
    assert_claimable(record, {"runs": ["base"]})
    assert (tmp_path / "out" / "neighbors.png").is_file()


def test_a_denoiser_is_compared_with_the_optimum(stores: dict[str, Path], tmp_path: Path) -> None:
    base = {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "attention": []}
    loss = {"kind": "chain", "steps": 2}
    inputs = {split: [stores[split]] for split in ("train", "validation")}
    *inputs["snapshot"], other = snapshots(tmp_path, base, (10, 20, 30), loss)
    record = measure(tmp_path / "out", "run", inputs | {"other": [other]}, {}, **RUN, run="unet", base=base, loss=loss)
    assert record["objective"] == "chain" and len(record["snapshots"]) == 2
    # an untrained network predicts the mean that its preconditioning knows, D = c_skip z, whatever its weights
    first = record["profile"][0]
    skip = 0.5**2 / (0.5**2 + 0.1**2)
    assert first["sigma"] == 0.1 and first["excess"] > 0 and 0 < first["least_error"] < first["train_error"]
    chosen = torch.from_numpy(Store(stores["train"]).read(select(Store(stores["train"]).labels, NShot(n=6), 2)))
    x0 = chosen.float() / 127.5 - 1
    expected = ((1 - skip) * x0).square().mean() + (skip * 0.1) ** 2
    assert first["train_error"] == pytest.approx(float(expected), rel=0.1)
    assert record["variance"] == pytest.approx(float(x0.var(0, correction=0).mean()))
    assert record["two_model_test"]["ratio"] < 0.1
    # the optimum of the same pictures and their mirror images returns them
    assert record["optimum"]["copies_moved"] == 1 and record["optimum"] == record["numbers"]["unet_optimum"]
    assert_claimable(record, {"runs": ["unet"]}, "unet")
    # no picture that overlaps with a training picture is held out
    order = permutation(2, "diffusion/others", 12)[:8]
    held_out = torch.from_numpy(Store(stores["validation"]).read(order.numpy())).float() / 127.5 - 1
    expected = torch.cdist(held_out.flatten(1), x0.flatten(1)).min(1).values.mean() / x0[0].numel() ** 0.5
    assert record["held_out"]["nearest"] == pytest.approx(float(expected), rel=1e-4)
    assert [point["sigma"] for point in record["reverse"]] == pytest.approx([80, 0.002])


def assert_same_on_a_gpu(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: Any, **config: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("a real GPU is there, whose numbers differ by rounding")
    on_cpu = measure(folder / "cpu", *arguments, **config)
    with stand_in_gpu(monkeypatch):
        on_gpu = measure(folder / "gpu", *arguments, **config, device="cuda")
    assert (on_cpu.pop("device")["type"], on_gpu.pop("device")["type"]) == ("cpu", "cuda")
    assert on_gpu == on_cpu


def test_exact_denoisers_compute_on_a_gpu(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"pictures": list(stores.values())}
    assert_same_on_a_gpu(monkeypatch, tmp_path, "exact", inputs, {"exact": EXACT}, seed=0)


def test_a_denoiser_is_measured_on_a_gpu(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "attention": []}
    loss = {"kind": "denoising", "steps": 2}
    inputs = {split: [stores[split]] for split in ("train", "validation")}
    *inputs["snapshot"], other = snapshots(tmp_path, base, (10, 20), loss)
    config = RUN | {"run": "unet", "base": base, "loss": loss}
    assert_same_on_a_gpu(monkeypatch, tmp_path, "run", inputs | {"other": [other]}, {}, **config)
