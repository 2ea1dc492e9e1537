"""One thread for every test: results don't depend on the machine, and test processes don't wait on each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
