"""The fast form of a memory, whichever model it has: `nestlearn.ops.matrix_memory` or `nestlearn.ops.mlp_memory`.

There is no silent way back to the token by token `nestlearn.ops.scan`, which is hundreds of times slower: a memory
without a fast form is an error, and `has_parallel_form` tells beforehand.
"""

from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Parameters
from nestlearn.memory.rules import Scalar
from nestlearn.memory.state import State
from nestlearn.ops.matrix_memory import has_matrix_form, matrix_scan, matrix_step
from nestlearn.ops.mlp_memory import has_mlp_form, mlp_scan, mlp_step
from nestlearn.ops.scan import Read

__all__ = ["chunk_step", "has_parallel_form", "parallel_scan"]


def has_parallel_form(memory: AssociativeMemory) -> bool:
    """Whether `parallel_scan` and `chunk_step` know this memory."""
    return has_matrix_form(memory) or has_mlp_form(memory)


def parallel_scan(
    memory: AssociativeMemory,
    key: Tensor,
    value: Tensor,
    query: Tensor,
    eta: Scalar,
    alpha: Scalar = 1.0,
    state: State | None = None,
    *,
    chunk: int = 1,
    window: int = 1,
    momentum: Scalar | None = None,
    read: Read = "after",
) -> tuple[Tensor, State]:
    """`nestlearn.ops.scan` in parallel over the tokens of chunks: same arguments, outputs, state and gradients (S6).

    Raises:
        ValueError: for a memory without a fast form, and what `nestlearn.ops.scan` raises.
    """
    _require_form(memory)
    run = matrix_scan if has_matrix_form(memory) else mlp_scan
    return run(memory, key, value, query, eta, alpha, state, chunk=chunk, window=window, momentum=momentum, read=read)


def chunk_step(
    memory: AssociativeMemory,
    state: State,
    key: Tensor,
    value: Tensor,
    query: Tensor | None,
    eta: Tensor,
    alpha: Tensor,
    *,
    frozen: Parameters | None = None,
    momentum: Tensor | None = None,
    read: Read = "after",
) -> tuple[Tensor | None, State]:
    """Some tokens of one chunk, all gradients taken at ``frozen``, by default the state given (S6).

    For layers whose keys, values, eta and alpha of a chunk come from the state at its start; see
    `nestlearn.ops.matrix_memory.matrix_step` and `nestlearn.ops.mlp_memory.mlp_step` for shapes and for what each can
    do besides.

    Raises:
        ValueError: for a memory without a fast form. Shapes are not checked.
    """
    _require_form(memory)
    run = matrix_step if has_matrix_form(memory) else mlp_step
    return run(memory, state, key, value, query, eta, alpha, frozen=frozen, momentum=momentum, read=read)


def _require_form(memory: AssociativeMemory) -> None:
    if not has_parallel_form(memory):
        raise ValueError(
            "expected a Matrix or an MLP (fast=False) with gradient descent or delta gradient descent, with or without "
            "InnerMomentum, under dot_product or l2 (a Matrix under gradient descent: oja too); "
            f"got {memory}. nestlearn.ops.scan runs any memory, token by token."
        )
