"""Times: memories of one batch that have been written unequally often before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nestlearn.memory import AssociativeMemory, Constant, Consult, Consulted, GradientDescent, Rule, average_box, l2
from nestlearn.memory.boxes import bias_corrected, sum_box
from nestlearn.memory.nesting import Scene
from nestlearn.memory.rules import Context, always
from nestlearn.memory.times import Times, happens_at, number_at, numbers_at


def over_rows(numbers: Any) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.float64)[:, None, None]


def test_equal_counts_are_a_plain_number() -> None:
    assert Times.of([3, 3], over_rows) == 3
    times = Times.of([3, 5], over_rows)
    assert isinstance(times, Times)
    assert (times + 1).each == (4, 6)  # type: ignore[union-attr]
    assert times // 3 == 1
    assert (times // 2).each == (1, 2)  # type: ignore[union-attr]


def test_numbers_are_spread_over_the_batch() -> None:
    times = Times.of([0, 2], over_rows)
    assert torch.equal(number_at(times, lambda time: 0.5**time), torch.tensor([1.0, 0.25]).double()[:, None, None])
    assert number_at(2, lambda time: 0.5**time) == 0.25
    found = numbers_at(times, lambda time: {"a": time, "b": 2 * time})
    assert found["b"].flatten().tolist() == [0, 4]


def test_what_happens_is_the_same_for_the_whole_batch() -> None:
    times = Times.of([3, 5], over_rows)
    assert happens_at(times, lambda time: time % 2 == 1) is True
    assert happens_at(times, lambda time: time > 7) is False
    with pytest.raises(ValueError, match=r"\[3, 5\] times differ"):
        happens_at(times, lambda time: time > 4)


def test_plain_arithmetic_on_unequal_times_says_what_to_use() -> None:
    with pytest.raises(TypeError, match=r"scene\.number"):
        0.9 ** Times.of([1, 2], over_rows)
    with pytest.raises(TypeError, match=r"scene\.number"):
        bool(Times.of([0, 2], over_rows))
    assert bool(Times.of([1, 2], over_rows))


SLOW = Consulted("slow", AssociativeMemory(Constant(), l2, GradientDescent(lr=0.5), 3))


@pytest.mark.parametrize(
    ("members", "alike"),
    [
        ((average_box("m", 0.9),), [[0, 1, 2, 3, 4, 5]]),
        ((average_box("m", 0.9), SLOW), [[0, 1, 3, 4], [2, 5]]),
        ((sum_box("m", 0.9, every=2),), [[0, 2, 4], [1, 3, 5]]),
        ((sum_box("m", 0.9, every=2), SLOW), [[0, 4], [1, 3], [2], [5]]),
    ],
)
def test_a_schedule_tells_times_apart_where_something_else_happens(members: Any, alike: list[list[int]]) -> None:
    happens = Consult(memories=lambda shape: members).schedule(torch.Size([2, 3]))
    found: dict[Any, list[int]] = {}
    for time in range(6):
        found.setdefault(happens(time), []).append(time)
    assert sorted(found.values()) == alike


def test_a_rule_behind_a_memory_counts_the_writes_of_that_memory() -> None:
    inner = Consult(memories=lambda shape: (SLOW,))
    outer = Consulted("outer", AssociativeMemory(Constant(), l2, inner), every=2)
    happens = Consult(memories=lambda shape: (outer,)).schedule(torch.Size([2, 3]))
    assert [happens(time) == happens(4) for time in (0, 2, 4, 10)] == [False, False, True, True]


class Own(Rule):
    def update(self, state: Any, gradients: Any, context: Context) -> Any:
        return gradients, state


def test_a_rule_that_says_nothing_sees_one_time_at_once() -> None:
    assert Own().schedule(torch.Size([2]))(4) != Own().schedule(torch.Size([2]))(5)
    assert GradientDescent().schedule(torch.Size([2])) is always


def test_a_batch_of_unequal_times_is_as_if_alone() -> None:
    """Bias corrections differ from row to row, which are written as if each were alone."""
    member = average_box("m", 0.9, readout=bias_corrected(0.9))
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    gradient = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)

    def state(rows: Any) -> dict[str, Any]:
        return {"model": {"value": value[rows].clone()}, "rule": {}}

    together, written = member.consult(state(slice(None)), Scene(gradient, time=Times.of([1, 6], over_rows)))
    for row, time in enumerate((1, 6)):
        alone, own = member.consult(state([row]), Scene(gradient[[row]], time=time))
        assert torch.equal(together[row], alone[0])
        assert torch.equal(written["model"]["value"][row], own["model"]["value"][0])
