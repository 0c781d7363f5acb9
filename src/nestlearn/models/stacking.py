"""Level stacking: a pretrained model goes on learning from what it reads (C5, [NL] 7.3).

The matrices of its MLP blocks are the first states of a continuum memory. A text writes them: every ``period`` tokens

    D <- retention D - inner_lr update,     W + D in the place of W,     D = 0 before the first token

where ``update`` is what a rule (``writer``) makes of the slopes of the model's own next-token loss, summed over the
tokens since the last write. Nothing but the text is needed, and nothing is seen early: a token is predicted before
anything that it says is written. D belongs to a text. The weights stay as they were trained, and with ``inner_lr=0``
the model is the one it was.

**What is paid for.** Slopes are taken for the last ``blocks`` blocks alone: what lies below has no backward pass, and
above it only slopes of activations are needed. With W_down of the last four blocks of a model of thirty that is a
quarter of a forward pass, most of it in the head.

**Objectives.** ``"next_token"`` takes the slopes through all that lies above a matrix. ``"direct"`` takes the slope of
the loss for the residual stream before the last norm, and hands it to every block as if nothing lay between: no block
has a backward pass, so that all of them may be written.

**Calls.** A call of any length is read in pieces that end where a write is due, with the model's own cache of keys and
values between them. The last token of a call is learned from when the next call brings the token after it. Slopes
reach back to the start of a piece, not into the cache.

[NL] is arXiv 2512.24695. Writing W_down alone, by chunks, is also In-Place TTT.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from math import inf

from torch import nn

from nestlearn.errors import choice
from nestlearn.memory.rules import Rule
from nestlearn.models.stacking_matrix import Writer, WrittenMatrix, directions
from nestlearn.models.stacking_memory import Continuum
from nestlearn.rules import Link, adam, as_rule
from nestlearn.rules.kernels import recognised

__all__ = ["add_continuum"]

OBJECTIVES = ("next_token", "direct")
MATRICES = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def add_continuum(
    model: nn.Module,
    *,
    periods: int | Sequence[int] = 64,
    inner_lr: float = 3e-4,
    blocks: int | Sequence[int] = 4,
    matrices: Sequence[str] = ("down",),
    writer: Link | Rule | None = None,
    retention: float = 1.0,
    rank: int | None = None,
    gate: float = 0.0,
    objective: str = "next_token",
    seed: int = 0,
) -> Continuum:
    """Let the MLP blocks of a pretrained model be written by what it reads (C5); ``model.continuum`` from then on.

    Args:
        model: a causal language model as transformers has them, whose blocks have an ``mlp`` with ``down_proj``: Llama,
            Mistral, Qwen, SmolLM and the like. Its weights are not changed. It may have adapters of peft.
        periods: tokens between two writes, for all blocks or for each, the lowest first; multiples of the shortest.
        inner_lr: of a write; 0 never writes, and the model is the one it was.
        blocks: how many of the last blocks are written, or their numbers.
        matrices: which of their matrices: "gate", "up", "down".
        writer: the rule that makes an update of slopes: one of ``nl.rules`` or of the core; None is
            ``nl.rules.adam()``, whose rates do not depend on the size of slopes; ``nl.rules.gradient()`` is the slope.
        retention: of what was learned, from one write to the next.
        rank: write along this many fixed directions of a matrix's input, the seed's; None writes all of it.
        gate: tokens that were predicted with a loss of at most this, in nats, write nothing.
        objective: "next_token" or "direct".
        seed: of the directions.

    Returns:
        The memory, which ``model.continuum`` is too: ``reset``, ``state``, ``save``, ``load``, ``read``, ``paused``,
        and for a folder ``save_pretrained``.

    Raises:
        TypeError: a model that has no such blocks.
        ValueError: settings that do not fit.

    Example:
        >>> continuum = nl.models.add_continuum(model, periods=64, inner_lr=3e-4)  # doctest: +SKIP
        >>> losses = continuum.read(book, window=2048)  # doctest: +SKIP
        >>> answer = model.generate(question)  # doctest: +SKIP
        >>> continuum.reset()  # doctest: +SKIP
    """
    if callable(inside := getattr(model, "get_base_model", None)):
        model = inside()  # peft generates with the model within, and asks it wherever else
    _check(model, inner_lr, matrices, retention, gate, objective)
    writer = adam() if writer is None else writer
    made = _writer(writer)
    trunk, layers = _blocks(model)
    head = getattr(model, "get_output_embeddings", None)  # of any model of transformers
    if (head and head() is None) or "input_ids" not in signature(model.forward).parameters:
        raise TypeError(
            "expected a causal language model itself, which takes input_ids and has a head, and nothing around it, got "
            f"{type(model).__name__}"
        )
    numbers = _numbers(blocks, len(layers))
    each = _periods(periods, len(numbers))
    linears = {
        f"{number}.{name}": (_linear(layers[number], number, name, rank), period)
        for number, period in zip(numbers, each, strict=True)
        for name in matrices
    }
    chosen = {
        "periods": periods if isinstance(periods, int) else list(periods),
        "inner_lr": inner_lr,
        "blocks": blocks if isinstance(blocks, int) else list(blocks),
        "matrices": list(matrices),
        "retention": retention,
        "rank": rank,
        "gate": gate,
        "objective": objective,
        "seed": seed,
    }
    continuum = Continuum(model, inner_lr, min(each), gate, writer, chosen, trunk, list(layers), numbers[0])
    keep = None
    if objective == "direct":
        norm = getattr(trunk, "norm", None)
        if not isinstance(norm, nn.Module):
            raise TypeError(f'objective="direct" starts at the last norm, and {type(trunk).__name__} has no norm')
        continuum.handles.append(norm.register_forward_pre_hook(continuum.join))
        keep = continuum.keep_answer
    for place, (path, (linear, period)) in enumerate(linears.items()):
        basis = None if rank is None else directions(rank, linear, seed + place)
        continuum.matrices[path] = WrittenMatrix(linear, period, made, inner_lr, retention, basis, continuum, keep)
    continuum.install()
    return continuum


def _check(
    model: nn.Module, inner_lr: float, matrices: Sequence[str], retention: float, gate: float, objective: str
) -> None:
    choice("objective", objective, OBJECTIVES)
    for name in matrices:
        choice("matrices", name, tuple(MATRICES))
    if hasattr(model, "continuum"):
        raise ValueError("the model has a continuum: model.continuum.remove() takes it away before another is added")
    if objective == "direct" and tuple(matrices) != ("down",):
        raise ValueError(
            f'objective="direct" has the slope of what blocks answer: expected matrices=("down",), got {matrices}'
        )
    if not matrices or not (0 <= inner_lr < inf and 0 <= retention <= 1 and gate >= 0):
        raise ValueError(
            "expected at least one of the matrices, inner_lr and gate of at least 0 and retention from 0 to 1, got "
            f"{matrices}, {inner_lr}, {gate} and {retention}"
        )


def _writer(writer: Link | Rule) -> Writer:
    if not isinstance(writer, Link):
        return Writer(as_rule(writer), None, sees=True)
    reads = {name for link in writer.everything() for name in link.reads}
    if others := reads - {"weights"}:
        raise ValueError(f"writer: nobody here measures {', '.join(sorted(others))}, which {writer} looks at")
    return Writer(as_rule(writer), recognised(writer), "weights" in reads)


def _linear(block: nn.Module, number: int, name: str, rank: int | None) -> nn.Linear:
    linear = _unwrapped(getattr(block.mlp, MATRICES[name], None))
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"block {number}: expected a Linear layer mlp.{MATRICES[name]}, got {type(linear).__name__}")
    if not linear.weight.is_floating_point():
        raise TypeError(f"block {number}: expected a weight that is not quantized, got {linear.weight.dtype}")
    if rank is not None and not 1 <= rank <= linear.in_features:
        raise ValueError(f"rank: expected from 1 to {linear.in_features}, got {rank}")
    return linear


def _blocks(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    """Where the blocks of a model are, and the blocks."""
    for module in model.modules():
        for child in module.children():
            if (
                isinstance(child, nn.ModuleList)
                and len(child)
                and all(
                    isinstance(_unwrapped(getattr(getattr(block, "mlp", None), "down_proj", None)), nn.Linear)
                    for block in child
                )
            ):
                return module, child
    raise TypeError(
        "expected a model whose blocks have an mlp with a Linear layer down_proj, as Llama's have, got "
        f"{type(model).__name__}"
    )


def _unwrapped(layer: object) -> object:
    """A layer without the adapter of peft around it, which adds to what the layer answers, as a memory does."""
    return getattr(layer, "base_layer", layer)


def _numbers(blocks: int | Sequence[int], count: int) -> list[int]:
    wanted = list(range(max(count - blocks, -1), count)) if isinstance(blocks, int) else sorted(blocks)
    if not wanted or len(set(wanted)) < len(wanted) or not 0 <= wanted[0] <= wanted[-1] < count:
        raise ValueError(
            f"blocks: expected how many of the last, or different numbers from 0 to {count - 1}, got {blocks}"
        )
    return wanted


def _periods(periods: int | Sequence[int], count: int) -> list[int]:
    each = [periods] * count if isinstance(periods, int) else list(periods)
    if len(each) != count or min(each) < 1 or any(period % min(each) for period in each):
        raise ValueError(
            f"periods: expected a number of tokens, or one for each of {count} blocks, multiples of the shortest, "
            f"got {periods}"
        )
    return each
