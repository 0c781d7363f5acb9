"""Parameters replaced in a group, as code does it that grows and prunes tables (3D Gaussian splatting, vocabularies).

    state = optimizer.state.pop(old)
    state["exp_avg"] = torch.cat([state["exp_avg"], zeros])
    group["params"][0] = new
    optimizer.state[new] = state

The new parameter keeps the rule that the name or the place of the old one was given.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .members import MEMBERS, Member, over
from .problems import Bag, assert_close, assert_equal, snapshot
from .selections import CLASSES, MANY_KINDS, fast_for

OWN = 0.003
BETAS = (0.9, 0.999)

# Members that watch layers know a matrix by its layer, which goes on holding the old one.
FREE = [member for member in MEMBERS if not member.closure and not member.model]
WITH_ADAM = [member for member in FREE if member.name in {"Muon", "M3", "DeepMomentum", "DeepAdam", "SecantMomentum"}]
ANY = fast_for(MANY_KINDS, [member for member in FREE if member in CLASSES])
MUON = next(member for member in MEMBERS if member.name == "Muon")


class Tables(nn.Module):
    """A table [6, 4] named "table.weight", a vector "scale.p0" and a matrix "head.weight" [5, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4, dtype=torch.float64)
        self.scale = Bag([torch.ones(4, dtype=torch.float64)])
        self.head = nn.Linear(4, 5, bias=False, dtype=torch.float64)
        for place, parameter in enumerate(self.parameters()):
            parameter.data.copy_(noise(-1 - place, parameter))


def noise(seed: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 10_000)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def train(optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Gradients that depend on the step, the place and the shape, and so are the same for every optimizer."""
    for step in steps:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for place, parameter in enumerate(parameters):
            parameter.grad = noise(10 * step + place, parameter)
        optimizer.step()


def exchange(optimizer: torch.optim.Optimizer, change: Callable[[Tensor], Tensor], names: set[str] | None) -> None:
    """Put a new parameter in the first place and what is remembered of the old one under it.

    `change` maps the old values to the new ones, and so it does the memories: those named, or all of the table's shape.
    """
    group = optimizer.param_groups[0]
    old = group["params"][0]
    new = nn.Parameter(change(old.detach()))
    state = optimizer.state.pop(old)
    for key, value in state.items():
        if value.shape == old.shape if names is None else key in names:
            state[key] = change(value)
    group["params"][0] = new
    optimizer.state[new] = state


def grown(value: Tensor) -> Tensor:
    return torch.cat([value, torch.zeros(3, *value.shape[1:], dtype=value.dtype)])


def pruned(value: Tensor) -> Tensor:
    return value[[0, 2, 3, 5]].clone()


def same(value: Tensor) -> Tensor:
    return value.clone()


CHANGES = [grown, pruned, same]

CHOICES: dict[str, tuple[bool, Callable[[Tables], Any]]] = {
    "pattern": (True, lambda tables: ["table.*"]),
    "function": (True, lambda tables: lambda name, parameter: name.startswith("table")),
    "module": (False, lambda tables: [tables.table]),
    "named module": (True, lambda tables: [tables.table]),
    "tensor": (False, lambda tables: [tables.table.weight]),
}
"""Whether the parameters have names, and what is given as `elementwise`."""


def kept(pair: tuple[Tables, torch.optim.Optimizer]) -> tuple[Tables, torch.optim.Optimizer]:
    return pair


def copied(pair: tuple[Tables, torch.optim.Optimizer]) -> tuple[Tables, torch.optim.Optimizer]:
    return copy.deepcopy(pair)


def pickled(pair: tuple[Tables, torch.optim.Optimizer]) -> tuple[Tables, torch.optim.Optimizer]:
    return pickle.loads(pickle.dumps(pair))


def reloaded(pair: tuple[Tables, torch.optim.Optimizer]) -> tuple[Tables, torch.optim.Optimizer]:
    pair[1].load_state_dict(copy.deepcopy(pair[1].state_dict()))
    return pair


WAYS = [kept, copied, pickled, reloaded]
"""What the optimizer goes through before the table is replaced."""

# Fast are as many as show each change with each choice, and each of these after each way.
CASES = [
    pytest.param(*case, marks=() if number % len(WAYS) == WAYS.index(case[2]) else pytest.mark.slow)
    for number, case in ((i + j, (a, b, c)) for i, a in enumerate(CHANGES) for j, b in enumerate(CHOICES) for c in WAYS)
]


@pytest.mark.parametrize(("change", "choice", "through"), CASES)
def test_a_replaced_table_goes_on_as_with_adamw(
    change: Callable[[Tensor], Tensor], choice: str, through: Callable[..., Any]
) -> None:
    assert_trains_as_with_adamw(MUON, change, choice, through)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("choice", ["pattern", "module"])
@pytest.mark.parametrize(**fast_for(MANY_KINDS, WITH_ADAM))
def test_a_replaced_table_of_every_class_goes_on_as_with_adamw(
    member: Member, change: Callable[[Tensor], Tensor], choice: str
) -> None:
    assert_trains_as_with_adamw(member, change, choice, copied)


def assert_trains_as_with_adamw(
    member: Member, change: Callable[[Tensor], Tensor], choice: str, through: Callable[..., Any]
) -> None:
    """The same surgery on AdamW gives the same table, the other parameters train as if nothing had happened."""
    tables, twin, plain = Tables(), Tables(), Tables()
    named, wanted = CHOICES[choice]
    parameters = tables.named_parameters() if named else tables.parameters()
    optimizer = member.build(tables, parameters, elementwise=wanted(tables), elementwise_lr=OWN, lr=0.05)
    reference = torch.optim.AdamW(twin.parameters(), lr=OWN, betas=BETAS, eps=1e-8, weight_decay=0.0)
    untouched = member.build(plain, plain.parameters(), elementwise=[plain.table], elementwise_lr=OWN, lr=0.05)
    train(optimizer, range(3))
    tables, optimizer = through((tables, optimizer))
    for driven in (reference, untouched):
        train(driven, range(3))
    exchange(optimizer, change, None)
    exchange(reference, change, {"exp_avg", "exp_avg_sq"})
    for driven in (optimizer, reference, untouched):
        train(driven, range(3, 6))
    (ours, _, head), (theirs, *_) = optimizer.param_groups[0]["params"], reference.param_groups[0]["params"]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(head, plain.head.weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(**fast_for(MANY_KINDS, WITH_ADAM))
def test_a_table_may_be_replaced_again_and_again(member: Member) -> None:
    tables, twin = Tables(), Tables()
    optimizer = member.build(tables, elementwise=[tables.table], elementwise_lr=OWN)
    reference = torch.optim.AdamW(twin.parameters(), lr=OWN, betas=BETAS, eps=1e-8, weight_decay=0.0)
    for round_, change in enumerate([grown, pruned, grown, same, grown]):
        for driven, names in ((optimizer, None), (reference, {"exp_avg", "exp_avg_sq"})):
            train(driven, range(2 * round_, 2 * round_ + 2))
            exchange(driven, change, names)
    train(optimizer, range(10, 12))
    train(reference, range(10, 12))
    torch.testing.assert_close(
        optimizer.param_groups[0]["params"][0], reference.param_groups[0]["params"][0], rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["Adam", "Momentum"])
def test_the_classes_of_torch_are_equal_after_it(name: str, change: Callable[[Tensor], Tensor]) -> None:
    member = next(member for member in MEMBERS if member.name == name)
    tables, twin = Tables(), Tables()
    optimizer = member.build(tables, lr=0.01)
    if name == "Adam":
        reference: torch.optim.Optimizer = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.0)
    else:
        reference = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9)
    train(optimizer, range(3))
    train(reference, range(3))
    exchange(optimizer, change, None)
    exchange(reference, change, {"exp_avg", "exp_avg_sq", "momentum_buffer"})
    train(optimizer, range(3, 6))
    train(reference, range(3, 6))
    for ours, theirs in zip(optimizer.param_groups[0]["params"], reference.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("named", [False, True], ids=["parameters", "named"])
@pytest.mark.parametrize("through", [kept, copied, pickled, reloaded])
@pytest.mark.parametrize(**ANY)
def test_a_new_matrix_starts_afresh_with_the_rule_of_matrices(
    member: Member, through: Callable[..., Any], named: bool
) -> None:
    """Nothing is moved over; it may be of another shape, and trains as in an optimizer of its own."""
    tables = Tables()
    chosen = {"elementwise": [tables.table]} if member.name not in {"Adam", "GradientDescent"} else {}
    optimizer = member.build(tables, tables.named_parameters() if named else tables.parameters(), **chosen)
    train(optimizer, range(2))
    tables, optimizer = through((tables, optimizer))
    group = optimizer.param_groups[0]
    new = nn.Parameter(noise(77, torch.empty(3, 4, dtype=torch.float64)))
    alone = Bag([new.detach().clone()])
    reference = member.build(alone)
    optimizer.state.pop(group["params"][2])
    group["params"][2] = new
    for step in range(2, 5):
        train(optimizer, range(step, step + 1))
        alone.p0.grad = noise(10 * step + 2, new)
        reference.step()
    torch.testing.assert_close(new.detach(), alone.p0.detach(), rtol=1e-9, atol=1e-12)
    assert {key: value.shape for key, value in optimizer.state[new].items()} == {
        key: value.shape for key, value in reference.state[alone.p0].items()
    }


@pytest.mark.parametrize(**ANY)
def test_a_parameter_with_the_same_values_and_the_moved_state_changes_nothing(member: Member) -> None:
    ends = []
    for swapped in (False, True):
        tables = Tables()
        optimizer = member.build(tables)
        train(optimizer, range(3))
        if swapped:
            group = optimizer.param_groups[0]
            for place, old in enumerate(list(group["params"])):
                group["params"][place] = nn.Parameter(old.detach().clone())
                optimizer.state[group["params"][place]] = optimizer.state.pop(old)
        train(optimizer, range(3, 6))
        ends.append(snapshot(optimizer))
    assert_equal(*ends)


@pytest.mark.parametrize(**over(member for member in MEMBERS if member.name == "Muon"))
def test_a_whole_list_may_be_exchanged(member: Member) -> None:
    """`group["params"] = [...]`, and a group of parameters that others have left."""
    tables, plain = Tables(), Tables()
    optimizer = member.build(tables, tables.named_parameters(), elementwise=["table.*"])
    reference = member.build(plain, elementwise=[plain.table])
    train(optimizer, range(2))
    train(reference, range(2))
    group = optimizer.param_groups[0]
    news = [nn.Parameter(old.detach().clone()) for old in group["params"]]
    for old, new in zip(group["params"], news, strict=True):
        optimizer.state[new] = optimizer.state.pop(old)
    group["params"] = news
    train(optimizer, range(2, 5))
    train(reference, range(2, 5))
    assert_close(Bag(new.detach() for new in news), Bag(old.detach() for old in plain.parameters()), rtol=0, atol=0)
