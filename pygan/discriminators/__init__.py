"""Players against the generator: `d(img, c, draws)` returns one tensor of logits per head, `[N]` or `[T, N]`."""

KINDS = ("plain", "vision_aided")
