"""Terms added to a loss: `term(step)` in the phases and on the steps that it names."""

KINDS = (
    "r1",
    "lecam",
    "path_length",
    "feature_adversary",
    "feature_noise",
    "margin_shift",
    "group_spectral",
    "class_affine_l2",
    "class_affine_spectral",
    "reg_dgm",
    "mean_matching",
)
