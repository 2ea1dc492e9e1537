"""The shipped studies: published settings equal their tables, are planned, and train for two steps at tiny width."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fake_stages import ROOT, install

from pygan.context import Context
from pygan.pruning.masks import Masks, Round, bare_networks
from pygan.recipes import budget, family
from pygan.spec import load_spec, parse
from pygan.training.assemble import assemble
from pygan.training.gan import train
from pygan.training.spec import TrainingSpec

PAPER = sorted((ROOT / "config" / "paper").glob("*.yaml"))
SHIPPED = [*PAPER, ROOT / "config" / "cifar_pictures.yaml"]

FAMILY_OF = {
    # run: family, resolution, processes; what differs: thousand pictures, no augmentation
    "ada_1024/stylegan2": ("stylegan2", 1024, 8, None),
    "ada_1024/paper1024": ("paper1024", 1024, 8, None),
    "ada_afhq/ada": ("paper512", 512, 8, None),
    "ada_auto/ada": ("auto", 256, 1, None),
    "ada_cifar10/ada": ("cifar", 32, 2, None),
    "ada_ffhq_1k/ada": ("paper256", 256, 8, None),
    "ada_ffhq_5k/ada": ("paper256", 256, 8, None),
    "apa_ffhq_5k/stylegan2": ("auto", 256, 8, None),
    "diffaug_100_shot/diffaug": ("low_shot", 256, 1, None),
    "diffaug_animalface/diffaug": ("low_shot", 256, 1, 500),
    "lottery_stylegan2_cifar100/ada": ("cifar", 32, 2, 25_000),
    "reg_dgm_cifar10/stylegan2": ("cifar", 32, 2, 25_000),
    "reg_dgm_cifar10/ada": ("cifar", 32, 2, 60_000),
    "reg_dgm_cifar10/ada_apa": ("cifar", 32, 2, 100_000),
    "reg_dgm_ffhq_5k/stylegan2": ("paper256", 256, 8, 5_000),
    "reg_dgm_ffhq_5k/ada": ("paper256", 256, 8, 16_000),
    "reg_dgm_ffhq_5k/ada_apa": ("auto", 256, 8, 25_000),
    "vision_aided_animalface_cat/stylegan2_ada": ("vision_aided_paper256_2fmap", 256, 2, 3_500),
    "vision_aided_animalface_dog/stylegan2_ada": ("vision_aided_paper256_2fmap", 256, 2, 3_500),
    "vision_aided_ffhq_1k/stylegan2_ada": ("vision_aided_paper256", 256, 2, 6_500),
    "vision_aided_ffhq_5k/stylegan2_ada": ("vision_aided_paper256", 256, 2, 12_500),
    "vision_aided_lsun_cat_1k/stylegan2_ada": ("vision_aided_paper256", 256, 2, 6_500),
}
CLOCK = ("total_nimg", "snapshots", "tick_nimg", "checkpoint_nimg")


@cache
def study_of(path: Path) -> dict[str, Any]:
    """A study as plain values, parts that YAML anchors share copied."""
    return json.loads(json.dumps(yaml.safe_load(path.read_text())))


# What the files claim


@pytest.mark.parametrize("claim", FAMILY_OF)
def test_a_run_is_the_family_it_claims(claim: str) -> None:
    name, run = claim.split("/")
    values = study_of(ROOT / "config" / "paper" / f"{name}.yaml")["runs"][run]
    kind, resolution, processes, kimg = FAMILY_OF[claim]
    published = family(kind, resolution, processes)
    values["base"].pop("conditional", None)
    assert values["base"] == published["base"]
    assert values["loss"] == published["loss"]
    assert values["regularizers"] == published["regularizers"]
    if "augment" in values and values["augment"]["kind"] != "apa":
        assert values["augment"] == published["augment"]
    timeless = [{k: v for k, v in t.items() if k not in CLOCK} for t in (values["training"], published["training"])]
    assert timeless[0] == timeless[1]
    length = published["training"]["total_nimg"] if kimg is None else kimg * 1000
    assert values["training"]["total_nimg"] == length


def steps(run: dict[str, Any]) -> float:
    training = run["training"]
    return training["total_nimg"] / (training["batch"] * training.get("d_steps", 1))


def kinds(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {term["kind"]: term for term in run.get("regularizers", ())}


GSR = {
    # file/run: weight, beta, LeCam, D and G learning rates, D steps, batch, steps, decay and first step of the average
    "gsr_sngan_cifar10_lt/lt100": (0.5, 0.999, 0.3, 2e-4, 2e-4, 5, 64, 120_000, None, 0),
    "gsr_sngan_cifar10_lt/lt1000": (0.5, 0.999, 0.3, 2e-4, 2e-4, 5, 64, 120_000, None, 0),
    "gsr_biggan_cifar10_lt/lt100": (0.5, 0.99, 0.1, 2e-4, 2e-4, 5, 64, 120_000, 0.9999, 1_000),
    "gsr_biggan_cifar10_lt/lt1000": (0.5, 0.99, 0.1, 2e-4, 2e-4, 5, 64, 120_000, 0.9999, 1_000),
    "gsr_lsun_lt_64/sngan": (0.5, 0.999, 0.3, 2e-4, 2e-4, 5, 64, 120_000, None, 0),
    "gsr_lsun_lt_64/biggan": (0.5, 0.99, 0.3, 2e-4, 2e-4, 5, 64, 200_000, 0.9999, 1_000),
    "gsr_lsun_lt_128/sngan": (0.5, 0.999, 1.0, 2e-4, 2e-4, 5, 64, 120_000, 0.9999, 20_000),
    "gsr_lsun_lt_128/biggan": (0.01, 0.99, 0.5, 4e-4, 1e-4, 5, 64, 120_000, 0.9999, 1_000),
    "gsr_biggan_inaturalist/biggan": (0.01, 0.999, 0.01, 2e-4, 2e-4, 2, 256, 200_000, 0.9999, 20_000),
}


@pytest.mark.parametrize("row", GSR)
def test_gsr_settings_are_the_release_s(row: str) -> None:
    name, arm = row.split("/")
    weight, beta, lecam, d_lr, g_lr, d_steps, batch, length, decay, start = GSR[row]
    run = study_of(ROOT / "config" / "paper" / f"{name}.yaml")["runs"][f"{arm}_lecam_gsr"]
    training, terms = run["training"], kinds(run)
    assert (terms["group_spectral"]["weight"], terms["group_spectral"]["beta"]) == (weight, beta)
    assert (terms["lecam"]["form"], terms["lecam"]["weight"]) == ("gsr", lecam)
    assert (training["d_lr"], training["g_lr"], training["adam_eps"]) == (d_lr, g_lr, 1e-6)
    assert (training["d_steps"], training["batch"], steps(run)) == (d_steps, batch, length)
    assert (run["gen_labels"], run["mirror"], run["loss"]) == ("uniform", True, "hinge")
    assert_decay(training, decay, start)


LOTTERY = {
    # file/run: D and G learning rates, moments, epsilon, D steps, batches of D and G, steps, average
    "lottery_sngan_cifar10/dense_10": (2e-4, 2e-4, [0.0, 0.9], 1e-8, 5, 64, 128, 50_000, 0.999, 0),
    "lottery_biggan_cifar10/dense_10": (2e-4, 2e-4, [0.5, 0.999], 1e-6, 5, 64, 64, 100_000, 0.9999, 1_000),
    "lottery_biggan_cifar10/found_10": (2e-4, 2e-4, [0.5, 0.999], 1e-6, 5, 64, 64, 50_000, 0.9999, 1_000),
    "lottery_biggan_cifar100/dense_10": (2e-4, 2e-4, [0.5, 0.999], 1e-6, 5, 64, 64, 100_000, 0.9999, 1_000),
    "lottery_biggan_cifar100/diffaug_10": (2e-4, 2e-4, [0.5, 0.999], 1e-6, 5, 64, 64, 200_000, 0.9999, 1_000),
    "lottery_biggan_tiny_imagenet/dense_10": (4e-4, 1e-4, [0.0, 0.999], 1e-6, 1, 256, 256, 100_000, 0.9999, 20_000),
    "lottery_biggan_imagenet/dense": (5e-4, 2e-4, [0.0, 0.999], 1e-6, 2, 256, 256, 100_000, 0.9999, 20_000),
    "vision_aided_biggan_cifar10/conditional_100": (2e-4, 2e-4, [0.0, 0.999], 1e-8, 4, 50, 50, 250_000, 0.9999, 1_000),
    "vision_aided_biggan_cifar10/conditional_10": (2e-4, 2e-4, [0.0, 0.999], 1e-8, 4, 50, 50, 25_000, 0.9999, 1_000),
}


@pytest.mark.parametrize("row", LOTTERY)
def test_lottery_and_biggan_settings_are_the_releases(row: str) -> None:
    name, arm = row.split("/")
    d_lr, g_lr, betas, eps, d_steps, batch, g_batch, length, decay, start = LOTTERY[row]
    run = study_of(ROOT / "config" / "paper" / f"{name}.yaml")["runs"][arm]
    training = run["training"]
    assert (training["d_lr"], training["g_lr"], training["betas"]) == (d_lr, g_lr, betas)
    assert training.get("adam_eps", 1e-8) == eps
    assert (training.get("d_steps", 1), training["batch"], training.get("g_batch", batch)) == (d_steps, batch, g_batch)
    assert (steps(run), run["loss"]) == (length, "hinge")
    assert_decay(training, decay, start)


def assert_decay(training: dict[str, Any], decay: float | None, start: int) -> None:
    """The average's half-life is the published decay per generator step; None: it is as good as off."""
    per_step = training["batch"] * training.get("d_steps", 1)
    assert training["ema_rampup"] is None
    found = 0.5 ** (per_step / (training["ema_halflife_kimg"] * 1000))
    if decay is None:
        assert found < 1e-9
    else:
        assert 1 - found == pytest.approx(1 - decay, rel=1e-3)
    assert training.get("ema_start_nimg", 0) == start * per_step


@pytest.mark.parametrize(
    ("name", "run", "weight"),
    [
        ("reg_dgm_ffhq_5k", "reg_stylegan2", 50),
        ("reg_dgm_ffhq_5k", "reg_ada", 1),
        ("reg_dgm_ffhq_5k", "reg_ada_apa", 0.5),
        ("reg_dgm_cifar10", "reg_stylegan2", 1e-5),
        ("reg_dgm_cifar10", "reg_ada", 5e-6),
        ("reg_dgm_cifar10", "reg_ada_apa", 0.1),
    ],
)
def test_reg_dgm_adds_the_published_weight_and_nothing_else(name: str, run: str, weight: float) -> None:
    runs = study_of(ROOT / "config" / "paper" / f"{name}.yaml")["runs"]
    plain, aided = runs[run.removeprefix("reg_")], runs[run]
    (term,) = (term for term in aided["regularizers"] if term not in plain["regularizers"])
    assert (term["kind"], term["energy"], term["weight"]) == ("reg_dgm", "paired", weight)
    assert {k: v for k, v in aided.items() if k != "regularizers"} == {
        k: v for k, v in plain.items() if k != "regularizers"
    }
    assert len(aided["regularizers"]) == len(plain["regularizers"]) + 1


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_study_says_what_it_reproduces(path: Path) -> None:
    """A paper's file names its venue and what the published number is, or that there is none."""
    head = path.read_text().split("\nname: ")[0]
    assert head.startswith("# ") and all(len(line) <= 120 for line in path.read_text().splitlines())
    if path in PAPER:
        assert re.search(r"(NeurIPS|CVPR|ICLR|ECCV) 20\d\d", head.replace("\n# ", " "))
        assert re.search(r"(FID|value)", head)


AIDED = [path for path in PAPER if path.stem.startswith("vision_aided_")]
CLIP_MEAN, IMAGENET_STD = (0.48145466, 0.4578275, 0.40821073), (0.229, 0.224, 0.225)


def frozen_entries(value: Any) -> list[dict[str, Any]]:
    """Every frozen network of a study: in the bank, or named in a run."""
    if isinstance(value, list):
        return [entry for item in value for entry in frozen_entries(item)]
    if not isinstance(value, dict):
        return []
    found = [value] if value.get("kind") in ("swin", "dino_vit") else []
    return found + [entry for inner in value.values() for entry in frozen_entries(inner)]


@pytest.mark.parametrize("path", AIDED, ids=lambda path: path.stem)
def test_self_supervised_networks_see_the_mean_of_the_authors(path: Path) -> None:
    """Their code gives DINO and MoBY's Swin the mean of CLIP and the deviation of ImageNet."""
    entries = [entry for entry in frozen_entries(study_of(path)) if "training" not in entry]
    assert {entry["kind"] for entry in entries} == {"swin", "dino_vit"}
    for kind in ("swin", "dino_vit"):
        assert {entry.get("mean") for entry in entries if entry["kind"] == kind} == {"clip"}


@pytest.mark.parametrize("kind", ["swin", "dino_vit"])
def test_mean_clip_is_the_mean_of_clip_with_the_deviation_of_imagenet(kind: str) -> None:
    pytest.importorskip("timm")
    network = load_spec("pygan.features", {"kind": kind, "mean": "clip"})._architecture()
    gray = torch.full((3,), 0.25)  # in [-1, 1]
    seen = gray * network.scale.flatten() + network.shift.flatten()
    expected = ((gray + 1) / 2 - torch.tensor(CLIP_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(seen, expected)


def test_the_bank_has_the_order_of_the_authors_which_decides_ties() -> None:
    published = ["swin", "clip_vit", "dino_vit", "vgg16", "swin/ade20k", "swin/coco", "face_seg", "face_normals"]
    banks = [study_of(path)["bank"] for path in AIDED if "bank" in study_of(path)]
    assert len(banks) == 5
    for bank in banks:
        assert ["/".join(filter(None, (entry["kind"], entry.get("training")))) for entry in bank] == published


# Plans


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The dry runs of all shipped studies, without their data, in a copy of the tree."""
    pytest.importorskip("snakemake")
    folder = install(tmp_path_factory.mktemp("plans") / "tree")
    command = [sys.executable, str(Path(__file__).with_name("dry_runs.py")), str(folder)]
    command += [str(path.relative_to(ROOT)) for path in SHIPPED]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder.parent / "cache")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_study_is_planned(path: Path, plans: dict[str, dict[str, Any]]) -> None:
    plan, study = plans[str(path.relative_to(ROOT))], study_of(path)
    assert plan["ok"], plan["output"]
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan["output"], flags=re.M))
    assert int(jobs["evaluate"]) == len(study["runs"]) * len(study["seeds"])
    assert int(jobs["prepare_data"]) == len(study["datasets"])


# Two steps


class Pictures:
    """Random pictures in memory, with what training uses of a store."""

    def __init__(self, resolution: int) -> None:
        self.resolution, self.channels, self.path = resolution, 3, Path("random pictures")
        self.labels = np.arange(16) % 2
        self._pictures = np.random.default_rng(0).integers(0, 256, (16, 3, resolution, resolution), np.uint8)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self._pictures[rows]


WIDTHS = {
    "stylegan2": {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 4, "mapping_layers": 2, "mbstd_group": 2},
    "sngan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
    "biggan": {"z_dim": 8, "g_channels": 2, "d_channels": 2},
    "dcgan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
}
FROZEN = {"kind": "efficientnet_lite0", "resolution": 32, "random_init": True}


def shrunken(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run whose two steps take a second: networks, batches and pictures shrink, methods stay as they are.

    Intervals become 2, starts and warm-ups 0 and adaptive augmentations begin at p = 0.5, so that two steps see every
    term; frozen networks become one small architecture with random weights. A run that continues or prunes starts from
    the initialization; its own tests have the chain.
    """
    base, training = dict(run["base"]), run["training"]
    base |= WIDTHS[base["kind"]]
    if base["kind"] == "biggan":
        base |= {"shared_dim": 4} if base.get("shared_dim", 128) else {}
        base |= {key: 16 for key in ("g_attention", "d_attention") if base.get(key)}
    batch, d_steps = 4, min(training.get("d_steps", 1), 2)
    total = 2 * batch * d_steps
    timed = {"total_nimg": total, "snapshots": [total], "tick_nimg": total // 2, "checkpoint_nimg": total}
    training = training | timed | {"batch": batch, "d_steps": d_steps, "monitor_images": 2}
    training |= {"standing_batches": min(training.get("standing_batches", 8), 1)}
    training |= {key: 2 for key in ("batch_gpu", "g_batch") if key in training}
    if "ema_start_nimg" in training:
        training["ema_start_nimg"] = total // 2
    subset = run.get("subset")
    if subset is not None:
        small = {"n_shot": {"n": 12}, "fraction": {"fraction": 0.5}, "long_tailed": {"imbalance_factor": 4, "n_max": 8}}
        subset = subset | small[subset["kind"]]
    return {
        "seed": 0,
        "subset": subset,
        "mirror": run.get("mirror", False),
        "sampling": run.get("sampling", "natural"),
        "gen_labels": run.get("gen_labels", "natural"),
        "base": base,
        "loss": run.get("loss", "hinge"),
        "augment": _acting(run.get("augment")),
        "discriminators": [_acting(player) for player in run.get("discriminators", [{"kind": "plain"}])],
        "regularizers": [_acting(term) for term in run.get("regularizers", ())],
        "training": training,
    }


def _acting(method: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a method that acts within two steps and looks through a small frozen network."""
    if method is None:
        return None
    method = method | {key: 2 for key in ("every",) if key in method}
    method |= {key: 0 for key in ("start_step", "warmup_nimg") if key in method}
    if method["kind"] in ("ada", "apa"):
        method |= {"p": 0.5, "interval": 1}
    if method["kind"] == "vision_aided":
        method["smoothing"] = "always"
        if "augment" in method:
            method["augment"] = _acting(method["augment"])
        if "networks" in method:
            method["networks"] = [frozen_like(network) for network in method["networks"]]
    if "network" in method:
        method["network"] = frozen_like(method["network"])
    return method


def frozen_like(network: dict[str, Any]) -> dict[str, Any]:
    """A small frozen network with as many taps as heads have levels: three for the transformers, else one."""
    levels = 1 if "taps" in network or network["kind"] not in ("clip_vit", "dino_vit") else 3
    return FROZEN | {"taps": ["block1", "block3", "pooled"][-levels:] if levels > 1 else ["block4"]}


def pruned(config: dict[str, Any], run: dict[str, Any], resolution: int) -> Masks:
    """Half of the weights that a ticket would prune, chosen by the ticket's own rule where it has one."""
    ticket = run["ticket"] if run["ticket"]["kind"] == "lottery" else {"kind": "lottery", "found_in": "dense"}
    base = load_spec("pygan.networks", config["base"])
    ctx = Context(resolution=resolution, num_classes=2 if base.conditional else 0)
    state = {f"G.{name}": value for name, value in base.generator(ctx).state_dict().items()}
    state |= {f"G_ema.{name.removeprefix('G.')}": value for name, value in state.items()}
    last = Round(networks=bare_networks(base, ctx), state=state, masks={}, like=None, seed=0)
    return load_spec("pygan.pruning", ticket).next_masks(last)


def without_factors(value: Any) -> Any:
    """Values without their fractional numbers."""
    if isinstance(value, dict):
        return {key: without_factors(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_factors(inner) for inner in value]
    return None if isinstance(value, float) else value


def arms() -> list[Any]:
    """Every run of every study but those that, shrunken, differ from one before in factors and pictures only."""
    seen, chosen = set(), []
    for path in SHIPPED:
        for name, run in study_of(path)["runs"].items():
            config = without_factors(shrunken(run) | {"subset": None, "ticket": "ticket" in run})
            if (key := json.dumps(config, sort_keys=True)) not in seen:
                seen.add(key)
                chosen.append(pytest.param(run, id=f"{path.stem}/{name}"))
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("run", arms())
def test_a_run_trains_for_two_steps(run: dict[str, Any], tmp_path: Path) -> None:
    config = shrunken(run)
    resolution = 16 if config["base"]["kind"] == "dcgan" else 32
    aided = [player for player in config["discriminators"] if player["kind"] == "vision_aided"]
    chosen = sum(player.get("count", 1) for player in aided if "networks" not in player)
    frozen = tuple(
        load_spec("pygan.features", frozen_like({"kind": "swin"})).build(Context(resolution=0)) for _ in range(chosen)
    )
    masks = pruned(config, run, resolution) if "ticket" in run else None
    job, _ = assemble(
        config,
        store=Pictures(resolution),
        held_out=Pictures(resolution),
        class_names=("a", "b"),
        frozen=frozen,
        masks=masks,
        device=torch.device("cpu"),
    )
    before = {name: value.clone() for name, value in [*job.G.named_parameters(), *job.D.named_parameters()]}
    (tmp_path / "out").mkdir()
    train(job, parse(TrainingSpec, config["training"]), state_dir=tmp_path / "state", out_dir=tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "stats.jsonl").read_text().splitlines()]
    numbers = {key: value for line in lines for key, value in line.items() if isinstance(value, float)}
    assert lines[-1]["nimg"] == config["training"]["total_nimg"]
    assert all(np.isfinite(value) for value in numbers.values())
    seen = {key.split("/")[2] for key in numbers if re.fullmatch(r"loss/[DG]/\w+", key)}
    assert len(seen) == len(config["regularizers"])
    assert len(job.D) == 1 + sum(len(player.get("networks", ())) or player.get("count", 1) for player in aided)
    after = dict([*job.G.named_parameters(), *job.D.named_parameters()])
    assert any(not torch.equal(before[name], value) for name, value in after.items())


def test_budgets_of_the_files_are_those_of_the_library() -> None:
    """Where a file states a whole family's length, its snapshots are the library's."""
    training = study_of(ROOT / "config" / "paper" / "ada_ffhq_1k.yaml")["runs"]["ada"]["training"]
    assert {key: training[key] for key in CLOCK} == budget(25_000, 64)
