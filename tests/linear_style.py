"""A style generator whose picture is a linear function of its intermediate latents, so that its Jacobian is known."""

import torch
from torch import Tensor, nn

from pygan.draws import Draws


class LinearStyle(nn.Module):
    """z to ws by one linear map, ws to the picture by `scale * sum_l A_l w_l`."""

    def __init__(
        self, z_dim: int = 8, num_ws: int = 3, w_dim: int = 5, img: tuple[int, int, int] = (3, 16, 16)
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.img = img
        self.mapping = nn.Linear(z_dim, num_ws * w_dim)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("A", torch.randn(num_ws, img[0] * img[1] * img[2], w_dim))

    def stem(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Return ws `[N, num_ws, w_dim]`."""
        return self.mapping(z).unflatten(1, (len(self.A), -1))

    def body(self, ws: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return self.scale * torch.einsum("lpk,nlk->np", self.A, ws).unflatten(1, self.img)

    def forward(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return self.body(self.stem(z, c, draws), c, draws)
