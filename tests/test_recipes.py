"""Published configurations and recipes: the tables, the formulas, and that each is a run the library accepts."""

import json
import math

import pytest
import torch

from pygan.config import Run
from pygan.context import Context
from pygan.recipes import FAMILIES, FEW, PER_CLASS, RECIPES, SOME, budget, family, recipe
from pygan.spec import parse

# name: batch, GPUs, samples per minibatch deviation, channels x resolution / 32768, learning rate, R1, EMA, mapping
TABLE = {
    "stylegan2": (32, 8, 4, 1, 0.002, 10, 10, 8),
    "paper256": (64, 8, 8, 0.5, 0.0025, 1, 20, 8),
    "paper512": (64, 8, 8, 1, 0.0025, 0.5, 20, 8),
    "paper1024": (32, 8, 4, 1, 0.002, 2, 10, 8),
    "cifar": (64, 2, 32, 1, 0.0025, 0.01, 500, 2),
    "vision_aided_stylegan2": (16, 4, 4, 1, 0.002, 10, 10, 8),
    "vision_aided_paper256": (16, 2, 4, 0.5, 0.002, 1, 10, 8),
    "vision_aided_paper256_2fmap": (16, 2, 4, 1, 0.002, 1, 10, 8),
    "vision_aided_paper512": (16, 4, 4, 1, 0.0025, 0.5, 20, 8),
    "vision_aided_paper1024": (16, 4, 4, 1, 0.002, 2, 10, 8),
}


def kinds(values: dict) -> dict[str, dict]:
    return {term["kind"]: term for term in values["regularizers"]}


def as_run(values: dict) -> Run:
    """Read back from JSON, as a YAML file would be: no value may be of another type."""
    return parse(Run, {"dataset": "mine", **json.loads(json.dumps(values))})


@pytest.mark.parametrize("name", TABLE)
def test_a_family_is_its_row_of_the_published_table(name):
    batch, gpus, group, fmaps, lr, gamma, ema, layers = TABLE[name]
    values = family(name, 256)
    base, training = values["base"], values["training"]
    assert (training["batch"], training["g_lr"], training["d_lr"]) == (batch, lr, lr)
    assert training["batch_gpu"] == batch / gpus
    assert (base["mbstd_group"], base["channel_base"], base["mapping_layers"]) == (group, fmaps * 32768, layers)
    assert (kinds(values)["r1"]["gamma"], training["ema_halflife_kimg"]) == (gamma, ema)
    assert training["total_nimg"] == (100_000_000 if name == "cifar" else 25_000_000)
    assert values["augment"] == {"kind": "ada", "family": "bgc", "target": 0.6}


def test_the_table_of_the_test_is_whole():
    assert {*TABLE, "auto", "low_shot"} == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_have_in_common_what_the_paper_says(name):
    values = family(name, 128, processes=2)
    run = as_run(values)
    assert (run.base.z_dim, run.base.w_dim, run.base.channel_max) == (512, 512, 512)
    assert (run.base.half_resolutions, run.base.conv_clamp) == (4, 256)
    assert run.base.g_architecture == "skip"
    assert run.loss == "non_saturating"
    assert (run.training.betas, run.training.adam_eps) == ((0, 0.99), 1e-8)
    assert run.training.lazy == "separate" and run.training.sanitize_gradients and not run.training.tf32
    terms = kinds(values)
    assert terms["r1"]["every"] == 16
    assert run.training.g_lazy_every == (4 if name == "cifar" else None)
    if name == "cifar":
        assert "path_length" not in terms
        assert (run.base.d_architecture, run.base.style_mixing) == ("orig", 0)
        assert run.training.ema_rampup == 0.05
    else:
        assert (terms["path_length"]["weight"], terms["path_length"]["every"]) == (2, 4)
        assert (run.base.d_architecture, run.base.style_mixing) == ("resnet", 0.9)
        assert run.training.ema_rampup == (0.05 if name == "auto" else None)


@pytest.mark.parametrize(
    ("resolution", "gpus"), [(32, 1), (128, 1), (256, 1), (256, 2), (256, 8), (512, 8), (1024, 1), (1024, 4), (64, 100)]
)
def test_auto_follows_its_formulas(resolution, gpus):
    values = family("auto", resolution, processes=gpus)
    batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    assert values["training"]["batch"] == batch
    assert values["base"]["mbstd_group"] == min(batch // gpus, 4)
    assert values["base"]["channel_base"] == (32768 if resolution >= 512 else 16384)
    assert values["training"]["g_lr"] == (0.002 if resolution >= 1024 else 0.0025)
    assert kinds(values)["r1"]["gamma"] == pytest.approx(0.0002 * resolution**2 / batch)
    assert values["training"]["ema_halflife_kimg"] == pytest.approx(batch * 10 / 32)
    assert values["training"]["total_nimg"] == batch * math.ceil(25_000_000 / batch)


def test_reg_dgm_s_auto_run_of_256_pixels_on_8_gpus_has_the_published_gamma():
    assert kinds(family("auto", 256, processes=8))["r1"]["gamma"] == pytest.approx(0.2048)


def test_low_shot_is_the_default_of_diffaugment():
    values = family("low_shot", 256)
    assert values["augment"]["policy"] == ["color", "translation", "cutout"]
    assert (values["training"]["batch"], values["training"]["total_nimg"]) == (8, 304 * 1000 - 4000)
    assert values["base"]["mapping_layers"] == 2


@pytest.mark.parametrize("resolution", [16, 256])
@pytest.mark.parametrize("name", ["auto", "low_shot", "cifar", "vision_aided_paper256_2fmap"])
def test_a_family_s_networks_have_the_resolution(name, resolution):
    base = as_run(family(name, resolution)).base
    with torch.device("meta"):
        base.generator(Context(resolution=resolution))
        base.discriminator(Context(resolution=resolution))


@pytest.mark.parametrize(("arguments", "key"), [(("paper", 256), "family"), (("auto", 48), "resolution")])
def test_an_unknown_family_or_size_is_refused_by_name(arguments, key):
    with pytest.raises(ValueError, match=f"^{key}: got {arguments[0 if key == 'family' else 1]!r}"):
        family(*arguments)
    with pytest.raises(ValueError, match="processes: got 0"):
        family("auto", 32, processes=0)


@pytest.mark.parametrize(("kimg", "step", "parts"), [(25_000, 48, 10), (300, 8, 10), (1, 64, 2), (0.1, 32, 5)])
def test_a_budget_is_in_whole_steps_and_ends_where_the_official_loop_does(kimg, step, parts):
    values = budget(kimg, step, snapshots=parts)
    total = values["total_nimg"]
    assert total - step < kimg * 1000 <= total
    counts = values["snapshots"]
    assert counts[0] == 0 and counts[-1] == total and counts == sorted(set(counts))
    assert all(count % step == 0 for count in (*counts, values["tick_nimg"], values["checkpoint_nimg"]))


# Recipes


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("n_images", [1, FEW, SOME])
@pytest.mark.parametrize("resolution", [16, 256])
def test_a_recipe_is_a_run_that_the_library_accepts(n_images, resolution, device):
    chosen = recipe(n_images, resolution, num_classes=3, device=device)
    run = as_run(chosen.run)
    classes = 3 if run.base.conditional else 0
    with torch.device("meta"):
        run.base.generator(Context(resolution=resolution, num_classes=classes))
        run.base.discriminator(Context(resolution=resolution, num_classes=classes))
    assert chosen.name in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_each_choice_has_its_reason(name):
    chosen = recipe(500, 32, name=name)
    assert chosen.name == name and name in chosen.reasons["base"]
    for key, reason in chosen.reasons.items():
        value = chosen.run
        for part in key.split("."):
            value = value[part]
        assert reason == reason.strip() and len(reason) > 10


def test_the_number_of_pictures_and_the_device_choose():
    chosen = {
        (n, device): recipe(n, 64, device=device).name for n in (100, 3_000, 50_000) for device in ("cpu", "cuda")
    }
    assert chosen == {
        (100, "cpu"): "small",
        (3_000, "cpu"): "small",
        (50_000, "cpu"): "residual",
        (100, "cuda"): "low_shot",
        (3_000, "cuda"): "auto",
        (50_000, "cuda"): "auto",
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_pictures_train_longer_and_average_no_shorter(device):
    runs = [recipe(n, 64, device=device).run["training"] for n in (100, 3_000, 50_000)]
    lengths = [run["total_nimg"] for run in runs]
    assert lengths == sorted(set(lengths))
    averages = [run["ema_halflife_kimg"] for run in runs]
    assert averages == sorted(averages)


@pytest.mark.parametrize(
    ("classes", "n_images", "expected"),
    [(0, 100, False), (1, 100, False), (5, 5 * PER_CLASS, True), (5, 5 * PER_CLASS - 1, False)],
)
def test_classes_are_learned_where_they_have_enough_pictures(classes, n_images, expected):
    assert recipe(n_images, 32, num_classes=classes).run["base"]["conditional"] is expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n_images": 0, "resolution": 32}, "n_images: got 0"),
        ({"n_images": 9, "resolution": 33}, "resolution: got 33"),
        ({"n_images": 9, "resolution": 32, "name": "best"}, "recipe: got 'best'"),
    ],
)
def test_a_recipe_for_nothing_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        recipe(**arguments)


def test_two_recipes_share_no_values():
    first, second = (recipe(100, 32).run for _ in range(2))
    first["augment"]["policy"].append("color")
    assert second["augment"]["policy"] == ["color", "translation", "cutout"]
