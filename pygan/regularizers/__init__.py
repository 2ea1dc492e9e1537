"""Terms added to a loss: `term(step)` in the phases and on the steps that it names."""

KINDS = ("r1", "lecam", "path_length", "reg_dgm", "mean_matching")
