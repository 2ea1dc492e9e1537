"""Frozen pretrained networks. `KINDS` may judge pictures in training; `METRIC_KINDS` only ever measure them."""

KINDS = ("efficientnet_lite0", "hed_vgg16", "open_nsfw", "mtcnn_onet")
METRIC_KINDS = ("mobilenet_v2",)
