"""One training step of the models of other libraries, driven by their own functions.

- titans-pytorch: ``MemoryAsContextTransformer`` as a whole, forward and backward. Its memories are written inside the
  forward pass.
- nested-learning: ``hope_selfmod`` reads without writing unless it is given the error at its output, so that its own
  training loop has two passes for a piece of text: forward and backward from the fast state, then, without gradients,
  an update pass that writes the fast state from which the next piece is read. That is done here in its order
  (`nested_learning.training.run_training_loop` with ``online_updates`` and ``use_fast_state``), without its optimizer,
  schedules and metrics. The fast state is made anew for every text.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.optim.gate import Check
from benchmarks.optim.timing import Unit
from benchmarks.peers.libraries import Library
from benchmarks.sequence.models import DEPTH, HEADS, VOCABULARY, WIDTH, text, training, unit

__all__ = ["LIBRARIES", "THEIRS", "checks"]

MAC, SELF_MODIFYING = "titans-pytorch MAC", "nested-learning hope_selfmod"
LIBRARIES = {
    library.distribution: library
    for library in (Library("titans-pytorch", "titans_pytorch"), Library("nested-learning", "nested_learning.training"))
}

Step = Callable[[int, int], Unit]


def mac(**options: Any) -> tuple[nn.Module, Step]:
    """Memory as context: segments of 128, 4 persistent and 16 long-term tokens; the rest is its default."""
    library = importlib.import_module("titans_pytorch")
    torch.manual_seed(0)
    model = library.MemoryAsContextTransformer(
        num_tokens=VOCABULARY,
        dim=WIDTH,
        depth=DEPTH,
        segment_len=128,
        num_persist_mem_tokens=4,
        num_longterm_mem_tokens=16,
        **options,
    )
    return model, lambda batch, time: training(model, batch, time)


def self_modifying(
    chunk: int = 64, main_chunk: int = 64, periods: Sequence[int] = (64, 256), piece: int = 64
) -> tuple[nn.Module, Step]:
    """Self-modifying Titans, then a continuum memory, at our pace.

    Args:
        chunk, main_chunk: tokens between the writes of the projections' memories and of the main memory.
        periods: tokens between the writes of the continuum's blocks.
        piece: tokens of the text that are read, then written.
    """
    model_of = importlib.import_module("nested_learning.model")
    level = importlib.import_module("nested_learning.levels").LevelSpec
    torch.manual_seed(0)
    config = model_of.ModelConfig(
        vocab_size=VOCABULARY,
        dim=WIDTH,
        num_layers=DEPTH,
        heads=HEADS,
        titan_level=level("titan", 8),  # of another variant
        cms_levels=[level(f"every {period}", period) for period in periods],
        block_variant="hope_selfmod",
        self_mod_chunk_size=chunk,
        self_mod_chunk_size_memory=main_chunk,
        cms_flush_partial_at_end=True,
    )
    model = model_of.HOPEModel(config)
    return model, lambda batch, time: unit(model, lambda: _read_and_write(model, batch, time, piece))


def _read_and_write(model: Any, batch: int, time: int, piece: int) -> Any:
    """One text: its pieces forward and backward, each followed by its update pass. The fast state at the end."""
    errors = importlib.import_module("nested_learning.training").compute_teach_signal
    tokens, state = text(batch, time), model.init_fast_state()
    for start in range(0, time, piece):
        part, targets = tokens[:, start : start + piece], tokens[:, start + 1 : start + piece + 1]
        last = start + piece >= time
        logits = model(part, fast_state=state)
        F.cross_entropy(logits[:, : targets.shape[1]].transpose(1, 2), targets).backward()
        signal = errors(model, logits, part, next_tokens=None if last else targets[:, -1])
        with torch.no_grad():
            model(part, teach_signal=signal, fast_state=state, finalize_updates=last)
    return state


THEIRS: Mapping[str, tuple[str, Callable[[], tuple[nn.Module, Step]]]] = {
    MAC: ("titans-pytorch", mac),
    f"{MAC}, 4 heads of 32, one stream": (
        "titans-pytorch",
        lambda: mac(heads=HEADS, dim_head=WIDTH // HEADS, num_residual_streams=1),
    ),
    SELF_MODIFYING: ("nested-learning", self_modifying),
    f"{SELF_MODIFYING}, its own pace": ("nested-learning", lambda: self_modifying(8, 64, (1, 4, 32, 128))),
}
"""Names in the table -> distribution, and the model with its step. The last one's chunks and periods are those of
``pilot_selfmod_paper_faithful``, the configuration that nested-learning ships for this model."""


def checks(libraries: Sequence[str]) -> list[Check]:
    """That theirs do what is compared: nested-learning's fast state is written in both halves of every block.

    An error here is how many of these memories did not move.
    """
    if "nested-learning" not in libraries:
        return []
    model, _ = self_modifying(4, 4, (4, 8), piece=4)
    state = _read_and_write(model, 2, 16, 4)
    still = 0
    for block, now, then in zip(model.blocks, state.blocks, model.init_fast_state().blocks, strict=True):
        still += sum(
            bool((getattr(now.selfmod_state, name).w1 == getattr(then.selfmod_state, name).w1).all())
            for name in ("k", "v", "eta", "alpha", "memory")
        )
        still += sum(
            all(not bool(delta.any()) for delta in now.cms_params[level].values()) for level in block.cms.blocks
        )
    return [Check("nested-learning: memories that its update pass left alone", float(still), 0.0)]
