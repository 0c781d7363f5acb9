"""The memory of a pretrained model that goes on learning: its text, the calls that read it, and its state (C5)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.errors import StateFileError
from nestlearn.memory.rules import Rule
from nestlearn.memory.state import State, mapped, select_state, state_bytes
from nestlearn.models.stacking_below import asked_once
from nestlearn.models.stacking_calls import Call, detach_cache
from nestlearn.models.stacking_files import check_state, read_file, write_file
from nestlearn.models.stacking_matrix import WrittenMatrix
from nestlearn.models.stacking_settings import write_folder, writer_data
from nestlearn.rules import Link

__all__ = ["Continuum"]

PLACED = ("forward", "prepare_inputs_for_generation", "_reorder_cache", "_is_stateful", "continuum")
"""What a continuum puts into its model."""


@dataclass(eq=False)
class Continuum:
    """What a pretrained model has learned from the text that it reads; ``add_continuum`` makes one.

    Attributes:
        trunk, blocks, first: the model without its head, its blocks, and the number of the lowest that is written.
        time: tokens of the text that were read.
        matrices: what is written, by block and matrix: "27.down".
    """

    model: nn.Module
    inner_lr: float
    period: int
    gate: float
    writer: Link | Rule
    chosen: Mapping[str, Any]
    trunk: nn.Module
    blocks: Sequence[nn.Module]
    first: int
    matrices: dict[str, WrittenMatrix] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.original: Callable[..., Any] = self.model.forward
        self.learns = self.is_paused = False
        shared = getattr(getattr(self.trunk, "config", None), "num_kv_shared_layers", 0)  # keys of blocks below
        self._asks_once = self.first > 0 and self.trunk is not self.model and not shared
        self._losses: list[Tensor] | None = None
        self._answers: list[Tensor] = []
        self.reset()

    def install(self) -> None:
        """Take the place of the model's forward pass."""
        self.__wrapped__ = self.original  # so that generate finds the arguments that it looks for
        self._replaced = {name: vars(self.model)[name] for name in PLACED if name in vars(self.model)}
        self.model.forward = self
        self.model._reorder_cache = self._reorder  # type: ignore[assignment]
        if self.inner_lr:  # what was read cannot be taken back, so that generate refuses the drafts of an assistant
            self.model._is_stateful = True  # type: ignore[assignment]
            if own := getattr(self.model, "prepare_inputs_for_generation", None):
                prepare = update_wrapper(partial(self._prepare, own), own)
                self.model.prepare_inputs_for_generation = prepare  # type: ignore[assignment]
        self.model.continuum = self  # type: ignore[assignment]

    def remove(self) -> None:
        """Give the model back as it was."""
        if vars(self.model).get("continuum") is not self:
            return
        for handle in [*self.handles, *(matrix.handle for matrix in self.matrices.values())]:
            handle.remove()
        for name in PLACED:
            self.model.__dict__.pop(name, None)
        vars(self.model).update(self._replaced)

    def reset(self) -> None:
        """Forget the text: what is read next begins another, in any batch size."""
        self.time = 0
        self._due = False
        self._waiting: tuple[Tensor, tuple[Tensor, Tensor | None] | None] | None = None
        for matrix in self.matrices.values():
            matrix.state = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block the model answers from what it has learned and learns nothing; the text does not go on."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    @torch.inference_mode(False)
    @torch.no_grad()
    def state(self, following: Tensor | None = None) -> State:
        """What the text has written, as tensors [batch, ...] in nested dictionaries; {} where nothing is.

        A state ends a call: unless the tokens ``following`` [batch] are told, from the prediction of the token after it
        nothing is learned, in the text that goes on and after a ``load`` alike.

        Raises:
            ValueError: ``following`` of another shape.
        """
        if following is not None and following.ndim != 1:
            raise ValueError(f"following: expected the token after each text, [batch], got {list(following.shape)}")
        self._settle(following)
        if not self.texts:
            return {}
        blocks: State = {}
        for path, matrix in self.matrices.items():
            number, name = path.split(".")
            blocks.setdefault(number, {})[name] = matrix.held()
        return {"time": torch.tensor(self.time), "blocks": blocks}

    @torch.inference_mode(False)  # as a call: what is made in an inference mode cannot be learned from later
    @torch.no_grad()
    def load(self, state: State | str | os.PathLike[str]) -> None:
        """Go on with a text where ``state`` or ``save`` left it. The cache of keys and values is the caller's.

        Raises:
            StateFileError: a file that is no such state, or one of other settings or weights; a state that gives no
                numbers.
            ValueError: a state of other matrices.
        """
        if not isinstance(state, dict):
            state = read_file(state, self.matrices, self.writer)
        expected = {path.split(".")[0] for path in self.matrices} if state else set()
        if (names := set(state.get("blocks", {}))) != expected:
            raise ValueError(f"state: expected one of the blocks {sorted(expected)}, got {sorted(names)}")
        if state:
            check_state(state, self.matrices)
        held, time = {}, int(state.get("time", 0))
        for path, matrix in self.matrices.items() if state else ():
            number, name = path.split(".")
            device = matrix.linear.weight.device
            held[path] = mapped(lambda each, to=device: _copy(each, to), state["blocks"][number][name])
            after = matrix.written(mapped(Tensor.clone, held[path]), time - time % matrix.period + matrix.period)
            if not after["model"]["weight"].isfinite().all():  # a mean of squares below zero, for one
                raise StateFileError(f"state: what {path} holds gives no numbers at its next write")
        self.reset()
        self.time = time
        for path, state in held.items():
            self.matrices[path].state = state

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a safetensors file, in the place of what was there.

        Raises:
            ValueError: no text has begun; nothing is written, as ``inner_lr`` is 0.
            MissingPackageError: safetensors is not installed.
        """
        if not (state := self.state()):
            why = "nothing was read since the last reset" if self.inner_lr else "with inner_lr=0 nothing is written"
            raise ValueError(f"there is no state to save: {why}")
        write_file(path, state, self.matrices, self.writer)

    def __getstate__(self) -> dict[str, Any]:
        if self._waiting is not None:
            raise RuntimeError(
                "a text is being read, and slopes that wait cannot be copied: continuum.state() or reset() ends them"
            )
        return vars(self)

    @property
    def texts(self) -> int:
        """Texts that are being read side by side; 0 before the first."""
        state = next(iter(self.matrices.values())).state
        return len(state["model"]["weight"]) if state else 0

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of ``add_continuum`` as plain data, of which ``continuum.json`` makes the same again.

        Raises:
            TypeError: a writer that cannot be written down: one of the core, or with a function of somebody's own.
        """
        return {**self.chosen, "writer": writer_data(self.writer)}

    def save_pretrained(self, folder: str | os.PathLike[str], tokenizer: Any = None) -> None:
        """Write a folder that ``load_stacked`` reads: the model as it was trained and the settings, not the state.

        Args:
            folder: one that is not there yet, or is empty; it comes to be whole or not at all.
            tokenizer: of transformers, which is written too.

        Raises:
            FileExistsError: the folder holds something.
            TypeError: settings that cannot be written down, see ``settings``; a model with adapters of peft.
            OSError: it cannot be written.

        Example:
            >>> continuum.save_pretrained("mine", tokenizer)  # doctest: +SKIP
            >>> model, tokenizer = nl.models.load_stacked("mine")  # doctest: +SKIP
        """
        write_folder(folder, self.model, tokenizer, self.settings)

    @property
    def bytes(self) -> int:
        """Bytes of the state at the moment."""
        return sum(state_bytes(matrix.state) for matrix in self.matrices.values() if matrix.state)

    def read(self, tokens: Tensor, *, window: int = 2048) -> Tensor:
        """Read on in the text; the losses of all its tokens but the very first, each predicted before it was read.

        Args:
            tokens: [batch, time].
            window: attention begins anew after so many tokens; what was written stays.

        Returns:
            [batch, time] in nats, [batch, time - 1] where the text begins.

        Raises:
            ValueError: tokens of another shape; a window below 1.
            RuntimeError: within ``paused()``, where the text does not go on.
        """
        if self.is_paused:
            raise RuntimeError("a text does not go on within paused(): call the model itself, or read before or after")
        if tokens.ndim != 2 or window < 1:
            raise ValueError(
                f"expected tokens [batch, time] and a window of 1 or more, got {list(tokens.shape)}, {window}"
            )
        losses: list[Tensor] = []
        self._losses = losses
        try:
            for piece in tokens.split(window, 1) if tokens.shape[1] else ():
                self(piece, use_cache=False)
        finally:
            self._losses = None
        return torch.cat(losses, 1) if losses else tokens.new_zeros(len(tokens), 0, dtype=torch.float32)

    def __call__(self, *args: Any, **given: Any) -> Any:
        """The model's forward pass, which is read and learned from.

        Raises:
            RuntimeError: the model is in training mode.
            ValueError: what is given has no tokens, or asks for what pieces of a call do not have.
        """
        if self.is_paused or (not self.inner_lr and self._losses is None):
            return self.original(*args, **given)
        if self.model.training:
            raise RuntimeError("a model with a continuum learns while it reads: call model.eval() first")
        call = Call.of(self.original, args, given)
        with torch.inference_mode(False), torch.no_grad():
            try:
                return self._read(call)
            finally:
                if not self.time:  # it failed before anything was read: no text has begun
                    self.reset()

    def _read(self, call: Call) -> Any:
        tokens, counts = call.tokens, call.counts
        several = tokens.shape[1] > self._until_due
        if several:
            call.check_parts(getattr(self.model, "config", None))  # what is refused teaches nothing
        self._begin(tokens)
        self._settle(tokens[:, 0], None if counts is None else counts[:, 0])
        with asked_once(call, self.trunk, self.blocks, self.first) if several and self._asks_once else nullcontext():
            out, logits = self._pieces(call)
        return call.answer(out, torch.cat(logits, 1) if len(logits) > 1 else logits[0])

    @property
    def _until_due(self) -> int:
        """Tokens until the next write."""
        return self.period - self.time % self.period

    def _pieces(self, call: Call) -> tuple[Any, list[Tensor]]:
        """Read a call; the answer to its last piece, and the logits of its pieces."""
        tokens, counts = call.tokens, call.counts
        logits: list[Tensor] = []
        out, start, length = None, 0, tokens.shape[1]
        while start < length:
            stop = min(start + self._until_due, length)
            self.learns = bool(self.inner_lr)
            try:
                with torch.no_grad():  # a hook switches slopes on, the end of the block switches them off again
                    out = call.piece(start, stop)
            finally:
                self.learns = False
                self._answers.clear()
            detach_cache(call.cache)
            self.time, self._due = self.time + stop - start, True
            self._predicted(
                out.logits, tokens[:, start : stop + 1], None if counts is None else counts[:, start : stop + 1]
            )
            if self._losses is None or not logits:  # `read` has the losses, and a window's logits are large
                logits.append(out.logits.detach())
            if stop < length:
                self._settle()
            start = stop
        return out, logits

    def _begin(self, tokens: Tensor) -> None:
        """The first call of a text decides how many texts there are."""
        if not self.time and self.inner_lr:
            for path, matrix in self.matrices.items():
                if matrix.linear.weight.is_meta and not tokens.is_meta:
                    raise ValueError(f"{path}: expected a weight that lies on a device, got one that is offloaded")
                matrix.state = matrix.fresh(len(tokens))

    def _predicted(self, logits: Tensor, tokens: Tensor, counts: Tensor | None) -> None:
        """What a piece predicted, of tokens [batch, time + 1], or, at the end of a call, [batch, time]."""
        known = tokens.shape[1] - 1
        both = None if counts is None else counts[:, 1:] & counts[:, :-1]
        with torch.enable_grad():
            all_known = known == logits.shape[1]  # a part's slopes would be copied into zeros as large as the logits
            loss = self._loss(logits if all_known else logits[:, :known], tokens[:, 1:], both)
            last = None if all_known else (logits[:, -1:], None if counts is None else counts[:, -1:])
        self._waiting = (loss, last)

    def _settle(self, token: Tensor | None = None, counts: Tensor | None = None) -> None:
        """Learn from what was predicted, with the token [batch] that came after it, and write what is due."""
        if self._waiting is not None:
            loss, last = self._waiting
            if token is not None and last is not None:
                logits, before = last
                if len(token) != len(logits):
                    raise _others(len(logits), len(token))
                both = None if before is None or counts is None else before & counts[:, None]
                with torch.enable_grad():
                    loss = loss + self._loss(logits, token[:, None], both)
            self._waiting = None
            if loss.requires_grad:
                matrices = list(self.matrices.values())
                slopes = torch.autograd.grad(loss, [matrix.leaf() for matrix in matrices])
                for matrix, slope in zip(matrices, slopes, strict=True):
                    matrix.add_slope(slope)
        if self._due and self.inner_lr:
            for matrix in self.matrices.values():
                matrix.write(self.time)
        self._due = False

    def _loss(self, logits: Tensor, tokens: Tensor, counts: Tensor | None) -> Tensor:
        """Cross-entropy, summed over what counts, so that texts do not share anything."""
        tokens = tokens.clone()  # those of an inference mode cannot be kept for slopes
        each = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
        seen = each.detach()
        if self._losses is not None:
            self._losses.append(seen)
        counted = seen > self.gate if counts is None else counts & (seen > self.gate)
        return (each * counted).sum()

    def keep_answer(self, answer: Tensor) -> None:
        """Objective "direct": what a matrix has added to the residual stream."""
        self._answers.append(answer)

    def join(self, norm: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Objective "direct": before the last norm, as if all that was added had been added here."""
        if not self.learns:
            return None
        torch.set_grad_enabled(True)
        added = torch.stack(self._answers).sum(0)
        return (given[0].detach() + (added - added.detach()), *given[1:])

    def _prepare(self, prepare: Callable[..., Any], *args: Any, **given: Any) -> Any:
        """What generate asks before each call, which without a cache would read the whole text anew."""
        if given.get("use_cache") is False and not self.is_paused:
            raise ValueError("generate reads every token once: expected use_cache=True, got False")
        return prepare(*args, **given)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _reorder(self, cache: Any, index: Tensor) -> Any:
        """A beam search goes on with the texts ``index``: the cache and what they have written."""
        cache.reorder_cache(index)
        if self.is_paused or not self.inner_lr:
            return cache
        self._settle()  # without the token that comes next: of one prediction the beams may have made several
        for matrix in self.matrices.values():
            matrix.state = select_state(matrix.held(), index)
        return cache


def _others(expected: int, came: int) -> ValueError:
    return ValueError(
        f"expected the {expected} texts that are being read, got {came}: model.continuum.reset() begins with others"
    )


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    """One that nobody else holds, as kernels write them."""
    return tensor.to(device, copy=True, memory_format=torch.contiguous_format)
