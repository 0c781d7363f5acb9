"""What every sequence layer must do, whatever it remembers with: the list of promises in nestlearn.layers.sequence."""

import pytest
import torch
from every_layer import EVERY, LAYERS, MEMORIES, MIXERS, SWITCHES, every_switch, make
from hypothesis import given, settings
from hypothesis import strategies as st
from sequences import leaves, shaped
from torch import Tensor
from torch.func import functional_call

from nestlearn.layers import SequenceLayer

layers = pytest.mark.parametrize("name", LAYERS)
memories = pytest.mark.parametrize("name", MEMORIES)


@every_switch
def test_no_position_sees_a_later_token(name):
    layer, x = make(name, chunk=4), torch.randn(2, 12, 8, dtype=torch.float64)
    for place in (0, 3, 9):
        moved = x.clone()
        moved[:, place] += 1
        change = (layer(moved) - layer(x)).abs().amax((0, 2))
        assert (change[:place] == 0).all()
        assert change[place] > 0


@pytest.mark.parametrize("name", {**MIXERS, **SWITCHES})
def test_every_later_position_sees_a_token(name):
    """With the defaults, as in training: token 3 of 160 reaches the last chunk. A continuum memory needs no mixing."""
    layer, x = make(name), torch.randn(1, 160, 8, dtype=torch.float64)
    moved = x.clone()
    moved[:, 3] += 1
    change = (layer(moved) - layer(x)).abs().amax((0, 2))
    assert (change[3:] > 1e-12).all()  # oja forgets fast


@every_switch
def test_every_parameter_has_a_slope(name):
    """Every learned start too, of every head."""
    layer, x = make(name, chunk=4), torch.randn(2, 12, 8, dtype=torch.float64)
    layer(x).sin().sum().backward()
    still = [each for each, p in layer.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-10]
    assert still == []
    starts = {each: p.grad for each, p in layer.named_parameters() if "start." in each}
    assert starts or name == "attention" or name.startswith("continuum")
    assert all((slope.flatten(1).abs().amax(1) > 1e-10).all() for slope in starts.values())


LENGTHS = {5: {"chunk": 2}, 140: {}, 600: {}}
"""Texts of several chunks of each layer, short or as they are by default, and of several periods of a continuum memory.

What decides a write has no slope in a text that ends before what was written is read: within the first chunk, or the
first period of a block.
"""


@every_switch
@pytest.mark.parametrize("time", LENGTHS)
def test_no_parameter_is_dead_whatever_the_length(name, time):
    layer, x = make(name, **LENGTHS[time]), torch.randn(1, time, 8, dtype=torch.float64)
    layer(x).sin().sum().backward()
    still = [each for each, p in layer.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-10]
    unread = name.startswith("continuum") and time == 140
    assert [each for each in still if not (unread and each.startswith("blocks.1."))] == []


@layers
def test_every_tensor_of_a_state_has_a_slope(name):
    """What is carried from call to call can be trained through, within a chunk as between two."""
    layer, x = make(name, chunk=4), torch.randn(2, 14, 8, dtype=torch.float64)
    _, state = layer(x[:, :6], return_state=True)
    state = shaped(lambda t: t.detach().requires_grad_(), state)
    layer(x[:, 6:], state=state).sin().sum().backward()
    still = [path for path, t in leaves(state) if t.grad is None or not t.grad.abs().max() > 1e-10]
    # The curvature shortens steps that are too long, of which there are none here.
    assert [path for path in still if not path.endswith("pending.curvature")] == []


def assert_pieces_are_the_whole(layer: SequenceLayer, x: Tensor, cuts: list[int]) -> None:
    y, after = layer(x, return_state=True)
    pieces, state = [], None
    for piece in x.tensor_split(cuts, 1):
        answer, state = layer(piece, state=state, return_state=True)
        pieces.append(answer)
    torch.testing.assert_close(torch.cat(pieces, 1), y, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state, after, rtol=1e-11, atol=1e-11)


@every_switch
def test_one_call_is_many_calls(name):
    layer, x = make(name, chunk=4), torch.randn(2, 9, 8, dtype=torch.float64)
    for cuts in (list(range(1, 9)), [3], [4], [5]):
        assert_pieces_are_the_whole(layer, x, cuts)


@given(name=st.sampled_from(list(EVERY)), chunk=st.integers(1, 6), cuts=st.lists(st.integers(0, 17)))
@settings(max_examples=30)
@pytest.mark.slow
def test_the_cuts_may_be_anywhere(name, chunk, cuts):
    assert_pieces_are_the_whole(make(name, chunk=chunk), torch.randn(1, 17, 8, dtype=torch.float64), sorted(cuts))


@every_switch
def test_a_batch_equals_single_runs(name):
    layer, x = make(name, chunk=4), torch.randn(3, 9, 8, dtype=torch.float64)
    y, state = layer(x, return_state=True)
    for i in range(3):
        single, alone = layer(x[i : i + 1], return_state=True)
        torch.testing.assert_close(single[0], y[i], rtol=1e-11, atol=1e-11)
        for path, tensor in leaves(state):
            torch.testing.assert_close(dict(leaves(alone))[path][0], tensor[i], rtol=1e-11, atol=1e-11)


@every_switch
def test_reading_without_labels_changes_the_state_and_the_answers(name):
    layer, probe = make(name, chunk=4), torch.randn(1, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        _, one = layer(torch.randn(1, 9, 8, dtype=torch.float64), return_state=True)
        kept = shaped(lambda t: t.clone(), one)
        _, other = layer(torch.randn(1, 9, 8, dtype=torch.float64), return_state=True)
        assert (layer(probe, state=one) - layer(probe, state=other)).abs().amin(-1).max() > 1e-4
    # Nothing was written into the state that was given.
    torch.testing.assert_close(one, kept, rtol=0, atol=0)


@layers
def test_the_initial_state_is_that_of_a_fresh_call(name):
    layer, x = make(name, chunk=4), torch.randn(2, 6, 8, dtype=torch.float64)
    assert torch.equal(layer(x, state=layer.initial_state(2)), layer(x))
    y, state = layer(x[:, :0], return_state=True)
    assert y.shape == (2, 0, 8)
    torch.testing.assert_close(state, layer.initial_state(2), rtol=0, atol=0)


@memories
def test_the_learned_start_is_reached_through_a_state(name):
    layer, x = make(name, chunk=4), torch.randn(2, 6, 8, dtype=torch.float64)
    layer(x, state=layer.initial_state(2)).sin().sum().backward()
    starts = {each: p.grad for each, p in layer.named_parameters() if "start." in each}
    assert starts and all(slope is not None and slope.abs().max() > 0 for slope in starts.values())


@memories
def test_without_eta_it_is_the_frozen_network(name):
    """Nothing is written or forgotten, so a token is seen as far as the convolution reaches and no farther."""
    layer, x = make(name, chunk=4, max_eta=0.0), torch.randn(1, 12, 8, dtype=torch.float64)
    for each, parameter in layer.named_parameters():  # a matrix that knows nothing would answer zero to all
        parameter.data += 0.1 if "start." in each else 0
    moved = x.clone()
    moved[:, 3] += 1
    change = (layer(moved) - layer(x)).abs().amax((0, 2))
    assert (change[7:] == 0).all() and change[3] > 0
    _, state = layer(x, return_state=True)
    written, start = dict(leaves(state)), dict(leaves(layer.initial_state(1)))
    models = [path for path in start if ".model." in path]
    assert models and all(torch.equal(written[path], start[path]) for path in models)


@layers
def test_gradcheck(name):
    """For parameters, the learned starts among them, and for a state that comes in the middle of a chunk."""
    layer, x = make(name, dim=4, chunk=2, convolution=2), torch.randn(1, 5, 4, dtype=torch.float64)
    names = [each for each, _ in layer.named_parameters()]
    _, carried = layer(torch.randn(1, 3, 4, dtype=torch.float64), return_state=True)
    inputs = [x, *layer.parameters(), *(t for _, t in leaves(carried))]

    def run(everything: Tensor) -> Tensor:
        parts = everything.split([t.numel() for t in inputs])
        given = iter([part.view_as(t) for part, t in zip(parts, inputs, strict=True)])
        x, parameters = next(given), {each: next(given) for each in names}
        y = functional_call(layer, parameters, (x,))
        state = shaped(lambda t: next(given), carried)
        z, after = functional_call(layer, parameters, (x[:, :2],), {"state": state, "return_state": True})
        return sum(t.sin().sum() for t in (y, z, *(t for _, t in leaves(after))))

    whole = torch.cat([t.detach().flatten() for t in inputs]).requires_grad_()
    assert torch.autograd.gradcheck(run, whole, fast_mode=True)


@layers
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.slow
def test_answers_and_slopes_stay_finite(name, scale, constant):
    layer = make(name, dtype=torch.float32, chunk=16)
    x = (torch.ones(2, 100, 8) if constant else torch.randn(2, 100, 8)) * scale
    y = layer(x.requires_grad_())
    y.square().mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@layers
def test_half_precision_weights_keep_a_state_in_full_precision(name):
    layer, x = make(name, dtype=torch.bfloat16), torch.randn(2, 70, 8)
    y, state = layer(x.bfloat16(), return_state=True)
    assert y.dtype == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for _, tensor in leaves(state))
    torch.testing.assert_close(y.float(), layer.float()(x), rtol=0.2, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        z, state = layer(x, return_state=True)
    assert z.dtype in (torch.bfloat16, torch.float32)
    assert all(tensor.dtype == torch.float32 for _, tensor in leaves(state))
    torch.testing.assert_close(z.float(), layer(x), rtol=0.2, atol=0.1)


# Half precision is one of each kind: a state is in full precision in all of them alike.
LONG = [(name, torch.float32) for name in LAYERS if name != "attention"]
LONG += [(name, torch.bfloat16) for name in ("memory", "memory, mlp", "titans", "titans, mlp", "continuum, nested")]
LONG += [(name, torch.float32) for name in ("titans, gradient descent", "titans, no retention")]
STEEP = ("titans, l2", "titans, gradient descent")
"""Self-modifying memories that do not erase what they write over: they stay bounded, their outer slopes grow with the
number of chunks, from about a thousand tokens on. Long texts are for reading."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), LONG, ids=str)
def test_sixteen_thousand_tokens_stay_finite_and_memories_alive(name, dtype):
    """Random, constant, zero and huge inputs, each a sequence of one batch; and one that has forgotten thousands of
    tokens still learns from the next ones.
    """
    # A state is in full precision, whatever the weights are; in half precision tests/models reads all sixteen thousand.
    layer, x = make(name, dtype=dtype), torch.randn(4, 16_384 if dtype == torch.float32 else 4_096, 8)
    x[1], x[2], x[3] = 1, 0, 1e6 * x[3]
    x = x.to(dtype).requires_grad_()
    with torch.set_grad_enabled(name not in STEEP):
        y, state = layer(x, return_state=True)
    tensors = {"y": y, **dict(leaves(state))}
    if name not in STEEP:
        (y.float() / y.detach().float().abs().amax((1, 2), keepdim=True).clamp(min=1)).square().sum().backward()
        tensors |= {"x": x.grad, **{each: p.grad for each, p in layer.named_parameters()}}
    assert [each for each, t in tensors.items() if not t.isfinite().all()] == []
    if name not in MEMORIES:
        return
    with torch.no_grad():
        state = shaped(lambda t: t[:1], state)
        probe, told = torch.randn(1, 8, 8, dtype=dtype), []
        for text in torch.randn(2, 1, 200, 8, dtype=dtype):
            _, read = layer(text, state=state, return_state=True)
            told.append(layer(probe, state=read)[:, 4:].float())  # beyond the convolution
    assert (told[0] - told[1]).abs().max() > 0.02


@layers
def test_errors_say_what_was_expected(name):
    layer = make(name, chunk=4)
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    _, state = layer(x, return_state=True)
    with pytest.raises(ValueError, match=r"expected x \[batch, time, 8\], got \(2, 6, 7\)"):
        layer(x[..., :7])
    with pytest.raises(ValueError, match=r"should be of 1 sequences.*initial_state\(1\)"):
        layer(x[:1], state=state)
    with pytest.raises(ValueError, match=r"state should hold \['.*got \['else'\]"):
        layer(x, state={"else": x})
    with pytest.raises(ValueError, match=r"does not fit: state.* should be of 2 sequences, \[2, .*\], got \[2, "):
        layer(x, state=make(name, dim=16, chunk=4)(torch.randn(2, 6, 16).double(), return_state=True)[1])
    if name in MIXERS:
        with pytest.raises(ValueError, match="heads: expected a divisor of dim = 7, got 2"):
            LAYERS[name](7)
