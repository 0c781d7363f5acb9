"""A transformer of a billion parameters, for ``nestlearn inspect --model benchmarks.describe.models:billion``."""

from torch import nn

from nestlearn.tasks.networks import ByteTransformer

__all__ = ["billion"]


def billion() -> nn.Module:
    """20 blocks of width 2048, 1,009,862,656 parameters in 164 tensors: 3.8 GiB in float32."""
    return ByteTransformer(dim=2048, depth=20, heads=16, context=1024)
