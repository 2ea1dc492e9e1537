"""A side's move: micro-batches, lazy terms, precision, sanitizing; and what a broken or too large one leaves behind."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from minibatch import std_alone
from tiny import BASE, SPEC, tiny_run

from pygan.checkpoint import read_tensors
from pygan.context import Context
from pygan.errors import ConfigError, NumericalError
from pygan.pruning.masks import Masked
from pygan.recipes import family
from pygan.spec import load_spec, parse
from pygan.training import stats
from pygan.training.distributed import Ranks
from pygan.training.game import Run, Side
from pygan.training.gan import train
from pygan.training.progress import GRID
from pygan.training.spec import TrainingSpec

ALONE = Ranks(0, 1, torch.device("cpu"))
STYLEGAN2 = {"kind": "stylegan2", "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "mapping_layers": 2}
SHORT = replace(SPEC, total_nimg=16, snapshots=(16,))


def side_of(run: Run, phase: str, spec: TrainingSpec) -> Side:
    network = {"D": run.D, "G": run.G}[phase].train()
    run.G.requires_grad_(False)
    run.D.requires_grad_(False)
    return Side(phase, network, 1e-3, Masked(network, {}), run, spec, ALONE)


def gradients_of(phase: str, **fields: object) -> dict[str, torch.Tensor]:
    """Return the gradients of one move on four pictures, R1 included, and those of a base without batch statistics."""
    run = tiny_run(base=STYLEGAN2 | {"style_mixing": 0.0, "mbstd_channels": 0})
    side = side_of(run, phase, replace(SPEC, **fields))
    side.move(1, 4, torch.arange(4))
    return {name: p.grad for name, p in side.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("phase", ["D", "G"])
def test_micro_batches_add_up_to_the_batch(phase):
    whole = gradients_of(phase)
    for batch_gpu in (1, 3):  # 3: the last one holds one picture
        parts = gradients_of(phase, batch_gpu=batch_gpu)
        assert parts.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(("batch_gpu", "group"), [(2, 4), (4, 4), (1, 4), (4, 2), (2, None)])
def test_minibatch_std_takes_one_kind_of_pictures_in_every_phase(batch_gpu, group):
    """In each pass through D: its own, R1's, that of perturbed features, G's; micro-batch by micro-batch."""
    terms = [{"kind": "r1", "every": 2}, {"kind": "feature_adversary"}]
    terms = [load_spec("pygan.regularizers", term).build(Context(resolution=16)) for term in terms]
    run = tiny_run(base=STYLEGAN2 | {"mbstd_group": group}, augment={"kind": "ada", "target": None}, regularizers=terms)
    epilogue, seen = run.D[0].network.b4, []
    epilogue.register_forward_pre_hook(lambda module, inputs: seen.append([inputs[0].detach()]))
    epilogue.conv.register_forward_pre_hook(lambda module, inputs: seen[-1].append(inputs[0][:, -1, 0, 0].detach()))
    sides = [side_of(run, phase, replace(SPEC, batch_gpu=batch_gpu)) for phase in ("D", "G")]
    for side in sides:
        side.move(1, 4, torch.arange(4))
    kinds = []
    for x, told in seen:
        kinds.append(len(x) // batch_gpu)
        for place in range(kinds[-1]):
            expected = std_alone(x[place :: kinds[-1]], group)
            torch.testing.assert_close(told[place :: kinds[-1]].double(), expected, rtol=1e-4, atol=1e-6)
    parts = 4 // batch_gpu
    # D: the game, R1 on real pictures, and AdvAug's pass; G: the game, and AdvAug's two passes
    assert kinds == [2, 1, 2] * parts + [1, 1, 1] * parts


def moves(side: Side) -> int:
    """Return how often the optimizer moved."""
    return int(next(iter(side.optimizer.state.values()))["step"])


def test_a_lazy_term_makes_a_move_of_its_own_and_adam_is_corrected():
    """Karras et al., 2020, appendix B: with an interval of k, lr and both betas are those of k of k + 1 moves."""
    merged, separate = (side_of(tiny_run(), "D", replace(SPEC, lazy=lazy)) for lazy in ("merged", "separate"))
    for number in range(4):  # R1 is due in steps 1 and 3
        for side in (merged, separate):
            side.move(number, 4 * number + 4, torch.arange(4))
    assert (moves(merged), moves(separate)) == (4, 6)
    share = 2 / 3
    options = separate.optimizer.param_groups[0]
    assert options["lr"] == pytest.approx(1e-3 * share)
    assert options["betas"] == pytest.approx([beta**share for beta in (0.5, 0.99)])
    assert merged.optimizer.param_groups[0]["betas"] == (0.5, 0.99)
    assert side_of(tiny_run(), "G", replace(SPEC, lazy="separate")).optimizer.param_groups[0]["lr"] == 1e-3


def test_adam_of_g_may_be_corrected_for_lazy_moves_that_no_term_makes():
    """StyleGAN2-ADA's `cifar`: a path length of weight 0 makes no move, its interval of 4 counts all the same."""
    spec = replace(SPEC, lazy="separate", g_lazy_every=4)
    G, D = (side_of(tiny_run(), phase, spec) for phase in ("G", "D"))
    for number in range(4):
        G.move(number, 4 * number + 4, torch.arange(4))
    assert moves(G) == 4
    options = G.optimizer.param_groups[0]
    assert options["lr"] == pytest.approx(1e-3 * 4 / 5)
    assert options["betas"] == pytest.approx([beta ** (4 / 5) for beta in (0.5, 0.99)])
    assert D.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 2 / 3)  # R1 in every second step


@pytest.mark.parametrize(("name", "lr"), [("cifar", 0.0025), ("auto", 0.0025), ("stylegan2", 0.002)])
def test_a_family_s_adam_is_the_official_one(name, lr):
    """NVIDIA's loop: lr k / (k + 1) and betas 0 and 0.99 ** (k / (k + 1)), k 4 for G and 16 for D, whatever the weights
    of the terms.
    """
    values = family(name, 16)
    terms = [load_spec("pygan.regularizers", term).build(Context(resolution=16)) for term in values["regularizers"]]
    run, spec = tiny_run(regularizers=terms), parse(TrainingSpec, values["training"])
    for phase, network, rate, k in (("G", run.G, spec.g_lr, 4), ("D", run.D, spec.d_lr, 16)):
        side = Side(phase, network, rate, Masked(network, {}), run, spec, ALONE)
        (options,) = side.optimizer.param_groups
        assert options["lr"] == pytest.approx(lr * k / (k + 1), rel=1e-12)
        assert options["betas"] == pytest.approx((0.0, 0.99 ** (k / (k + 1))), rel=1e-12)


@pytest.mark.parametrize(
    ("phase", "base", "term", "unreached"),
    [
        ("G", STYLEGAN2, "path_length", r"synthesis\.b\d+\.torgb\.bias"),
        ("D", BASE, "r1", r"0\.network\.logit\.linear\.bias|1\..*"),  # 1: another player, which R1 leaves alone
    ],
)
def test_weights_that_a_lazy_move_does_not_reach_step_with_a_gradient_of_zero(phase, base, term, unreached):
    """Adam after a game and a lazy move, by hand: without first moment nothing moves, the second one decays."""
    after = {}
    for terms in ([], [{"kind": term, "every": 2}]):
        regularizers = [load_spec("pygan.regularizers", term).build(Context(resolution=16)) for term in terms]
        run = tiny_run(base=base, extra_head=True, regularizers=regularizers)
        side = side_of(run, phase, replace(SPEC, lazy="separate", betas=(0.0, 0.99)))
        before = {name: p.detach().clone() for name, p in side.network.named_parameters()}
        side.move(1, 4, torch.arange(4))
        after[bool(terms)] = side
    gradients = {name: p.grad for name, p in after[False].network.named_parameters()}  # those of the game
    side, beta = after[True], 0.99 ** (2 / 3)
    names = [name for name, _ in side.network.named_parameters() if re.fullmatch(unreached, name)]
    assert len(names) == (3 if phase == "G" else 1 + len(list(run.D[1].parameters())))
    for name in names:
        parameter, gradient = side.network.get_parameter(name), gradients[name]
        state = side.optimizer.state[parameter]
        assert not parameter.grad.any() and state["step"] == 2 and not state["exp_avg"].any()
        torch.testing.assert_close(state["exp_avg_sq"], beta * (1 - beta) * gradient.square())
        moved = before[name] - 1e-3 * 2 / 3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), moved)


def test_a_lazy_move_leaves_a_player_alone_that_has_not_joined():
    run = tiny_run(extra_head=True)
    run.D[1].warmup_nimg = 8
    side = side_of(run, "D", replace(SPEC, lazy="separate"))
    side.move(1, 8, torch.arange(4))
    assert moves(side) == 2
    assert not any(parameter in side.optimizer.state for parameter in run.D[1].parameters())


def test_a_term_is_due_once_in_every_interval():
    class Noting(nn.Module):
        phases, every, steps = ("D",), 3, []

        def forward(self, step):
            self.steps.append(step.step)
            return step.real_img.sum() * 0

    term = Noting()
    side = side_of(tiny_run(regularizers=[term]), "D", SPEC)
    for number in range(7):
        side.move(number, 4 * number + 4, torch.arange(4))
    assert term.steps == [2, 5]


def test_the_average_of_two_moves_is_the_gradient_of_their_sum():
    """The merged move follows the game plus `every` times the term; apart, the same gradients come one by one."""
    plain, with_term = (
        side_of(tiny_run(**({} if kept else {"regularizers": []})), "D", SPEC) for kept in (False, True)
    )
    alone = side_of(tiny_run(), "D", replace(SPEC, lazy="separate"))
    for side in (plain, with_term, alone):
        for group in side.optimizer.param_groups:
            group["lr"] = 0.0
        side.move(1, 8, torch.arange(4))
    term = dict(alone.network.named_parameters())
    game = dict(plain.network.named_parameters())
    for name, parameter in with_term.network.named_parameters():
        parts = [p[name].grad for p in (game, term) if p[name].grad is not None]
        torch.testing.assert_close(parameter.grad, sum(parts), rtol=1e-3, atol=1e-5)


class Broken(nn.Module):
    """A finite term whose gradient is not: the root of zero."""

    phases, every = ("G",), 1

    def forward(self, step):
        return (step.gen_img * 0).sum().abs().sqrt()


def test_gradients_that_are_not_finite_are_replaced_only_on_request(tmp_path):
    for sanitized in (True, False):
        out = tmp_path / str(sanitized)
        out.mkdir()
        run = tiny_run(regularizers=[Broken()])
        spec = replace(SHORT, sanitize_gradients=sanitized)
        if sanitized:
            train(run, spec, state_dir=out / "state", out_dir=out)
            assert all(p.isfinite().all() for p in run.G.parameters())
        else:
            with pytest.raises(NumericalError, match=r"loss/D became nan at 8 images; what led to it is in .*diverged"):
                train(run, spec, state_dir=out / "state", out_dir=out)


def test_a_diverged_run_leaves_what_led_to_it(tmp_path):
    """A weight that breaks after the last loss is found before it could be saved."""
    run = tiny_run()
    names = [name for name, _ in run.G.named_parameters()]

    class Breaks(nn.Module):
        phases, every = ("D",), 1

        def forward(self, step):
            if step.step == 3:
                step.G.get_parameter(names[-1]).data.fill_(torch.inf)
            return step.real_img.sum() * 0

    run.regularizers = [Breaks()]
    spec = replace(SPEC, checkpoint_nimg=4, tick_nimg=4, snapshots=(8, 80))
    with pytest.raises(NumericalError, match="at 16 images"):
        train(run, spec, state_dir=tmp_path / "state", out_dir=tmp_path)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["000000000008", "000000000012"]
    norms = json.loads((tmp_path / "diverged" / "norms.json").read_text())["norms"]
    assert norms[f"G.{names[-1]}"]["weight"] is None
    name, parameter = next(run.D.named_parameters())
    assert norms[f"D.{name}"]["weight"] == pytest.approx(float(parameter.norm()), rel=1e-5)
    tensors = read_tensors(tmp_path / "diverged" / "tensors.safetensors")[0]
    assert torch.equal(tensors["D.index"], torch.arange(12, 16))
    assert tensors["D.real_img"].shape == tensors["G.gen_img"].shape == (4, 3, 16, 16)


def test_out_of_memory_names_the_setting_that_helps(tmp_path):
    class Large(nn.Module):
        phases, every = ("G",), 1

        def forward(self, step):
            raise torch.OutOfMemoryError("CUDA out of memory")

    sentence = r"training\.batch_gpu: out of memory with 4 pictures at a time \(the last checkpoint is kept\), try 2"
    with pytest.raises(ConfigError, match=sentence):
        train(tiny_run(regularizers=[Large()]), SHORT, state_dir=tmp_path / "state", out_dir=tmp_path)


def test_half_precision_trains_close_to_single_and_fp16_needs_a_gpu(tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        out.mkdir()
        train(tiny_run(), replace(SHORT, precision=precision), state_dir=out / "state", out_dir=out)
        losses[precision] = [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]
        tensors = read_tensors(out / "snapshots" / "000000016.safetensors")[0]
        assert all(value.dtype != torch.bfloat16 for value in tensors.values())
    for name in ("loss/D", "loss/G", "loss/D/R1"):
        a, b = losses["fp32"][0][name], losses["bf16"][0][name]
        assert a != b
        assert a == pytest.approx(b, rel=0.1, abs=0.1)  # bfloat16 keeps 8 bits
    with pytest.raises(ConfigError, match=r"training\.precision: got fp16, expected fp32 or bf16 on a CPU"):
        train(tiny_run(), replace(SHORT, precision="fp16"), state_dir=tmp_path / "state", out_dir=tmp_path)


def test_a_snapshot_says_where_the_latents_of_its_grid_come_from(tmp_path):
    train(tiny_run(), SHORT, state_dir=tmp_path / "state", out_dir=tmp_path)
    metadata = read_tensors(tmp_path / "snapshots" / "000000016.safetensors")[1]
    assert metadata["grid"] == GRID == {"seed": 0, "stream": "grid", "pictures": 64}


def test_statistics_go_to_tensorboard_where_it_is_installed(tmp_path, monkeypatch):
    class Board:
        def __init__(self, folder, purge_step):
            self.folder, self.purge_step, self.scalars = folder, purge_step, []

        def add_scalar(self, name, value, nimg):
            self.scalars.append((name, value, nimg))

        def flush(self):
            pass

    monkeypatch.setattr(stats.importlib.util, "find_spec", lambda name: object() if name == "tensorboard" else None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("torch.utils.tensorboard"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Board
    written = stats.Stats(tmp_path, 40)
    written.write(48, step=3, loss=0.5)
    assert (written._board.folder, written._board.purge_step) == (tmp_path / "tensorboard", 41)
    assert written._board.scalars == [("step", 3, 48), ("loss", 0.5, 48)]


def test_a_late_head_waits_untouched(tmp_path):
    """Until `warmup_nimg` real pictures were seen, a player neither plays nor learns."""
    start = {}
    for warmup in (8, 80):
        run = tiny_run(extra_head=True)
        run.D[1].warmup_nimg = warmup
        start = {name: p.clone() for name, p in run.D[1].named_parameters()}
        train(run, SHORT, state_dir=tmp_path / str(warmup) / "state", out_dir=_made(tmp_path / str(warmup)))
        same = [torch.equal(p, start[name]) for name, p in run.D[1].named_parameters()]
        assert all(same) == (warmup == 80)


def _made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
