"""What the fork server imports once, so that its children need not."""

import torch._dynamo  # torch.optim imports it at the first step
from torch import nn, optim

import nestlearn

__all__ = ["nestlearn", "nn", "optim", "torch"]
