"""Mistakes in a study file: each is refused in one sentence that names the key."""

from pathlib import Path

import pytest
import yaml
from edited_study import UNET, Edit, aided, also, at, denoiser, heads_alone, smoke_study, stages, stylegan2

from pygan.config import load
from pygan.errors import ConfigError


@pytest.fixture
def smoke() -> dict:
    return smoke_study()


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
        (at("runs.base.training.g_lazy_every", 4), "g_lazy_every: got 4 with lazy: merged, expected lazy: separate"),
        (at("processes", 3), "runs.base.training.batch: got 16, expected a multiple of the 3 processes"),
        (
            stylegan2(4, batch_gpu=6),
            "runs.s.base.mbstd_group: got 4, expected a divisor of the 6 pictures computed at a",
        ),
        (stylegan2(4, batch=6), "runs.s.base.mbstd_group: got 4, expected a divisor of the 6 pictures computed at a"),
        (stylegan2(3, batch_gpu=9), "runs.s.base.mbstd_group: got 3, expected a divisor of the 5 pictures computed at"),
        (stylegan2(32, g_batch=48), "runs.s.base.mbstd_group: got 32, expected a divisor of the 48 pictures computed"),
        (
            stylegan2(5, 2, batch=20, g_batch=16),
            "divisor of the 8 pictures computed at a time (training.g_batch, batch_",
        ),
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
    ("group", "processes", "training"),
    [
        (32, 1, {"batch_gpu": 8}),
        (4, 1, {"batch_gpu": 2}),
        (4, 8, {"batch": 16}),
        (32, 1, {"batch_gpu": 12, "batch": 24}),
    ],
)
def test_a_group_larger_than_a_micro_batch_is_the_micro_batch(smoke, group, processes, training, tmp_path) -> None:
    stylegan2(group, processes, **training)(smoke)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(smoke))
    assert load(path).runs["s"].base.mbstd_group == group


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
