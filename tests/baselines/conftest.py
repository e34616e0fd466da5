"""One thread for networks as small as these: more of them only wait for each other."""

import torch

torch.set_num_threads(1)
