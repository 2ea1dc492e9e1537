"""Frozen pretrained networks. `KINDS` may judge pictures in training; `METRIC_KINDS` only ever measure them."""

KINDS = (
    "efficientnet_lite0",
    "hed_vgg16",
    "open_nsfw",
    "mtcnn_onet",
    "ppocr_det",
    "vit_s14",
    "clip_vit",
    "dino_vit",
    "vgg16",
    "swin",
    "face_seg",
    "face_normals",
    "resnet",
    "clip_rn50",
    "facenet",
    "timm",
    "pixels",
)
METRIC_KINDS = ("mobilenet_v2", "inception_v3")
