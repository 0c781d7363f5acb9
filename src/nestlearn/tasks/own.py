"""A task of your own: a function that returns model, batches and loss, by the name ``module:function``.

    def task(width=64):
        return model, batches, loss                       # or model, batches, loss, held_out

``loss(model, batch)`` is a 0-D tensor. ``batches`` is any iterable: a list, a DataLoader, a generator; endless or not,
it is gone through again when it is exhausted. ``held_out`` is ``{"validation": [...], "test": [...]}``; without it the
first ``2 * held_out`` batches are kept from training and judge in turn, one for validation, one for the test split.

The function is called with torch's generator at the seed, and with ``seed=`` if it has such an argument; the stream of
batches has that generator to itself. So runs can be repeated and resumed if the function draws from torch or from
``seed``, and a function that does neither is found out.

``module:class`` is a task too, if the class is a ``Task``: for figures and held-out splits that a function cannot say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nestlearn.errors import did_you_mean
from nestlearn.imported import imported
from nestlearn.tasks.about import AboutOwnTask
from nestlearn.tasks.task import Batch, Task

__all__ = ["OwnTask", "own_task"]

Loss = Callable[[nn.Module, Batch], Tensor]
Splits = Mapping[str, list[Batch]]
SPLITS = ("validation", "test")


class _Made(NamedTuple):
    """What the function returned, and the state of torch's generator after it."""

    model: nn.Module
    batches: Iterable[Batch]
    loss: Loss
    held_out: Splits | None
    random: Tensor


@dataclass(frozen=True, kw_only=True)
class OwnTask(AboutOwnTask, Task):
    """The task that ``function(**arguments)`` returns. Figure: ``loss``, the mean over the batches of a split.

    Batches are moved to the device, tensors of real numbers to the dtype too, inside tuples, lists and dictionaries.
    """

    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    held_out: int = 4

    _splits: dict[int, Splits] = field(default_factory=dict, init=False, repr=False, compare=False)
    _built: WeakKeyDictionary[nn.Module, tuple[int, Loss]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    @classmethod
    def sized(cls, size: Mapping[str, Any], device: str, dtype: torch.dtype) -> Task:
        """Fields of a task are taken for itself, all others are arguments of the function; a class has its own."""
        function = imported(cls.name, "task")
        if isinstance(function, type) and issubclass(function, Task):
            return function.sized(size, device, dtype)
        own = {name: value for name, value in size.items() if name in ("held_out", "delay")}
        arguments = {name: value for name, value in size.items() if name not in own}
        _check_arguments(cls.name, function, arguments)
        return cls(function=function, arguments=arguments, **own, device=device, dtype=dtype)

    def build(self, seed: int) -> nn.Module:
        made = self._make(seed)
        self._splits[seed] = self._first(made) if made.held_out is None else made.held_out
        model = made.model.to(device=self.device, dtype=self.dtype)
        self._built[model] = (seed, made.loss)
        return model

    def batches(self, seed: int, start: int = 0) -> Iterator[Batch]:
        for batch in islice(self._stream(seed), start, None):
            yield _moved(batch, self.device, self.dtype)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        value = self._known(model)[1](model, batch)
        if not isinstance(value, Tensor) or value.ndim:
            shape = f" of shape {list(value.shape)}" if isinstance(value, Tensor) else ""
            raise ValueError(
                f"expected the loss of {self.name} to return a tensor without dimensions, got a "
                f"{type(value).__name__}{shape}; take the mean over the batch"
            )
        return value

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        batches = self._splits[self._known(model)[0]][split]
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)  # a loss that draws judges every model by the same numbers
                moved = (_moved(batch, self.device, self.dtype) for batch in batches)
                losses = [self.loss(model, batch).item() for batch in moved]
        finally:
            for module, training in modes:
                module.training = training
        return {"loss": sum(losses) / len(losses)}

    def _known(self, model: nn.Module) -> tuple[int, Loss]:
        model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        if model not in self._built:
            raise ValueError(f"expected a model that this task has built, got another {type(model).__name__}")
        return self._built[model]

    def _make(self, seed: int) -> _Made:
        """Call the function, and put torch's generator back."""
        wants_seed = "seed" in inspect.signature(self.function).parameters
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            made = self.function(**self.arguments, **({"seed": seed} if wants_seed else {}))
            random = torch.get_rng_state()
        checked = _Made(*_checked(self.name, made), random)
        if checked.model in self._built:
            raise ValueError(
                f"{self.name} returned the same model twice: make it inside the function, so that runs start afresh"
            )
        return checked

    def _first(self, made: _Made) -> Splits:
        """The batches that are held out when the function names none."""
        first = list(islice(_pass(made.batches, [made.random]), 2 * self.held_out))
        if len(first) < 2 * self.held_out:
            raise ValueError(self._too_short(len(first)))
        return {split: first[offset::2] for offset, split in enumerate(SPLITS)}

    def _stream(self, seed: int) -> Iterator[Batch]:
        """The batches to train on, over and over."""
        made = self._make(seed)
        kept = [] if made.held_out is not None else self._kept(seed)
        once = iter(made.batches) is made.batches  # an iterator: to go through it again is to make it again
        state, number = [made.random], 0
        while True:
            count = 0
            for count, batch in enumerate(_pass(made.batches, state), start=1):
                if count > len(kept):
                    yield batch
                elif not _same(batch, kept[count - 1]):
                    raise ValueError(self._other_order(number))
            if count <= len(kept):
                raise ValueError(self._too_short(count))
            number += 1
            if once:
                made = self._make(seed)
                state = [made.random]

    def _kept(self, seed: int) -> list[Batch]:
        if seed not in self._splits:
            self._splits[seed] = self._first(self._make(seed))
        splits = self._splits[seed]
        return [batch for pair in zip(*(splits[split] for split in SPLITS), strict=True) for batch in pair]

    def _too_short(self, count: int) -> str:
        return (
            f"expected {self.name} to give more than {2 * self.held_out} batches, as the first {2 * self.held_out} are "
            f"held out, got {count}; return held_out as a fourth value, or set held_out lower"
        )

    def _other_order(self, number: int) -> str:
        if number:
            return (
                f"the batches of {self.name} come in another order the second time, so those held out would be trained "
                'on: return held_out = {"validation": [...], "test": [...]} as a fourth value'
            )
        return (
            f"{self.name} gave other batches for the same seed: take random numbers from torch's global generator, or "
            "from an argument `seed`"
        )


@lru_cache(maxsize=64)
def own_task(name: str) -> type[OwnTask]:
    """The class of the task ``module:function``; nothing is imported for it."""
    return type("OwnTask", (OwnTask,), {"name": name, "title": name, "__module__": __name__})


def _check_arguments(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise ValueError unless the function can be called with these arguments, and perhaps a seed."""
    parameters = inspect.signature(function).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    takes = {key for key, value in parameters.items() if value.kind in named} - {"seed"}
    if not any(value.kind is inspect.Parameter.VAR_KEYWORD for value in parameters.values()):
        for given in arguments:
            if given not in takes:
                known = sorted(takes | {"delay", "held_out"})
                raise ValueError(
                    f"unknown field {given!r} of the task {name}: expected one of {', '.join(known)}."
                    f"{did_you_mean(given, known)}"
                )
    for needed in takes - set(arguments):
        if parameters[needed].default is inspect.Parameter.empty:
            raise ValueError(f"{name} needs a value for {needed!r}: give it as a field of the task, or a default")


def _checked(name: str, made: Any) -> tuple[nn.Module, Iterable[Batch], Loss, Splits | None]:
    """What the function returned, or a ValueError that says what it should have."""
    expected = f"expected {name} to return (model, batches, loss) or (model, batches, loss, held_out)"
    if not isinstance(made, tuple | list) or len(made) not in (3, 4):
        length = f" of length {len(made)}" if isinstance(made, tuple | list) else ""
        raise ValueError(f"{expected}, got a {type(made).__name__}{length}")
    model, batches, loss, held_out = [*made, None][:4]
    if not isinstance(model, nn.Module):
        raise ValueError(f"{expected} with a torch.nn.Module first, got a {type(model).__name__}")
    if not hasattr(batches, "__iter__"):
        raise ValueError(f"{expected} with an iterable of batches second, got a {type(batches).__name__}")
    if not callable(loss):
        raise ValueError(f"{expected} with a function loss(model, batch) third, got a {type(loss).__name__}")
    if len(made) == 3:
        return model, batches, loss, None
    if not isinstance(held_out, Mapping) or set(held_out) != set(SPLITS):
        got = sorted(map(str, held_out)) if isinstance(held_out, Mapping) else type(held_out).__name__
        raise ValueError(f'{expected} with held_out = {{"validation": [...], "test": [...]}}, got {got}')
    splits = {split: list(held_out[split]) for split in SPLITS}
    for split, found in splits.items():
        if not found:
            raise ValueError(f"expected {name} to hold out at least one batch for {split}, got none")
    return model, batches, loss, splits


def _pass(batches: Iterable[Batch], state: list[Tensor]) -> Iterator[Batch]:
    """Go through the batches once, with torch's generator at ``state[0]``, which is moved on; the global state of the
    generator never changes, so what a training loop draws in between does not matter.
    """
    iterator: Iterator[Batch] | None = None
    while True:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state[0])
            try:
                iterator = iter(batches) if iterator is None else iterator
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                state[0] = torch.get_rng_state()
        yield batch


def _moved(batch: Batch, device: str, dtype: torch.dtype) -> Batch:
    """The batch with its tensors on the device, those of real numbers in the dtype."""
    if isinstance(batch, Tensor):
        return batch.to(device, dtype) if batch.is_floating_point() else batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _moved(value, device, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        values = [_moved(value, device, dtype) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch


def _same(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same tensors; what else they may hold is not compared."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return isinstance(other, tuple | list) and len(one) == len(other) and all(map(_same, one, other))
    return True
