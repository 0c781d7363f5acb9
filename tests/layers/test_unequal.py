"""Sequences of unequal length in one batch: each is read as it would be alone, and what fills up is never looked at."""

import pytest
import torch
from every_layer import every_switch, make
from sequences import leaves
from torch import Tensor

from nestlearn.layers import Attention, ContinuumMemory, SequenceLayer
from nestlearn.memory.state import flatten, select_state


def batch(lengths: list[int], time: int, seed: int = 0) -> Tensor:
    """[batch, time, 8], filled up with what must not be read."""
    x = torch.randn(len(lengths), time, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for row, length in zip(x, lengths, strict=True):
        row[length:] = torch.nan
    return x


def assert_same(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@every_switch
def test_each_sequence_has_the_answers_and_the_state_that_it_has_alone(name):
    """From nothing, from states of unequal age, and token by token after that."""
    layer = make(name, chunk=4)
    calls = [(batch(lengths, 6, seed), lengths) for seed, lengths in enumerate(([6, 0, 3], [2, 6, 5]))]
    steps = [(batch([1] * 3, 1, 2), [1] * 3)]
    with torch.no_grad():
        answers, state = [], None
        for x, lengths in calls + steps:
            y, state = layer(x, state, True, lengths)
            answers.append(y)
        for place in range(3):
            own = None
            for (x, lengths), y in zip(calls + steps, answers, strict=True):
                count = lengths[place]
                alone, own = layer(x[place : place + 1, :count], own, True)
                assert_same(y[place, :count], alone[0])
                assert not y[place, count:].any()
            assert_same(flatten(layer.fitted(select_state(state, [place]), 1)), flatten(own))


def test_short_periods_cost_no_calls(monkeypatch):
    """A call of a layer for each length, however often its periods end; a few more to bring others into step; and for
    one more token at most those that begin a period apart from those that do not.
    """
    layer, calls = make("titans", chunk=4), []
    advance = layer.advance
    monkeypatch.setattr(layer, "advance", lambda x, state: calls.append(x.shape[1]) or advance(x, state))
    lengths = [64, 50, 33, 17]
    with torch.no_grad():
        _, state = layer(batch(lengths, 64), return_state=True, lengths=lengths)
        assert calls == [17, 16, 17, 14]
        calls.clear()
        layer(batch([64] * 4, 64), state)  # one is at the end of a period, one is 2 tokens before it, two are 3 tokens
        assert sorted(calls) == [1, 2, 2, 3, 61]
        calls.clear()
        layer(batch([1] * 4, 1), state)
        assert len(calls) == 2


@pytest.mark.parametrize("name", ["memory, mlp", "titans", "attention", "continuum, nested"])
def test_slopes_are_those_of_each_alone(name):
    layer, lengths, x = make(name, chunk=4), [7, 3], batch([7, 7], 7)
    parameters = list(layer.parameters())

    def slopes(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))

    found = slopes(layer(x, lengths=lengths).sin().sum())
    expected = slopes(layer(x[:1]).sin().sum() + layer(x[1:, :3]).sin().sum())
    assert_same(found, expected)


@every_switch
def test_one_sequence_in_place_of_another(name):
    """As a batch that others leave and enter: states of unequal age side by side."""
    layer, long, short = make(name, chunk=4), batch([9, 9], 9), batch([3], 3, 1)
    more = batch([6, 6], 6, 2)
    with torch.no_grad():
        _, state = layer(long, return_state=True)
        _, new = layer(short, return_state=True)
        mixed = layer.replaced(state, new, torch.tensor([1]), 2)
        y = layer(more, state=mixed)
        assert_same(y[:1], layer(more[:1], state=select_state(state, [0])))
        assert_same(y[1:], layer(more[1:], state=new))
        assert_same(flatten(layer.replaced(mixed, select_state(state, [1]), torch.tensor([1]), 2)), flatten(state))


def test_equal_lengths_are_no_lengths():
    layer, x = make("titans", chunk=4), batch([5, 5], 5)
    y, state = layer(x, lengths=torch.tensor([5, 5]), return_state=True)
    assert torch.equal(y, layer(x)) and state["time"].ndim == 0
    z, shorter = layer(x, lengths=[3, 3], return_state=True)
    assert_same(z[:, :3], layer(x[:, :3])) and shorter["time"].ndim == 0


def test_what_does_not_fit_is_said():
    layer, x = make("attention"), batch([4, 4], 4)
    for lengths, message in [
        ([1], r"expected 2 whole numbers, got \[1\]"),
        (torch.tensor([1.0, 2.0]), "whole numbers, .* of torch.float32"),
        ([5, 1], r"from 0 to 4, how many tokens there are, got \[5, 1\]"),
        ([-1, 1], "from 0 to 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer(x, lengths=lengths)
    _, state = layer(x, lengths=[4, 2], return_state=True)
    for time, message in [(torch.tensor([5, 2]), "state.time from 0 to 4"), (torch.tensor(2), "2 numbers, got")]:
        with pytest.raises(ValueError, match=message):
            layer(x, state={**state, "time": time})
    small = Attention(8, heads=2, max_tokens=5).double()
    with pytest.raises(ValueError, match="at most 5"):
        small(x, state=small(x, lengths=[4, 2], return_state=True)[1])
    waits = ContinuumMemory(8, periods=(4,), objective="next_token")
    with pytest.raises(ValueError, match="at most 4 tokens up to the next write"):
        waits(torch.zeros(2, 6, 8), lengths=[6, 1])
    with pytest.raises(NotImplementedError, match="a compiled graph or a transform"):
        torch.func.vmap(lambda one: layer(one, lengths=[2, 4]))(x.unsqueeze(0))


def test_a_layer_that_does_not_say_its_periods_refuses():
    class Sum(SequenceLayer):
        def initial_state(self, batch_size):
            return {"sum": torch.zeros(batch_size, self.dim)}

        def advance(self, x, state):
            y = x.cumsum(1) + (state or self.initial_state(len(x)))["sum"].unsqueeze(1)
            return y, {"sum": y[:, -1]}

    x = torch.arange(12.0).view(2, 3, 2)
    with pytest.raises(NotImplementedError, match=r"Sum reads sequences of one length alone.*periods = \(\)"):
        Sum(2)(x, lengths=[3, 1])
    Sum.periods = ()
    _, state = Sum(2)(x, lengths=[3, 1], return_state=True)
    assert state["sum"].tolist() == [[6.0, 9.0], [6.0, 7.0]]
    assert [path for path, _ in leaves(state)] == ["sum"]
