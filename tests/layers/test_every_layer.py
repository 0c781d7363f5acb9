"""What every sequence layer must do, whatever it remembers with: the list of promises in nestlearn.layers.sequence."""

from collections.abc import Callable

import pytest
import torch
from sequences import leaves, shaped
from torch import Tensor
from torch.func import functional_call

from nestlearn.layers import Attention, MemoryLayer, SelfModifyingTitans, SequenceLayer

MEMORIES: dict[str, Callable[..., SequenceLayer]] = {
    "memory": lambda dim, **options: MemoryLayer(dim, heads=2, **options),
    "memory, oja, momentum": lambda dim, **options: MemoryLayer(
        dim, heads=2, rule="oja", inner_momentum=True, **options
    ),
    "memory, omega, gate": lambda dim, **options: MemoryLayer(dim, heads=2, rule="omega", output_gate=True, **options),
    "memory, mlp": lambda dim, **options: MemoryLayer(dim, heads=2, rule="dgd", memory="mlp", **options),
    "titans": lambda dim, **options: SelfModifyingTitans(dim, heads=2, **options),
    "titans, query, momentum": lambda dim, **options: SelfModifyingTitans(
        dim, heads=2, modify_query=True, inner_momentum=True, **options
    ),
    "titans, l2": lambda dim, **options: SelfModifyingTitans(dim, heads=2, objective="l2", **options),
    "titans, mlp": lambda dim, **options: SelfModifyingTitans(dim, heads=2, memory="mlp", **options),
}
LAYERS = {**MEMORIES, "attention": lambda dim, **options: Attention(dim, heads=2)}

layers = pytest.mark.parametrize("name", LAYERS)
memories = pytest.mark.parametrize("name", MEMORIES)


def make(name: str, dim: int = 8, dtype: torch.dtype = torch.float64, **options: object) -> SequenceLayer:
    return LAYERS[name](dim, **options).to(dtype)


@layers
@pytest.mark.parametrize("place", [0, 3, 9])
def test_no_position_sees_a_later_token(name, place):
    layer, x = make(name, chunk=4), torch.randn(2, 12, 8, dtype=torch.float64)
    moved = x.clone()
    moved[:, place] += 1
    change = (layer(moved) - layer(x)).abs().amax((0, 2))
    assert (change[:place] == 0).all()
    assert change[place] > 0


@layers
def test_every_later_position_sees_a_token(name):
    """With the defaults, as in training: token 3 of 160 reaches the last chunk."""
    layer, x = make(name), torch.randn(1, 160, 8, dtype=torch.float64)
    moved = x.clone()
    moved[:, 3] += 1
    change = (layer(moved) - layer(x)).abs().amax((0, 2))
    assert (change[3:] > 1e-8).all()


@layers
def test_every_parameter_has_a_slope(name):
    layer, x = make(name, chunk=4), torch.randn(2, 12, 8, dtype=torch.float64)
    layer(x).sin().sum().backward()
    still = [each for each, p in layer.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-12]
    assert still == []


@layers
def test_any_split_with_the_state_carried_equals_one_call(name):
    layer, x = make(name, chunk=4), torch.randn(2, 9, 8, dtype=torch.float64)
    y, after = layer(x, return_state=True)
    for split in range(10):
        first, state = layer(x[:, :split], return_state=True)
        second, state = layer(x[:, split:], state=state, return_state=True)
        torch.testing.assert_close(torch.cat([first, second], 1), y, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(state, after, rtol=1e-11, atol=1e-11)
    single, state = [], None
    for token in x.split(1, 1):
        answer, state = layer(token, state=state, return_state=True)
        single.append(answer)
    torch.testing.assert_close(torch.cat(single, 1), y, rtol=1e-11, atol=1e-11)


@layers
def test_a_batch_equals_single_runs(name):
    layer, x = make(name, chunk=4), torch.randn(3, 9, 8, dtype=torch.float64)
    y, state = layer(x, return_state=True)
    for i in range(3):
        single, alone = layer(x[i : i + 1], return_state=True)
        torch.testing.assert_close(single[0], y[i], rtol=1e-11, atol=1e-11)
        for path, tensor in leaves(state):
            torch.testing.assert_close(dict(leaves(alone))[path][0], tensor[i], rtol=1e-11, atol=1e-11)


@layers
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
    layer, x = make(name, dim=4, chunk=2, convolution=2), torch.randn(1, 5, 4, dtype=torch.float64)
    names = [each for each, _ in layer.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    inputs = [x, *(p.detach() for p in layer.parameters())]
    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in inputs], fast_mode=True)


@layers
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("constant", [True, False])
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


@pytest.mark.slow
@memories
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_long_sequences_stay_finite_and_memories_alive(name, dtype):
    """And a memory that has forgotten thousands of tokens still learns from the next ones."""
    layer = make(name, dtype=dtype)
    with torch.no_grad():
        y, state = layer(torch.randn(1, 16_384, 8, dtype=dtype), return_state=True)
        probe, told = torch.randn(1, 8, 8, dtype=dtype), []
        for text in torch.randn(2, 1, 200, 8, dtype=dtype):
            _, read = layer(text, state=state, return_state=True)
            told.append(layer(probe, state=read)[:, 4:].float())  # beyond the convolution
    assert y.isfinite().all()
    assert all(tensor.isfinite().all() for _, tensor in leaves(state))
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
    with pytest.raises(ValueError, match="heads: expected a divisor of dim = 7, got 2"):
        LAYERS[name](7)
