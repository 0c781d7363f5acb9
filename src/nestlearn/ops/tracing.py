"""Who looks at operations while they run: a compiler, or a transform of torch.func."""

import torch
from torch.autograd import forward_ad

__all__ = ["by_hand", "transformed"]


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp) or a level of forward differentiation is under way.

    What tensors hold cannot be looked at there, and layouts are not known.
    """
    if torch.compiler.is_compiling():  # which takes a transform apart, and what is within it, by itself
        return False
    # torch 2.10 has no public names for these yet.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def by_hand() -> bool:
    """Whether functions with slopes written by hand are run, and whether tensors can be looked at.

    Elsewhere the same is said in single operations. A compiler fuses these itself. A transform has rules for them, for
    batches, both directions and every order; and its slopes, which always have slopes, would be made of them anyway.
    """
    return not torch.compiler.is_compiling() and not transformed()
