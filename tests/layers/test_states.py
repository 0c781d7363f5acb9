"""States of every layer: other batches of them, kept in another precision, and what does not fit."""

import pytest
import torch
from every_layer import every_switch, make
from sequences import leaves, shaped

from nestlearn.memory.state import cut_state, flatten, mapped, repeat_state, select_state, unflatten


def read(name: str, batch: int = 3, dtype: torch.dtype = torch.float64):
    """A layer, its state in the middle of a chunk, and more to read."""
    torch.manual_seed(0)
    layer, x = make(name, chunk=4, dtype=dtype), torch.randn(batch, 13, 8, dtype=dtype)
    return layer, layer(x[:, :6], return_state=True)[1], x[:, 6:]


def assert_same(found, expected, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@every_switch
def test_sequences_in_another_order_go_on_as_they_would_alone(name):
    """Beams: the third twice, the first not at all."""
    layer, state, x = read(name)
    kept, index = mapped(torch.clone, state), torch.tensor([2, 1, 2, 1])
    y, after = layer(x[index], state=select_state(state, index), return_state=True)
    for place, source in enumerate(index.tolist()):
        alone, single = layer(x[source : source + 1], cut_state(state, source, source + 1), return_state=True)
        assert_same(y[place], alone[0])
        assert_same(cut_state(after, place, place + 1), single)
    assert_same(state, kept, 0)


@every_switch
def test_one_sequence_becomes_many_and_one_again(name):
    layer, state, x = read(name, batch=1)
    many = repeat_state(state, 3)
    y, after = layer(x.repeat(3, 1, 1), state=many, return_state=True)
    alone, single = layer(x, state=state, return_state=True)
    assert_same(y, alone.repeat(3, 1, 1))
    assert_same(cut_state(after, 1, 2), single)
    assert_same(cut_state(many, 2, 3), state, 0)
    assert_same(repeat_state(layer.initial_state(1), 3), layer.initial_state(3), 0)
    # The state before the first token may be repeated too, and nothing is held more than once until it is written.
    assert_same(layer(x.repeat(3, 1, 1), select_state(layer.initial_state(1), [0, 0, 0])), layer(x).repeat(3, 1, 1))


@every_switch
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_a_state_in_less_precision_is_taken_in_that_of_the_layer(name, kept):
    layer, state, x = read(name)
    less = shaped(lambda t: t.to(kept), state)
    found, after = layer(x, state=less, return_state=True)
    expected, truth = layer(x, state=shaped(torch.Tensor.double, less), return_state=True)
    assert_same(found, expected)
    assert_same(after, truth)
    assert {tensor.dtype for _, tensor in leaves(after)} == {torch.float64}
    # Also where nothing is written any more.
    assert_same(layer(x, state=less), layer(x, state=shaped(torch.Tensor.double, less)))


@every_switch
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_a_state_in_more_precision_is_taken_in_that_of_the_layer(name, weights):
    layer, state, x = read(name, dtype=weights)
    more = shaped(torch.Tensor.double, state)
    found, after = layer(x, state=more, return_state=True)
    assert found.dtype == weights and {tensor.dtype for _, tensor in leaves(after)} == {torch.float32}
    assert_same(found, layer(x, state=state), 1e-6 if weights == torch.float32 else 1e-2)
    empty, same = layer(x[:, :0], state=more, return_state=True)
    assert empty.shape[1] == 0
    assert_same(same, state, 0)


@every_switch
def test_the_slope_of_a_converted_state_is_in_its_own_precision(name):
    layer, state, x = read(name)
    state = shaped(lambda t: t.detach().float().requires_grad_(), state)
    layer(x, state=state).sin().sum().backward()
    assert any(t.grad is not None and t.grad.dtype == torch.float32 for _, t in leaves(state))


@every_switch
def test_what_does_not_fit_is_named(name):
    layer, state, x = read(name)
    flat = flatten(state, empty=torch.empty(0))
    for leaf, tensor in flat.items():
        if not leaf.endswith("."):
            where = rf"the state does not fit: state\.{leaf} should "
            wrong = [(tensor.bool(), "hold (real|whole) numbers, as torch.*, got torch.bool")]
            if tensor.is_floating_point():
                wrong += [(tensor.long(), "hold real numbers, as torch.float64, got torch.int64")]
                wrong += [(tensor[:2], r"be of 3 sequences, \[3.*\], got \[2")]
                wrong += [(tensor.to("meta"), "be on cpu, as the layer is, got meta")]
            else:
                wrong += [(tensor.double(), "hold whole numbers, as torch.int64, got torch.float64")]
                wrong += [(tensor.expand(4), r"be one number for all sequences or for each, got \[4\]")]
            for each, message in [*wrong, (tensor.tolist(), "be a tensor, got (list|int)")]:
                with pytest.raises(ValueError, match=where + message):
                    layer(x, state=unflatten({**flat, leaf: each}))
    times = {leaf: t.to(torch.int32) if not t.is_floating_point() else t for leaf, t in flat.items()}
    assert_same(layer(x, state=unflatten(times)), layer(x, state=state))
