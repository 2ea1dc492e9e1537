"""Where pictures come from: each file is one kind of source."""

KINDS = ("earthcover", "twemoji", "folder", "cifar10", "cifar100")
