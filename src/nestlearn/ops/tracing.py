"""Who looks at operations while they run: a compiler, or one of torch.func's transforms."""

import torch

__all__ = ["by_hand", "transformed"]


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp) is under way, for which numbers cannot be looked at."""
    return bool(torch._C._are_functorch_transforms_active())


def by_hand() -> bool:
    """Whether slopes that were written by hand are taken.

    A compiler fuses single operations itself, and a transform needs their own rules: for batches, for derivatives of
    both directions and of any order. Both get the same in single operations.
    """
    return not torch.compiler.is_compiling() and not transformed()
