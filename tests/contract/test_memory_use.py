"""What an optimizer holds and saves does not grow when the set of parameters with gradients changes; loading is linear.

Layers are frozen one after the other, dropped at random, or are experts of a mixture: as with AdamW, a parameter costs
what it costs when all are trained together, and learns what it would learn alone.
"""

from __future__ import annotations

import copy
import io
import random
import sys
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl

from .members import MEMBERS, Member, over
from .problems import Bag
from .schedules import free_gradients
from .selections import CLASSES, fast_for

COUNT = 6
STEPS = 6
SPARE = 4096
"""Bytes by which files of one content may differ."""


OPEN = [member for member in MEMBERS if not member.closure]
SAVING = fast_for({"Adam", "Muon", "Momentum", "DeepMomentum", "SecantMomentum"}, OPEN)
LOADING = fast_for({"Adam", "Muon"}, CLASSES)


def one_by_one(step: int, place: int) -> bool:
    """Frozen one after the other, from the first to the last."""
    return place >= step


def at_random(step: int, place: int) -> bool:
    """A fifth is missing, another each time."""
    return random.Random(1000 * step + place).random() > 0.2


def by_halves(step: int, place: int) -> bool:
    """Two experts, of which one is asked at a time, and not always the same parameters."""
    return random.Random(step).sample(range(COUNT), COUNT).index(place) < COUNT // 2


def alone(step: int, place: int) -> bool:
    """One at a time."""
    return step % COUNT == place


PATTERNS = [one_by_one, at_random, by_halves, alone]


def everything(step: int, place: int) -> bool:
    return True


def layers() -> nn.Sequential:
    """6 matrices [32, 32] and as many vectors [32], each pair a layer."""
    module = nn.Sequential(*[nn.Linear(32, 32, dtype=torch.float64) for _ in range(COUNT)])
    for place, parameter in enumerate(module.parameters()):
        generator = torch.Generator().manual_seed(place)
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 32**0.5)
    return module


def give_gradients(member: Member, module: nn.Sequential, step: int, present: Callable[[int, int], bool]) -> None:
    """Gradients of all layers, of which those that are not present are taken away again.

    They depend on the step alone; members that watch layers get those of a backward pass, which they have to see.
    """
    module.zero_grad()
    if member.model:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(COUNT, 8, 32, generator=generator, dtype=torch.float64)
        pairs = zip(module, inputs, strict=True)
        sum(((layer(rows) - rows).square().mean() for layer, rows in pairs), start=torch.zeros(())).backward()
    else:
        free_gradients(module, step)
    for place, layer in enumerate(module):
        if not present(step, place):
            layer.weight.grad = layer.bias.grad = None


def saved_bytes(tree: Any) -> int:
    file = io.BytesIO()
    torch.save(tree, file)
    return file.tell()


def apart(tree: Any) -> Any:
    """The tree with a storage for each tensor, as AdamW has them; `torch.save` writes whole storages."""
    if isinstance(tree, dict):
        return {key: apart(value) for key, value in tree.items()}
    return tree.clone() if isinstance(tree, Tensor) else tree


def held(optimizer: torch.optim.Optimizer) -> tuple[int, int, int]:
    """Bytes of all storages that the state refers to, of its tensors, and of a checkpoint."""
    tensors = [value for state in optimizer.state.values() for value in state.values()]
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}
    tree = optimizer.state_dict()
    return sum(storages.values()), sum(value.nbytes for value in tensors), saved_bytes(tree)


@cache
def fixed(name: str) -> tuple[int, int, int]:
    """What is held when all parameters have gradients at every step, and each memory is by itself."""
    member = next(each for each in MEMBERS if str(each) == name)
    module = layers()
    optimizer = member.build(module)
    for step in range(2):
        give_gradients(member, module, step, everything)
        optimizer.step()
    tree = optimizer.state_dict()
    tensors = [value for state in tree["state"].values() for value in state.values()]
    size = sum(value.nbytes for value in tensors)
    return size, size, saved_bytes({**tree, "state": apart(tree["state"])})


@pytest.mark.parametrize("present", [everything, *PATTERNS])
@pytest.mark.parametrize(**SAVING)
def test_a_changing_set_of_parameters_takes_no_more_room(member: Member, present: Callable[[int, int], bool]) -> None:
    limits = [1.1 * size + SPARE for size in fixed(str(member))]
    module = layers()
    optimizer = member.build(module)
    for step in range(STEPS):
        give_gradients(member, module, step, present)
        optimizer.step()
        assert all(size <= limit for size, limit in zip(held(optimizer), limits, strict=True)), (
            f"step {step}: {held(optimizer)} bytes of storages, tensors and checkpoint, at most {limits}"
        )


@pytest.mark.parametrize("present", PATTERNS)
@pytest.mark.parametrize(**SAVING)
def test_a_changing_set_of_parameters_learns_what_each_learns_alone(
    member: Member, present: Callable[[int, int], bool]
) -> None:
    together, separate = layers(), layers()
    optimizer = member.build(together)
    singles = [member.build(separate, [parameter]) for parameter in separate.parameters()]
    for step in range(STEPS):
        give_gradients(member, together, step, present)
        give_gradients(member, separate, step, present)
        optimizer.step()
        for single in singles:
            single.step()
    for (name, ours), theirs in zip(together.named_parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("present", [at_random, by_halves])
@pytest.mark.parametrize(**over(member for member in MEMBERS if member.name in {"Adam", "Muon"}))
def test_a_period_takes_no_more_room_either(member: Member, present: Callable[[int, int], bool]) -> None:
    """Gradients that wait for the end of a period, and parameters that end theirs at other steps than others."""
    module, every = layers(), layers()
    optimizer, reference = member.build(module, period=2), member.build(every, period=2)
    for step in range(STEPS):
        give_gradients(member, every, step, everything)
        reference.step()
    tree = reference.state_dict()
    size = sum(value.nbytes for state in tree["state"].values() for value in state.values())
    limits = [1.1 * size + SPARE] * 2 + [1.1 * saved_bytes({**tree, "state": apart(tree["state"])}) + SPARE]
    for step in range(STEPS):
        give_gradients(member, module, step, present)
        optimizer.step()
        assert all(size <= limit for size, limit in zip(held(optimizer), limits, strict=True)), step


def lines_run(work: Callable[[], None]) -> int:
    """How many lines of this package `work` runs, turns of loops included: a count where a clock would waver."""
    count = 0
    package = nl.__path__[0]

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(package) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("named", [False, True], ids=["parameters", "named"])
@pytest.mark.parametrize(**LOADING)
def test_the_work_of_loading_grows_with_the_number_of_parameters(member: Member, named: bool) -> None:
    """Ten times the parameters, ten times the work; looking for each among all would make it a hundred."""
    work = []
    for count in (20, 200):
        shapes = [(2, 3) if place % 2 else (2,) for place in range(count)]
        module = Bag([torch.ones(shape, dtype=torch.float64) for shape in shapes])
        optimizer = member.build(module, module.named_parameters() if named else None)
        free_gradients(module, 0)
        optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict())
        work.append(lines_run(lambda optimizer=optimizer, saved=saved: optimizer.load_state_dict(saved)))
    assert work[0] > 20, "nothing was counted"
    assert work[1] <= 12 * work[0]
