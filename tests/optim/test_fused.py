"""Rules that are torch's are written by torch's kernels, as the composed path would write them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.optim.fused import FusedLane
from nestlearn.optim.lanes import SMALL
from nestlearn.rules import (
    adam,
    average,
    cautious,
    chain,
    gradient,
    orthogonal,
    ramp,
    scale,
    second_moment,
    slow,
    sum,
    sum_of_squares,
)
from nestlearn.rules.kernels import fits, recognised

STEPS = 24
SHAPES = [(4, 3), (7,), (), (0,), (2, 3, 2), (SMALL + 5,)]
RULES: dict[str, nl.rules.Link] = {
    "descent": gradient(),
    "momentum": sum(0.9),
    "nesterov": sum(0.8, nesterov=True),
    "weighted": sum(0.9, weight=0.3),
    "average": average(0.7),
    "adam": adam((0.8, 0.95), 1e-6),
    "adam without momentum": adam((0.0, 0.9)),
    "named": chain(chain(average(0.5, corrected=True, name="m"), gradient()), second_moment(0.9, name="v")),
    "adagrad": sum_of_squares(eps=1e-6, under_root=False),
    "second moment": second_moment(0.9, 1e-6),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "maximize": {"maximize": True, "weight_decay": 0.1},
    "period": {"period": 3},
    "tensor": {"lr": torch.tensor(0.01, dtype=torch.float64), "weight_decay": 0.1},
}


def parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def walk(rule: nl.rules.Link, dtype: torch.dtype, steps: int = STEPS, **common: Any) -> nl.optim.Optimizer:
    """An optimizer after so many steps: two groups, gradients that are missing now and then, and a checkpoint."""
    weights = parameters(dtype)

    def made() -> nl.optim.Optimizer:
        groups = [{"params": weights[::2]}, {"params": weights[1::2], "lr": 0.02}]
        return nl.optim.Optimizer(groups, element=rule, **{"lr": 0.01, **common})

    optimizer, generator = made(), torch.Generator().manual_seed(4)
    for step in range(steps):
        for place, weight in enumerate(weights):
            draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(dtype)
            weight.grad = None if (step + place) % 5 == 2 and step < 10 else draw
        optimizer.step()
        if step == steps // 2:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = made()
            optimizer.load_state_dict(saved)
    return optimizer


def fused(optimizer: nl.optim.Optimizer) -> list[Tensor]:
    """What kernels wrote in the latest step."""
    lanes = [lane for lane in optimizer._plan._lanes if isinstance(lane, FusedLane)]
    return [parameter for lane in lanes for parameter in lane.parameters]


# In float32 each rule has one of the forms: what a form does is not a matter of the precision.
IN_BOTH = [
    *((name, form, torch.float64, 1e-12) for name in RULES for form in FORMS),
    *((name, form, torch.float32, 5e-6) for name, form in zip(RULES, cycle(FORMS), strict=False)),
]


# Fast is each rule, and each form of what is common to all.
FAST = {*((name, "plain", torch.float64) for name in RULES), *(("adam", form, torch.float64) for form in FORMS)}
ALL = [pytest.param(*case, marks=() if case[:3] in FAST else pytest.mark.slow) for case in IN_BOTH]


@pytest.mark.parametrize(("name", "form", "dtype", "tolerance"), ALL, ids=str)
def test_kernels_write_what_the_composed_path_writes(
    name: str, form: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = walk(RULES[name], dtype, **FORMS[form])
    assert len(fused(ours)) == len(SHAPES)
    monkeypatch.setattr("nestlearn.optim.plan.fits", lambda kernel, parameter: False)
    composed = walk(RULES[name], dtype, **FORMS[form])
    assert not fused(composed)
    for one, two in zip(weights_of(ours), weights_of(composed), strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)
        assert ours.state[one].keys() == composed.state[two].keys()
        for key, leaf in ours.state[one].items():
            torch.testing.assert_close(leaf, composed.state[two][key], rtol=tolerance, atol=tolerance)


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def test_adagrad_is_torchs() -> None:
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    one = nl.optim.Optimizer(ours, 0.1, element=sum_of_squares(eps=1e-10, under_root=False))
    two = torch.optim.Adagrad(theirs, lr=0.1, eps=1e-10)
    for _ in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = b.grad = torch.randn_like(a)
        one.step()
        two.step()
    assert len(fused(one)) == len(SHAPES)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


OTHERS: dict[str, nl.rules.Link] = {
    "without correction": chain(average(0.9), second_moment()),
    "corrected alone": average(0.9, corrected=True),
    "second moment, length kept": second_moment(length_kept=True),
    "look-ahead average": average(0.9, nesterov=True),
    "look-ahead, weighted": sum(0.9, nesterov=True, weight=0.5),
    "nothing kept": sum(0.0),
    "seldom": sum(0.9, period=2),
    "read": average(0.9, readout=scale()),
    "eps under the root": sum_of_squares(),
    "weighted squares": sum_of_squares(weight=0.5, under_root=False),
    "more behind": chain(adam(), slow()),
    "more before": chain(sum(0.5), adam()),
    "cautious": chain(adam(), cautious()),
    "length kept": chain(average(0.9, corrected=True), second_moment(length_kept=True)),
    "schedule": sum(ramp(0.5, 0.9, 10)),
    "matrices": chain(average(0.9), orthogonal()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_arithmetic_is_not_recognised(name: str) -> None:
    assert recognised(OTHERS[name]) is None


def test_a_subclass_may_answer_something_else() -> None:
    class Half(type(sum(0.9))):  # type: ignore[misc]
        pass

    assert recognised(sum(0.9)) is not None
    assert recognised(Half(0.9)) is None


def test_a_schedule_is_the_number_that_it_is_now() -> None:
    """The optimizer puts numbers in the place of schedules, so a kernel may write with them."""
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = nl.optim.Optimizer([weight], 1.0, element=sum(ramp(0.25, 0.75, 2)))
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert fused(optimizer)
    memories = [1.0, 1.0 * 0.5 + 1, 1.5 * 0.75 + 1]  # 0.25, 0.5, 0.75
    torch.testing.assert_close(weight.detach(), torch.full((3,), -float(torch.tensor(memories).sum())).double())


UNFIT: dict[str, Callable[[], Tensor]] = {
    "half": lambda: torch.zeros(4, 3, dtype=torch.bfloat16),
    "complex": lambda: torch.zeros(4, 3, dtype=torch.complex64),
    "transposed": lambda: torch.zeros(4, 3).mT,
    "meta": lambda: torch.zeros(4, 3, device="meta"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_other_parameters_are_composed(kind: str) -> None:
    kernel = recognised(adam())
    assert kernel is not None
    assert fits(kernel, nn.Parameter(torch.zeros(4, 3)))
    assert not fits(kernel, nn.Parameter(UNFIT[kind]()))


@pytest.mark.parametrize("kind", ["transposed", "expanded"])
def test_a_gradient_may_lie_in_another_order(kind: str) -> None:
    weights = [nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    given = torch.arange(16.0).view(4, 4).mT if kind == "transposed" else torch.arange(4.0).expand(4, 4)
    pair = [nl.optim.Adam([weight], lr=0.1) for weight in weights]
    for weight, own in zip(weights, (given, given.contiguous()), strict=True):
        weight.grad = own
    for optimizer in pair:
        optimizer.step()
        optimizer.step()
    assert len(fused(pair[0])) == 1
    assert torch.equal(*(weight.detach() for weight in weights))


def test_what_somebody_puts_into_the_state_is_made_as_the_kernel_reads_it() -> None:
    """Another type, another order, a part of something larger: a memory is a tensor of its own like its parameter."""
    weights = [nn.Parameter(torch.ones(4, 3)) for _ in range(4)]
    optimizer = nl.optim.Momentum(weights, lr=1.0, retention=0.5)

    def step() -> None:
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimizer.step()

    step()
    content = torch.arange(12.0).view(4, 3)
    for weight, put in zip(
        weights, (content.double(), content.mT.contiguous().mT, content.repeat(2, 1)[4:], content), strict=True
    ):
        optimizer.state[weight]["momentum.model.value"] = put.clone() if put is content else put
    step()
    for weight in weights:
        memory = optimizer.state[weight]["momentum.model.value"]
        assert memory.dtype is torch.float32
        assert memory.is_contiguous()
        assert memory.untyped_storage().nbytes() == memory.nbytes
        torch.testing.assert_close(memory, content / 2)
        torch.testing.assert_close(weight.detach(), 1 - content / 2)


def test_a_path_may_change_and_come_back() -> None:
    """A parameter that is no longer contiguous leaves the kernel, and its memories go with it."""
    weight, plain = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    pair = nl.optim.Adam([weight], lr=0.1), nl.optim.Adam([plain], lr=0.1)
    for transposed in (False, True, True, False):
        weight.data = weight.data.mT.contiguous().mT if transposed else weight.data.contiguous()
        weight.grad = plain.grad = torch.arange(12.0).view(4, 3)
        for optimizer in pair:
            optimizer.step()
        assert bool(fused(pair[0])) is not transposed
    torch.testing.assert_close(weight, plain, rtol=1e-6, atol=1e-6)


def test_an_nan_that_is_let_in_stays_with_its_entry() -> None:
    weights = [nn.Parameter(torch.ones(5)) for _ in range(3)]
    optimizer = nl.optim.Adam(weights, nonfinite="ignore")
    for weight in weights:
        weight.grad = torch.ones(5)
    weights[1].grad[2] = float("nan")
    with pytest.warns(RuntimeWarning, match="finite"):
        optimizer.step()
    assert [int(weight.isnan().sum()) for weight in weights] == [0, 1, 0]
