"""The study file: what is accepted, and that every refusal names the key."""

import fcntl
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from pipeline import schema
from pygan import assets, config
from pygan.checkpoint import write_tensors
from pygan.cli import app
from pygan.config import check_files, load
from pygan.config_measurements import measured_names
from pygan.errors import ConfigError, DataError, MissingInput

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted((ROOT / "config").rglob("*.yaml"))
Edit = Callable[[dict], None]


@pytest.fixture
def smoke() -> dict:
    return json.loads(json.dumps(yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_are_valid(path: Path) -> None:
    study = load(path)
    assert study.runs or study.theory or study.diffusion
    assert config.parse_study(study.plain()) == study


def test_the_default_study_has_a_claim_for_every_method_and_three_seeds() -> None:
    study = load(ROOT / "config" / "config.yaml")
    methods = {"vision_aided", "reg_dgm", "lottery", "feature_adversary", "group_spectral", "diffusion"}
    assert methods <= {claim.method for claim in study.claims} and len(study.seeds) >= 3


def test_the_schema_file_is_the_one_of_the_code() -> None:
    assert schema.TARGET.read_text() == schema.text(), "run `python -m pipeline.schema`"
    assert next(iter(yaml.safe_load(schema.TARGET.read_text()))) == "$schema"


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in ("config", "smoke") else pytest.mark.slow) for path in SHIPPED],
    ids=lambda path: path.stem,
)
def test_snakemake_fills_in_the_same_defaults(path: Path) -> None:
    utils = pytest.importorskip("snakemake.utils")
    values = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    utils.validate(values, str(schema.TARGET))
    assert values == load(path).plain()


def at(keys: str, value: object) -> Edit:
    """An edit that sets `runs.base.loss` and the like."""

    def edit(values: dict) -> None:
        *path, last = (int(key) if key.isdigit() else key for key in keys.split("."))
        for key in path:
            values = values[key]
        values[last] = value

    return edit


def also(network: str, metric: str = "fid", **values: object) -> Edit:
    return at("evaluate.also", [{"network": {"kind": network}, "metrics": [{"kind": metric}], **values}])


def aided(**values: object) -> Edit:
    return at("runs.vision_aided.discriminators.1", {"kind": "vision_aided", **values})


def heads_alone(**values: object) -> Edit:
    def edit(study: dict) -> None:
        run = study["runs"]["vision_aided"]
        run["discriminators"], run["regularizers"] = [{"kind": "vision_aided", **values}], []

    return edit


def denoiser(**fields: object) -> Edit:
    """A run more, `d`, that trains a denoiser at 32 pixels."""

    def edit(study: dict) -> None:
        training = json.loads(json.dumps(study["runs"]["base"]["training"]))
        study["runs"]["d"] = {"dataset": "land", "base": UNET, "loss": {"kind": "denoising"}, "training": training}
        for keys, value in fields.items():
            at(f"runs.d.{keys.replace('__', '.')}", value)(study)

    return edit


UNET = {"kind": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1}


def stages(old: int, new: int) -> Edit:
    """A second stage that starts from the best snapshot of `vision_aided`."""

    def edit(study: dict) -> None:
        first = study["runs"]["vision_aided"]
        second = json.loads(json.dumps(first)) | {"continues": {"run": "vision_aided", "nimg": "best"}}
        first["discriminators"][1]["count"], second["discriminators"][1]["count"] = old, new
        study["runs"]["second"] = second

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (at("seed", 1), "seed: unknown key, did you mean 'seeds'?"),
        (at("runs.base.training.bach", 1), "runs.base.training.bach: unknown key, did you mean 'batch'?"),
        (at("runs.base.base.g_chanels", 1), "runs.base.base.g_chanels: unknown key, did you mean 'g_channels'?"),
        (at("runs.base.regularizers.0.gama", 1), "runs.base.regularizers.0.gama: unknown key, did you mean 'gamma'?"),
        (at("runs.base.training.batch", "many"), "runs.base.training.batch: got 'many', expected a valid integer"),
        (at("runs.base.training.batch", True), "runs.base.training.batch: got True, expected a valid integer"),
        (at("runs.base.training.g_lr", "1e-3"), "YAML reads 1e-3 as text: write 0.001"),
        (at("runs.base.training.g_lr", -1), "runs.base.training.g_lr: got -1, expected greater than 0"),
        (at("runs.base.training.snapshots", [0, 320]), "runs.base.training: snapshots: the last one is 320"),
        (at("runs.base.loss", "hing"), "runs.base.loss: got 'hing', did you mean 'hinge'?"),
        (at("runs.base.base", {"kind": "dcgam"}), "runs.base.base.kind: got 'dcgam', did you mean 'dcgan'?"),
        (at("runs.base.base", {}), "runs.base.base: got {}, expected a mapping with the key 'kind'"),
        (at("runs.ticket.augment", {"policy": ["color"]}), "a mapping with the key 'kind' (one of ada, apa, diffaug, "),
        (at("runs.base.base", None), "runs.base.base: got None"),
        (at("runs.base.subset", {"kind": "n_shot"}), "runs.base.subset.n: the key is missing"),
        (at("runs.base.dataset", "lend"), "runs.base.dataset: got 'lend', did you mean 'land'?"),
        (at("runs.a/b", {}), "runs.a/b: a name is made of letters, digits and . _ -"),
        (at("datasets.land.resolution", 30), "runs.base.base:"),
        (at("bank.0", {"kind": "mobilenet_v2"}), "bank.0.kind: mobilenet_v2 judges the results"),
        (at("bank.1", {"kind": "efficientnet_lite0"}), "bank.1: efficientnet_lite0 is in the bank already"),
        (at("evaluate.network", {"kind": "hed_vgg16"}), "evaluate.network: hed_vgg16 is in the bank"),
        (also("hed_vgg16"), "evaluate.also.0.network: hed_vgg16 takes part in training, so it favors some runs: set"),
        (also("mobilenet_v2"), "evaluate.also.0.network: mobilenet_v2 judges already"),
        (also("pixels", n_gen=9), "evaluate.also.0.n_gen: got 9"),
        (also("pixels", n_gen=10**6), "evaluate.also.0.n_gen: got 1000000, expected at most the "),
        (also("pixels", "inception_score"), "evaluate.also.0.metrics.0: inception_score needs a classifier, pixels is"),
        (also("pixels", "cmmd"), "evaluate.also.0.metrics.0: cmmd needs embeddings of CLIP, got those of pixels"),
        (also("pixels", "intra"), "evaluate.also.0.metrics.0: intra needs labels"),
        (at("select.metric", {"kind": "memorization"}), "select.metric: memorization chooses no snapshot"),
        (at("select.metric", {"kind": "prdc"}), "select.metric: prdc chooses no snapshot"),
        (at("runs.base.training.g_lr", float("inf")), "runs.base.training.g_lr: got "),
        (at("runs.base.training.g_lr", float("nan")), "runs.base.training.g_lr: got "),
        (
            at("runs.base.regularizers.0", {"kind": "path_length"}),
            "runs.base.regularizers: path_length needs a base with",
        ),
        (at("runs.base.augment", {"kind": "ada", "family": "bgcx"}), "runs.base.augment.family: got 'bgcx', did you"),
        (at("seeds", [0, 0]), "seeds: got [0, 0], expected every seed once"),
        (at("seeds", []), "seeds: got []"),
        (at("bank", []), "vision_aided asks for 1 networks, but `bank` lists 0"),
        (at("runs.vision_aided.continues", None), "runs.vision_aided.continues: a vision_aided run needs it"),
        (at("runs.vision_aided.continues.run", "bse"), "continues.run: got 'bse', did you mean 'base'?"),
        (at("runs.vision_aided.continues.nimg", 160), "base lists no snapshot at 160 images"),
        (at("runs.vision_aided.continues.nimg", 640), "total_nimg: got 640, expected more than 640"),
        (at("runs.vision_aided.base.g_channels", 16), "base has another `base` than vision_aided"),
        (at("runs.base.continues", {"run": "vision_aided", "nimg": 320}), "is a circle"),
        (at("runs.ticket.ticket.found_in", "ticket"), "ticket -> ticket is a circle"),
        (at("runs.ticket.ticket.rewind_nimg", 160), "base lists no snapshot at 160 images"),
        (at("runs.ticket.ticket.fraction", 1.0), "runs.ticket.ticket.fraction: got 1.0, expected less than 1"),
        (at("runs.ticket.ticket.networks", ["E"]), "runs.ticket.ticket.networks.0: got 'E', expected one of G, D"),
        (at("runs.ticket.ticket.rounds", 0), "runs.ticket.ticket.rounds: got 0"),
        (
            at("runs.ticket.ticket", {"kind": "random", "found_in": "base", "sparsity": 1.5}),
            "runs.ticket.ticket.sparsity: got 1.5, expected less than 1",
        ),
        (
            at("runs.ticket.ticket", {"kind": "random", "found_in": "base", "like": "base"}),
            "runs.ticket.ticket.like: base has no ticket, expected a run with one",
        ),
        (
            at("runs.ticket.ticket", {"kind": "transfer", "mask_of": "ticket"}),
            "runs.ticket: ticket -> ticket is a circle",
        ),
        (
            at("runs.ticket.ticket", {"kind": "transfer", "mask_of": "tiket"}),
            "runs.ticket.ticket.mask_of: got 'tiket', did you mean 'ticket'?",
        ),
        (
            at("runs.ticket.base", {"kind": "dcgan", "g_channels": 16, "d_channels": 8}),
            "runs.ticket.ticket.found_in: base has another `base` than ticket",
        ),
        (
            at("runs.base.regularizers.0", {"kind": "feature_adversary", "gamma": -0.1}),
            "runs.base.regularizers.0.gamma: got -0.1, expected greater than or equal to 0",
        ),
        (
            at("runs.base.regularizers.0", {"kind": "feature_adversary", "steps": 0}),
            "runs.base.regularizers.0.steps: got 0, expected greater than or equal to 1",
        ),
        (at("runs.base.gen_labels", "uniform"), "runs.base.gen_labels: uniform needs labels, set `conditional: true`"),
        (
            at("runs.base.regularizers", [{"kind": "r1"}, {"kind": "group_spectral"}]),
            "runs.base.regularizers.1: group_spectral needs labels, set `conditional: true` in `base`",
        ),
        (at("evaluate.metrics", [{"kind": "intra"}]), "evaluate.metrics.0: intra needs labels, but no run has"),
        (at("select.metric", {"kind": "intra"}), "select.metric: intra is class-wise, expected a distance of all"),
        (at("runs.base.discriminators", [{"kind": "vision_aided"}]), "regularizers.0: r1 regularizes the base discri"),
        (at("runs.ticket.discriminators", [{"kind": "plain"}] * 2), "expected `plain` first and once"),
        (at("runs.vision_aided.continues.nimg", -1), "runs.vision_aided.continues.nimg: got -1"),
        (at("runs.vision_aided.continues.reset", ["all"]), "continues.reset.0: got 'all', expected one of optimizers"),
        (
            at("runs.ticket.continues", {"run": "vision_aided", "nimg": "best"}),
            "vision_aided has vision_aided, expected",
        ),
        (heads_alone(warmup_nimg=5), "discriminators.0.warmup_nimg: nobody plays meanwhile"),
        (heads_alone(), "continues.reset: base has another first discriminator"),
        (
            aided(networks=[{"kind": "pixels"}], objective="bce"),
            "no probe looks at named `networks`, so `smoothing` is always or never",
        ),
        (aided(networks=[{"kind": "pixels"}], pick="worst"), "have nothing to choose"),
        (aided(activation="relu"), "and `class_projection` need heads: spectral"),
        (stages(old=2, new=1), "expected the networks of vision_aided and perhaps more of them"),
        (at("anchors.untrained", "vision_aided"), "anchors.untrained: vision_aided writes no snapshot at 0 images"),
        (at("runs", {}), "runs: got none, expected at least one (or a `theory`, or `diffusion`)"),
        (at("select", None), "select: the key is missing"),
        (at("evaluate", None), "evaluate: the key is missing"),
        (at("theory", {"images": {"dataset": "lend"}}), "theory.images.dataset: got 'lend', did you mean 'land'?"),
        (at("diffusion", {"toy": None}), "diffusion: got neither `toy` nor `exact` nor `runs`"),
        (at("diffusion", {"exact": {"dataset": "lend"}}), "diffusion.exact.dataset: got 'lend', did you mean 'land'?"),
        (at("diffusion", {"exact": {"dataset": "land", "sizes": [1]}}), "diffusion.exact.sizes.0: got 1, expected"),
        (at("diffusion", {"sigmas": [0]}), "diffusion.sigmas.0: got 0, expected greater than 0"),
        (at("diffusion", {"runs": ["bse"]}), "diffusion.runs.0: got 'bse', did you mean 'base'?"),
        (at("diffusion", {"runs": ["base"], "shift": 16}), "diffusion.shift: got 16, expected less than half the side"),
        (at("theory", {"gausian": {}}), "theory.gausian: unknown key, did you mean 'gaussian'?"),
        (at("theory", {"gaussian": {"sigma": 0}}), "theory.gaussian.sigma: got 0, expected greater than 0"),
        (at("runs.base.regularizers", [{"kind": "reg_dgm", "ratio": 1, "weight": 1}]), "got weight 1.0 and ratio 1.0"),
        (at("runs.base.regularizers", [{"kind": "reg_dgm", "weight": -1}]), "weight: got -1, expected greater than or"),
        (
            at("runs.base.regularizers", [{"kind": "reg_dgm", "network": {"kind": "mobilenet_v2"}}]),
            "network.kind: mobilenet_v2 judges the results, so it cannot take part in training",
        ),
        (denoiser(loss="hinge"), "runs.d.loss: got hinge, expected a mapping such as {kind: denoising}, because unet"),
        (denoiser(loss={"kind": "chian"}), "runs.d.loss.kind: got 'chian', did you mean 'chain'?"),
        (denoiser(loss={"kind": "chain", "gaps": 1}), "runs.d.loss.gaps: unknown key, did you mean 'gap'?"),
        (denoiser(loss={"kind": "chain", "gap": [0, 2]}), "runs.d.loss: gap: got [0.0, 2.0], expected"),
        (denoiser(loss={"kind": "denoising", "sigma_data": 0}), "runs.d.loss.sigma_data: got 0, expected greater than"),
        (denoiser(loss={}), "runs.d.loss: got {}, expected a mapping with the key 'kind' (one of chain, denoising)"),
        (denoiser(base={**UNET, "multipliers": [1] * 7}), "runs.d.base: resolution: got 32, expected a multiple of 64"),
        (denoiser(discriminators=[{"kind": "vision_aided"}]), "runs.d.discriminators: unet is a denoiser, which has"),
        (denoiser(regularizers=[{"kind": "r1"}]), "runs.d.regularizers: unet is a denoiser, expected the key to be"),
        (denoiser(ticket={"kind": "lottery", "found_in": "base"}), "runs.d.ticket: unet is a denoiser, expected the"),
        (denoiser(augment={"kind": "ada"}), "runs.d.augment: ada cannot tell a denoiser what it did, expected labeled"),
        (
            denoiser(augment={"kind": "labeled_warp"}, base={**UNET, "augment_labels": 3}),
            "runs.d.base.augment_labels: got 3, expected 6, those of labeled_warp",
        ),
        (denoiser(training__d_steps=2), "runs.d.training.d_steps: unet is a denoiser, expected the key to be left out"),
        (denoiser(gen_labels="uniform"), "runs.d.gen_labels: uniform needs labels, set `conditional: true`"),
        (
            at("runs.base.loss", {"kind": "chain"}),
            "runs.base.loss: chain trains a denoiser such as unet, but the base is dcgan",
        ),
        (
            at("runs.base.augment", {"kind": "labeled_warp"}),
            "runs.base.augment: labeled_warp is for denoisers, but the base is dcgan",
        ),
        (at("anchors.real", "sea"), "anchors.real: got 'sea', expected one of land"),
        (at("claims.0.arm", "vision"), "claims.0.arm: got 'vision', did you mean 'vision_aided'?"),
        (at("claims.0.against", "vision_aided"), "claims.0.against: 'vision_aided' cannot be compared with itself"),
        (
            at("claims.0.equal_time", "vision_aided"),
            "claims.0.equal_time: 'vision_aided' cannot be compared with itself",
        ),
        (at("runs.vision_aided.init_from", "a"), "init_from: a run with `continues` has another start already"),
        (at("runs.ticket.init_from", "a"), "runs.ticket.init_from: a run with `ticket` has another start already"),
        (at("runs.base.init_from", "a"), "anchors.untrained: base writes no snapshot at 0 images"),
        (at("claims.0.equal_time", "longer"), "claims.0.equal_time: got 'longer', expected one of base, ticket"),
        (at("runs.base.evaluate", False), "claims.0.against: base has `evaluate: false`, expected a run that is"),
        (at("runs.base.evaluate", 0), "runs.base.evaluate: got 0, expected"),
        (at("claims.0.stage", "diffusion"), "claims.0.stage: got diffusion, but the study has no section `diffusion`"),
        (at("claims.0.method", "lottery"), "claims.0.method: got 'lottery', expected one of"),
        (at("claims.0.metric", "fd_mobilenet"), "claims.0.metric: got 'fd_mobilenet', did you mean 'fd_mobilenet_v2'?"),
    ],
)
def test_a_mistake_is_refused_with_its_key(smoke: dict, edit: Edit, words: str, tmp_path: Path) -> None:
    edit(smoke)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(smoke))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "line 2: the key 'name' is there twice"),
        ("runs: {base: {dataset: a, dataset: b}}\n", "the key 'dataset' is there twice"),
        ("runs:\n  no: {}\n", "line 2: the key 'no' is read as False, put it in quotes"),
        ("runs:\n\tbase: 1\n", "line 2: not YAML"),
        ("runs: [\n", "not YAML"),
        ("- 1\n", "the study: got"),
        ("", "the study: got"),
    ],
)
def test_yaml_pitfalls(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"study\.yaml: ") as caught:
        load(path)
    assert words in str(caught.value)


@pytest.mark.parametrize("family", ["bgcf", "bgcfn", "bgcfnc"])
def test_the_image_space_filter_needs_pictures_wider_than_its_reach(smoke: dict, family: str) -> None:
    smoke["runs"]["ticket"]["augment"] = {"kind": "ada", "family": family}
    config.check(config.parse_study(smoke))  # at 32 pixels
    smoke["datasets"]["land"]["resolution"] = 16
    words = f"^runs.ticket: augment.family: {family} does not fit the data: .* more than 21 pixels a side"
    with pytest.raises(ConfigError, match=words):
        config.check(config.parse_study(smoke))


def test_path_lengths_in_an_intermediate_latent_space(smoke: dict) -> None:
    base = {"base": {"kind": "stylegan2", "conditional": False}, "regularizers": [{"kind": "path_length"}]}
    smoke |= {"runs": {"base": smoke["runs"]["base"] | base}, "bank": [], "claims": []}
    config.check(config.parse_study(smoke))


@pytest.mark.parametrize("folders", [(".",), ("a", "b")])
def test_a_conditional_run_needs_labels(smoke: dict, folders: tuple[str, ...], tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(exist_ok=True)
        for n in range(12):
            picture = Image.effect_noise((32, 32), n + 1).convert("RGB")
            picture.save(tmp_path / folder / f"{folder.strip('.')}{n}.png")
    smoke["runs"] = {"base": smoke["runs"]["base"]}
    smoke["runs"]["base"]["base"]["conditional"] = True
    smoke["datasets"]["land"]["source"] = {"kind": "folder", "path": str(tmp_path)}
    study = config.parse_study(smoke)
    if len(folders) == 2:
        check_files(study)
        return
    with pytest.raises(ConfigError, match=r"^runs\.base\.base\.conditional: land has no labels, expected at least two"):
        check_files(study)


def test_anchors_and_merged_keys_are_no_duplicates(tmp_path: Path) -> None:
    text = (ROOT / "config" / "smoke.yaml").read_text()
    assert "<<: *base" in text
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("<<: *base", "<<: *base\n    loss: hinge", 1))
    assert load(path).runs["ticket"].dataset == "land"


LONG_TAILED = """
name: long-tailed land
seeds: [0]
datasets:
  land: {source: {kind: earthcover}, resolution: 32}
runs:
  tail: &tail
    dataset: land
    base: {kind: sngan, release: gsr, g_channels: 32, d_channels: 32, conditional: true}
    augment: {kind: diffaug}
    regularizers: [{kind: group_spectral, weight: 0}]
    training: &training {batch: 32, total_nimg: 6400, snapshots: [0, 6400]}
  gsr:
    <<: *tail
    regularizers: [{kind: group_spectral, weight: 0.5, beta: 0.999}]
  l2:
    <<: *tail
    regularizers: [{kind: group_spectral, weight: 0}, {kind: class_affine_l2, weight: 0.5, beta: 0.999}]
  tables:
    <<: *tail
    regularizers: [{kind: group_spectral, weight: 0}, {kind: class_affine_spectral}]
  balanced:
    <<: *tail
    sampling: balanced
    gen_labels: uniform
select: {metric: {kind: kid}}
evaluate:
  metrics: [{kind: fid}, {kind: kid}, {kind: intra}]
  network: {kind: mobilenet_v2}
claims:
  - {id: gsr, method: group_spectral, statement: gSR keeps the tail diverse., arm: gsr, against: tail, control: l2,
     metric: diversity_tail, direction: higher, minimum_effect: 0.05}
  - {id: kid, method: group_spectral, statement: gSR brings the tail closer., arm: gsr, against: tail, control: l2,
     metric: kid_tail_mobilenet_v2, direction: lower, minimum_effect: 0.02}
"""


def test_a_long_tailed_study_with_its_controls(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(LONG_TAILED)
    assert load(path).runs["gsr"].gen_labels == "natural"


def test_a_term_of_weight_0_is_no_method(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(LONG_TAILED.replace("arm: gsr, against: tail", "arm: tail, against: gsr"))
    with pytest.raises(ConfigError, match=r"claims\.0\.method: got 'group_spectral', expected one of diffaug"):
        load(path)


def test_the_same_start_as_another_run_is_a_vision_aided_run_from_the_beginning(smoke: dict) -> None:
    smoke["runs"]["vision_aided"]["continues"]["nimg"] = 0
    config.check(config.parse_study(smoke))


@pytest.mark.parametrize(
    "edit",
    [
        stages(old=1, new=2),
        stages(old=1, new=1),
        aided(networks=[{"kind": "efficientnet_lite0", "random_init": True}, {"kind": "pixels"}]),
        at("runs.vision_aided.discriminators.1", {"kind": "vision_aided", "pick": "worst", "random_init": True}),
    ],
)
def test_stages_and_controls_are_accepted(smoke: dict, edit: Edit) -> None:
    edit(smoke)
    config.check(config.parse_study(smoke))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("against", "optimum_100", None),
        ("arm", "toy_gaussian", r"claims\.0\.arm: got 'toy_gaussian', did you mean 'toy_"),
        ("against", "optimum_500", r"claims\.0\.against: got 'optimum_500', did you mean 'optimum_100'\?"),
        ("metric", "copy", r"claims\.0\.metric: got 'copy', did you mean 'copies'\?"),
        ("control", "base_held_out", r"claims\.0\.metric: got 'information', expected one of copies"),
    ],
)
def test_a_claim_about_diffusion_names_what_is_measured(smoke: dict, field: str, value: str, message: str) -> None:
    smoke["diffusion"] = {"toy": {}, "exact": {"dataset": "land", "sizes": [100]}, "runs": ["base"]}
    claim = {"id": "gap", "method": "diffusion", "statement": "Less is copied."}
    claim |= {"stage": "diffusion", "arm": "base", "against": "gaussian_100", "metric": "information"}
    claim |= {"direction": "lower", "minimum_effect": 0.1}
    smoke["claims"] = [claim | {field: value}]
    study = config.parse_study(smoke)
    with nullcontext() if message is None else pytest.raises(ConfigError, match=message):
        config.check(study)


def test_further_judges_have_numbers_of_their_own(smoke: dict) -> None:
    smoke["evaluate"]["metrics"] = [{"kind": "fid"}, {"kind": "prdc"}, {"kind": "inception_score"}]
    smoke["evaluate"]["also"] = [
        {"network": {"kind": "hed_vgg16"}, "metrics": [{"kind": "fid"}, {"kind": "prdc"}], "shared": True},
        {"network": {"kind": "clip_vit"}, "metrics": [{"kind": "cmmd"}]},
        {"network": {"kind": "timm", "model": "vit_small_patch14_dinov2"}, "metrics": [{"kind": "fid"}]},
    ]
    smoke["claims"][0]["metric"] = "recall_hed_vgg16"
    study = config.parse_study(smoke)
    config.check(study)
    shares = ["precision", "recall", "density", "coverage"]
    assert measured_names(study) == [
        *("fd_mobilenet_v2", *shares, "is_mobilenet_v2"),
        *(f"{name}_hed_vgg16" for name in ("fd", *shares)),
        *("cmmd_clip_vit", "fd_vit_small_patch14_dinov2"),
    ]


def test_heads_alone_begin_with_discriminators_of_their_own(smoke: dict) -> None:
    heads_alone()(smoke)
    smoke["runs"]["vision_aided"]["continues"]["reset"] = ["discriminators"]
    config.check(config.parse_study(smoke))


def test_a_tap_that_does_not_exist_is_found_before_anything_runs(smoke: dict) -> None:
    smoke["bank"][3]["taps"] = ["conv3", "conv9"]
    with pytest.raises(
        ConfigError, match="taps: mtcnn_onet has no 'conv9', expected some of conv3, conv4, pooled, face"
    ):
        check_files(config.parse_study(smoke))


def test_weights_are_looked_for_in_the_folder_of_the_study(smoke: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYGAN_WEIGHTS", "")
    monkeypatch.delenv("PYGAN_WEIGHTS")
    smoke["weights_dir"] = str(tmp_path)
    smoke["bank"].append({"kind": "dino_vit"})
    with pytest.raises(MissingInput, match=rf"{tmp_path}/dino_vitbase16_pretrain.pth is not there: run `pygan weights"):
        check_files(config.parse_study(smoke))


def test_a_missing_asset_is_named_with_the_command(smoke: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_locate", lambda entry: None)
    with pytest.raises(MissingInput, match="pygan assets install"):
        check_files(config.parse_study(smoke))


def test_a_ticket_may_come_from_other_pictures_of_the_same_size(smoke: dict) -> None:
    found = smoke["runs"]["ticket"]
    smoke["runs"]["worn"] = found | {"subset": None, "ticket": {"kind": "transfer", "mask_of": "ticket"}}
    config.check(config.parse_study(smoke))
    smoke["datasets"]["large"] = smoke["datasets"]["land"] | {"resolution": 64}
    smoke["runs"]["worn"]["dataset"] = "large"
    with pytest.raises(
        ConfigError, match=r"mask_of: ticket has pictures of another `resolution` \(32\) than worn \(64\)"
    ):
        config.check(config.parse_study(smoke))
    smoke["runs"]["worn"] |= {"dataset": "land", "base": found["base"] | {"g_channels": 16}}
    with pytest.raises(ConfigError, match="mask_of: ticket has another `base` than worn, expected the same"):
        config.check(config.parse_study(smoke))


def test_channels_need_a_base_that_has_some(smoke: dict) -> None:
    ticket = {"kind": "lottery", "found_in": "base", "structure": "channel", "scope": "layer"}
    smoke["runs"]["ticket"]["ticket"] = ticket
    config.check(config.parse_study(smoke))
    for run in smoke["runs"].values():
        run["base"] = {"kind": "stylegan2", "channel_base": 512}
    with pytest.raises(ConfigError, match=r"runs\.ticket\.ticket: structure: got channel, but stylegan2 has no"):
        config.check(config.parse_study(smoke))


def test_a_mask_file_is_looked_at_before_anything_starts(smoke: dict, tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    smoke["runs"]["ticket"]["ticket"] = {"kind": "transfer", "path": str(path)}
    study = config.parse_study(smoke)
    with pytest.raises(MissingInput, match=r"runs\.ticket\.ticket\.path: .*no such file"):
        check_files(study)
    write_tensors(path, {"G.convs.0.weight": torch.ones(16, 32, 3, 3, dtype=torch.uint8)})
    check_files(study)
    write_tensors(path, {"G.convs.0.weight": torch.ones(8, 32, 3, 3, dtype=torch.uint8)})
    with pytest.raises(
        DataError, match=r"another architecture, G\.convs\.0\.weight has shape \[8, 32, 3, 3\], expected"
    ):
        check_files(study)


def test_check_ends_with_the_exit_codes(smoke: dict, tmp_path: Path) -> None:
    runner = CliRunner()
    path = tmp_path / "study.yaml"
    smoke["sedes"] = 1
    path.write_text(yaml.safe_dump(smoke))
    result = runner.invoke(app, ["check", str(path)])
    assert result.exit_code == 78
    assert result.output == f"error: {path}: sedes: unknown key, did you mean 'seeds'?\n"
    assert runner.invoke(app, ["check", str(tmp_path / "none.yaml")]).exit_code == 66

    del smoke["sedes"]
    smoke["datasets"]["land"]["source"] = {"kind": "folder", "path": str(tmp_path / "no_pictures")}
    path.write_text(yaml.safe_dump(smoke))
    result = runner.invoke(app, ["check", str(path)])
    assert result.exit_code in (65, 66)
    assert "no_pictures" in result.output


def test_clean_keeps_the_newest_and_the_held(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "held", "old", "older")):
        job = tmp_path / "train" / name
        job.mkdir(parents=True)
        (job / "lock").write_text("")
        (job / "state").write_bytes(b"x" * 2**20)
        os.utime(job / "lock", (1000 - age, 1000 - age))
    with (tmp_path / "train" / "held" / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = CliRunner().invoke(app, ["clean", "--keep", "1", "--work", str(tmp_path)])
    assert result.exit_code == 0
    assert result.output == "2.0 MiB freed\n"
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["held", "newest"]


def test_what_is_not_measured_needs_neither_judge_nor_selection(smoke: dict) -> None:
    base = smoke["runs"]["base"] | {"evaluate": False}
    study = smoke | {"runs": {"base": base}, "claims": [], "anchors": {}, "bank": []}
    del study["select"], study["evaluate"]
    config.check(config.parse_study(study))
    with pytest.raises(ConfigError, match="select: the key is missing"):
        config.check(config.parse_study(study | {"anchors": {"copycat": "base"}}))
    stage = base | {"continues": {"run": "base", "nimg": "best"}}
    with pytest.raises(ConfigError, match="select: the key is missing"):
        config.check(config.parse_study(study | {"runs": {"base": base, "second": stage}}))


def test_a_denoiser_is_a_run_like_any_other(smoke: dict, tmp_path: Path) -> None:
    utils = pytest.importorskip("snakemake.utils")
    warp = {"kind": "labeled_warp"}
    denoiser(loss={"kind": "chain", "levels": "ddpm"}, augment=warp, continues={"run": "d", "nimg": 0})(smoke)
    smoke["runs"]["first"] = smoke["runs"]["d"] | {"continues": None}
    smoke["runs"]["d"]["continues"]["run"] = "first"
    smoke["claims"] = [smoke["claims"][0] | {"arm": "d", "against": "first", "method": "chain"}]
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(smoke))
    study = load(path)
    utils.validate(smoke, str(schema.TARGET))
    assert smoke == study.plain()
    assert study.runs["d"].loss.gap_steps == (50, 200)
