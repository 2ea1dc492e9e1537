"""One step of a small game on any base network, with the clean forwards that the loop has done before the terms."""

import torch
from torch import Tensor, nn

from pygan.context import Context, Step
from pygan.losses import OBJECTIVES
from pygan.spec import load_spec

BASES = {
    "dcgan": {"kind": "dcgan", "z_dim": 8, "g_channels": 4, "d_channels": 4},
    "sngan": {"kind": "sngan", "z_dim": 8, "g_channels": 6, "d_channels": 8},
    "biggan": {"kind": "biggan", "z_dim": 8, "g_channels": 2, "d_channels": 2, "shared_dim": 4},
    "stylegan2": {"kind": "stylegan2", "z_dim": 8, "w_dim": 8, "channel_base": 256, "mapping_layers": 2},
}
CLASSES = 3
N = 4


def make_step(
    phase: str,
    base: dict,
    *,
    conditional: bool = False,
    augment: str | None = None,
    double: bool = False,
    loss: str = "hinge",
    side: int = 32,
) -> Step:
    """Return the step in training mode, the trained side's parameters requiring gradients."""
    torch.manual_seed(0)
    ctx = Context(resolution=side, num_classes=CLASSES if conditional else 0)
    network = load_spec("pygan.networks", base | {"conditional": conditional})
    strength = {"p": 0.5} if augment == "apa" else {}
    augmentation = load_spec("pygan.augment", {"kind": augment} | strength).build(ctx) if augment else None
    G, D = network.generator(ctx), network.discriminator(ctx)
    player = load_spec("pygan.discriminators", {"kind": "plain"}).build(ctx, D, augmentation)
    step = Step(
        phase=phase,
        step=10_000,
        nimg=N,
        G=G,
        D=nn.ModuleList([player]),
        objective=OBJECTIVES[loss],
        index=torch.arange(N),
        seed=0,
    )
    if double:
        G.double(), D.double()
    G.train().requires_grad_(phase == "G"), D.train().requires_grad_(phase == "D")
    kind = torch.float64 if double else torch.float32
    step.gen_z = step.draws("z").normal(8).to(kind)
    step.real_img = (torch.rand(N, 3, side, side) * 2 - 1).to(kind)
    if conditional:
        step.real_c, step.gen_c = torch.tensor([0, 1, 2, 0]), torch.tensor([2, 1, 0, 1])
    step.gen_img = G(step.gen_z, step.gen_c, step.draws("synthesis"))
    if phase == "G":
        step.gen_logits = player(step.gen_img, step.gen_c, step.draws("augment/0"))
        return step
    step.gen_img = step.gen_img.detach()
    (logits,) = player(*player.pair(step, 0), paired=True)
    step.real_logits, step.gen_logits = [logits[0::2]], [logits[1::2]]
    return step


def clean_loss(step: Step) -> Tensor:
    """The loss that the loop has computed already."""
    if step.phase == "D":
        return step.objective.D(step.real_logits[0], step.gen_logits[0])
    return step.objective.G(step.gen_logits[0])


def buffers(step: Step) -> dict[str, Tensor]:
    """Copies of all buffers of both networks."""
    both = nn.ModuleList([step.G, step.D])
    return {name: buffer.clone() for name, buffer in both.named_buffers()}


def gradients(step: Step, loss: Tensor) -> dict[str, Tensor]:
    """Gradients of `loss` for the parameters of the trained side, zero where it does not reach."""
    side = step.D if step.phase == "D" else step.G
    named = dict(side.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}
