"""A step against hand-written loops in float64: late gradients, graphs that are kept, closures."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn import optim
from nestlearn.training.clock import StepClock
from nestlearn.training.stepper import Stepper


class Lines:
    """Two layers on random data; the second layer is left out of every third loss."""

    def __init__(self, delay: int = 0, sparse: bool = False) -> None:
        self.delay, self.sparse = delay, sparse

    def model(self) -> nn.Module:
        torch.manual_seed(1)
        return nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]).double()

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        generator = torch.Generator().manual_seed(2)
        return ((i, torch.randn(8, 4, generator=generator, dtype=torch.float64)) for i in range(12))

    def loss(self, model, batch) -> Tensor:
        number, x = batch
        y = model[0](x).tanh()
        if not (self.sparse and number % 3 == 0):
            y = model[1](y)
        return F.mse_loss(y, x.roll(1, 1))


def taken(task: Lines, make) -> tuple[nn.Module, list[torch.optim.Optimizer], list[float]]:
    model = task.model()
    optimizers = make(model)
    stepper = Stepper(task, model, optimizers, StepClock("cpu"))  # type: ignore[arg-type]
    return model, optimizers, [stepper.take(batch).item() for batch in task.batches()]


def equal(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "gradients missing"])
@pytest.mark.parametrize("delay", [0, 1, 4])
def test_late_gradients_are_those_of_a_loop_written_by_hand(delay: int, sparse: bool) -> None:
    task = Lines(delay, sparse)
    make = lambda model: [torch.optim.AdamW(model.parameters(), lr=0.05)]  # noqa: E731
    model, (optimizer,), losses = taken(task, make)

    other = task.model()
    (by_hand,) = make(other)
    measured, expected = [], []
    for step, batch in enumerate(task.batches()):
        gradients = torch.autograd.grad(loss := task.loss(other, batch), list(other.parameters()), allow_unused=True)
        measured.append(gradients)
        expected.append(loss.item())
        if step >= delay:
            for parameter, gradient in zip(other.parameters(), measured[step - delay], strict=True):
                parameter.grad = gradient
            by_hand.step()
    assert losses == expected and equal(model, other)
    steps = [optimizer.state[p]["step"].item() for p in model.parameters()]
    used = [batch[0] for batch in task.batches()][: 12 - delay]
    with_second = sum(not (sparse and number % 3 == 0) for number in used)
    assert steps == [12 - delay] * 2 + [with_second] * 2, (
        "a parameter without a gradient was stepped, or one with was not"
    )


def test_the_first_steps_change_nothing_while_no_gradient_has_arrived() -> None:
    task = Lines(delay=20)
    make = lambda model: [optim.Momentum(model.parameters(), lr=0.1)]  # noqa: E731
    model, (optimizer,), _ = taken(task, make)
    assert equal(model, task.model()) and not optimizer.state


def test_what_a_watching_optimizer_records_before_gradients_arrive_is_dropped() -> None:
    task = Lines(delay=2)
    model, (optimizer,), _ = taken(task, lambda model: [optim.LayerMomentum(model.parameters(), 0.01, model=model)])
    first = optimizer.state[model[0].weight]["step"].item()
    assert first == 10 and not optimizer.layers._recorder._sums


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.PreconditionedMomentum(p, 0.01, target="hessian"),
        lambda p: optim.DeepMomentum(p, 0.05, objective="quadratic", hidden=4),
    ],
    ids=["target hessian", "objective quadratic"],
)
def test_optimizers_that_need_the_graph_get_it_without_a_second_pass(make) -> None:
    task = Lines()
    calls = 0
    plain = task.loss

    def counted(model, batch):
        nonlocal calls
        calls += 1
        return plain(model, batch)

    task.loss = counted
    model, (optimizer,), _ = taken(task, lambda model: [make(model.parameters())])
    assert optimizer.needs_graph and calls == 12

    other = task.model()
    by_hand = make(other.parameters())
    for batch in task.batches():

        def closure(batch=batch):
            by_hand.zero_grad()
            loss = plain(other, batch)
            loss.backward(retain_graph=True)
            return loss

        by_hand.step(closure)
    assert equal(model, other)


def test_only_curvature_needs_the_graph() -> None:
    weights = [nn.Parameter(torch.randn(4, 4))]
    assert not optim.DeepMomentum(weights).needs_graph
    assert not optim.DeepMomentum(weights, objective="quadratic", memory=False).needs_graph
    assert not optim.PreconditionedMomentum(weights).needs_graph
    assert not optim.Muon(weights).needs_graph


def test_an_optimizer_that_measures_gradients_itself_is_given_a_closure() -> None:
    task = Lines()
    model, _, losses = taken(task, lambda model: [torch.optim.LBFGS(model.parameters(), lr=0.3, max_iter=3)])
    other = task.model()
    by_hand = torch.optim.LBFGS(other.parameters(), lr=0.3, max_iter=3)
    expected = []
    for batch in task.batches():

        def closure(batch=batch):
            by_hand.zero_grad()
            loss = task.loss(other, batch)
            loss.backward()
            return loss

        expected.append(by_hand.step(closure).item())
    assert losses == expected and equal(model, other)


def test_an_optimizer_that_measures_gradients_itself_acts_alone_and_in_time() -> None:
    both = lambda m: [torch.optim.LBFGS(m[0].parameters()), torch.optim.SGD(m[1].parameters(), 0.1)]  # noqa: E731
    with pytest.raises(ValueError, match="must act alone, got LBFGS, SGD"):
        taken(Lines(), both)
    with pytest.raises(ValueError, match="LBFGS measures its gradients itself, so they cannot be 3 steps late"):
        taken(Lines(delay=3), lambda model: [torch.optim.LBFGS(model.parameters())])
