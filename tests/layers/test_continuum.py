"""Continuum memory: the core written token by token, cadence of every variant, states, slopes, and hard inputs."""

import pytest
import torch
from sequences import leaves
from small_continuum import PERIODS, hidden_units, layer, shortened, text, unit
from torch import Tensor
from torch.nn import functional as F

from nestlearn.layers import ContinuumMemory
from nestlearn.memory import MLP, AssociativeMemory, GradientDescent, l2
from nestlearn.ops import scan

VARIANTS = ("sequential", "nested", "headwise")


# ---------------------------------------------------------------------------------------------------------- the oracle


def test_a_block_is_the_core_s_memory_of_that_period():
    """Token by token: answer, then show the last key and this token's target, written when the period is over."""
    made, x, period = layer(periods=(4,)), text(11), 4
    block = made.blocks[0]
    torch.nn.init.zeros_(block.rate_weight)
    memory = AssociativeMemory(MLP(6, 5, 6, residual=False), l2, GradientDescent(lr=0.3), period=period)
    start = {"inner": block.start()["inner"].expand(2, 5, 6), "outer": block.start()["outer"].expand(2, 6, 5)}
    state = {"model": start, "rule": {}, "pending": {name: torch.zeros_like(t) for name, t in start.items()}}
    expected, before, met = [], torch.zeros(2, 6, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for t in range(11):
        key = unit(x[:, t])
        expected.append(x[:, t] + memory.read(state, key))
        value = memory.read({"model": start}, before) + key @ block.target.mT
        met = met * (t % period > 0) + 0.3 * hidden_units(state["model"]["inner"], before).square().sum(-1)
        state, _ = memory.write(state, before, value, time=t, lr=0.3 * shortened(met))
        before = key
    y, found = made(x, return_state=True)
    torch.testing.assert_close(y, torch.stack(expected, 1), rtol=1e-10, atol=1e-10)
    after = found["blocks"]["0"]
    for name in ("inner", "outer"):
        torch.testing.assert_close(after["model"][name], state["model"][name], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(after["pending"][name], 0.3 * state["pending"][name], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(after["pending"]["curvature"], met, rtol=1e-10, atol=1e-10)


def test_outputs_and_every_slope_are_those_of_the_oracle_with_rates_of_each_token():
    """`nestlearn.ops.scan` in chunks of the period, asked at the parameters of the chunk's start."""
    made, x = layer(periods=(4,)), text(15)
    block = made.blocks[0]
    memory = AssociativeMemory(MLP(6, 5, 6, residual=False), l2, GradientDescent())

    def oracle() -> Tensor:
        key = unit(x)
        eta = 0.6 * torch.sigmoid(key @ block.rate_weight + block.rate_bias)
        shown = torch.cat([torch.zeros(2, 1, 6, dtype=torch.float64), key[:, :-1]], 1)
        first = {name: tensor.expand(2, *tensor.shape) for name, tensor in block.start().items()}
        state, answers = {"model": first}, []
        for period in torch.arange(15).split(4):
            at, asked = state["model"], shown[:, period]
            answers.append(memory.model.read(at, key[:, period]))
            value = memory.model.read(first, asked) + key[:, period] @ block.target.mT
            met = (eta[:, period] * hidden_units(at["inner"], asked).square().sum(-1)).sum(-1, keepdim=True)
            rate = eta[:, period] * shortened(met)
            _, state = scan(memory, asked, value, key[:, period], rate, state={"model": at}, chunk=4)
        return x + torch.cat(answers, 1)

    parameters = list(made.parameters())
    slopes = []
    for y in (made(x), oracle()):
        slopes.append([y.detach(), *torch.autograd.grad((y * text(15, seed=3)).sum(), parameters)])
    for found, expected in zip(*slopes, strict=True):
        assert expected.abs().max() > 1e-6
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------------------------------------------------ variants


def writes(made: ContinuumMemory, name: str, what: str = "model", time: int = 17) -> list[int]:
    """After how many tokens a block's parameters change."""
    x, state, changed = text(time), made.initial_state(2), []
    for t in range(time):
        before = state["blocks"][name][what]["outer"]
        _, state = made(x[:, t : t + 1], state, True)
        if not torch.equal(state["blocks"][name][what]["outer"], before):
            changed.append(t + 1)
    return changed


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_is_written_when_its_period_is_over(variant):
    made = layer(variant)
    assert writes(made, "0") == [4, 8, 12, 16]
    assert writes(made, "1") == [8, 16]


def reach(made: ContinuumMemory, token: int, time: int = 24) -> list[int]:
    """Which positions a token can be seen at."""
    x = text(time)
    changed = x.clone()
    changed[:, token] += 0.1
    return (made(x) - made(changed)).abs().amax((0, 2)).gt(0).nonzero().flatten().tolist()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("token", "since"), [(1, 4), (3, 4), (5, 8), (9, 12)])
def test_a_token_is_seen_at_once_and_again_after_the_next_write(variant, token, since):
    assert reach(layer(variant), token) == [token, *range(since, 24)]


@pytest.mark.parametrize(("periods", "token", "since"), [((8,), 1, 8), ((8,), 7, 8), ((8,), 8, 16), ((2,), 5, 6)])
def test_a_single_block_shows_its_own_period(periods, token, since):
    assert reach(layer(periods=periods), token) == [token, *range(since, 24)]


def test_the_nested_variant_restores_a_fast_block_to_a_start_that_has_learned():
    nested, sequential = layer("nested"), layer("sequential")
    assert writes(nested, "0", "start") == [8, 16]
    states = {made.variant: made(text(8), return_state=True)[1]["blocks"]["0"] for made in (nested, sequential)}
    assert torch.equal(states["nested"]["model"]["outer"], states["nested"]["start"]["outer"])
    # Two writes were made from the same start: the new start has half of the way to where they led.
    for name, first in nested.blocks[0].start().items():
        middle = (first + states["sequential"]["model"][name]) / 2
        torch.testing.assert_close(states["nested"]["start"][name], middle, rtol=1e-10, atol=1e-12)
    assert "start" not in nested.initial_state(1)["blocks"]["1"]


def test_the_headwise_variant_is_the_weighted_sum_of_its_blocks_alone():
    made, x = layer("headwise"), text(20)
    torch.nn.init.normal_(made.weights)
    total = x.clone()
    for number, period in enumerate(PERIODS):
        alone = layer(periods=(period,))
        alone.blocks[0].load_state_dict(made.blocks[number].state_dict())
        total = total + made.weights[number] * (alone(x) - x)
    torch.testing.assert_close(made(x), total, rtol=1e-10, atol=1e-12)


def test_the_variants_are_different_functions_of_the_same_weights():
    x = text(20)
    sequential, nested = layer("sequential"), layer("nested")
    nested.load_state_dict(sequential.state_dict())
    headwise = layer("headwise")
    headwise.load_state_dict(sequential.state_dict(), strict=False)
    y = [made(x) for made in (sequential, nested, headwise)]
    torch.testing.assert_close(y[0][:, :8], y[1][:, :8], rtol=0, atol=0)
    assert (y[0] - y[1])[:, 8:].abs().amax(-1).min() > 1e-4
    assert (y[0] - y[2]).abs().amax(-1).min() > 1e-2


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_an_inner_rate_it_is_the_frozen_network_and_the_state_keeps_its_start(variant):
    made, x = layer(variant, inner_lr=0.0), text(20)
    expected = x
    for number, block in enumerate(made.blocks):
        key = unit(x if variant == "headwise" else expected)
        answer = F.silu(key @ block.start()["inner"].mT) @ block.start()["outer"].mT / 5**0.5
        expected = expected + (made.weights[number] * answer if variant == "headwise" else answer)
    y, state = made(x, return_state=True)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert all(
        torch.equal(state["blocks"]["1"]["model"]["outer"][b], made.blocks[1].start()["outer"]) for b in range(2)
    )
    # Exactly: writes of length zero give the very same bits.
    silent = layer(variant)
    silent.load_state_dict(made.state_dict(), strict=False)
    for block in silent.blocks:
        torch.nn.init.constant_(block.rate_bias, float("-inf"))
    torch.testing.assert_close(silent(x), y, rtol=0, atol=1e-15)


def test_a_restored_block_forgets_back_to_the_start_that_it_was_restored_to():
    """The first write after that has nothing to forget, whatever the retention."""
    x = text(12)
    forgets, keeps = (layer("nested", retention=retention)(x, return_state=True)[1] for retention in (0.0, 1.0))
    for name in ("inner", "outer"):
        found, expected = (state["blocks"]["0"]["model"][name] for state in (forgets, keeps))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_retention_zero_forgets_everything_learned_before_the_last_write(variant):
    """One write from the start, whatever came before it."""
    made, x = layer(variant, periods=(4, 16), retention=0.0), text(12)
    state = made(x[:, :8], return_state=True)[1]["blocks"]["0"]
    fresh = made.initial_state(2)
    fresh["blocks"]["0"]["key"] = made(x[:, :4], return_state=True)[1]["blocks"]["0"]["key"]
    remembered = layer(variant, periods=(4, 16))(x[:, :8], return_state=True)[1]["blocks"]["0"]
    assert (state["model"]["outer"] - remembered["model"]["outer"]).abs().max() > 1e-3
    # The slopes of the second write are taken at what the first one wrote; only where they are added differs.
    first = made(x[:, :4], return_state=True)[1]["blocks"]["0"]["model"]["outer"]
    step = remembered["model"]["outer"] - first
    torch.testing.assert_close(state["model"]["outer"], made.blocks[0].start()["outer"] + step, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- states and slopes


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_call_is_many_calls_wherever_the_cut(variant):
    made, x = layer(variant), text(17)
    whole, last = made(x, return_state=True)
    torch.testing.assert_close(made(x), whole, rtol=1e-12, atol=1e-12)
    for cut in range(18):
        first, state = made(x[:, :cut], return_state=True)
        second, state = made(x[:, cut:], state, True)
        torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-10, atol=1e-12)
        for (name, found), (_, expected) in zip(leaves(state), leaves(last), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_sequences_of_a_batch_share_nothing_and_the_future_is_not_seen(variant):
    made, x = layer(variant), text(19, batch=3)
    alone = torch.cat([made(x[b : b + 1]) for b in range(3)])
    torch.testing.assert_close(made(x), alone, rtol=1e-10, atol=1e-12)
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(made(x)[1, 10].sum(), x)
    assert slope[:, 11:].abs().max() == 0 and slope[[0, 2]].abs().max() == 0
    assert slope[1, :10].abs().amax(-1).min() > 0 or slope[1, :7].abs().amax(-1).min() > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_slope_and_it_is_the_right_one(variant):
    made, x = layer(variant, retention=0.9), text(10, batch=1)
    made(x).square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max()] == []
    named = dict(made.named_parameters())

    def answers(*values: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(named, values, strict=True)), (x,))

    torch.autograd.gradcheck(answers, tuple(named.values()), fast_mode=True)


def test_the_state_is_in_full_precision_whatever_the_weights_are():
    made, x = layer().bfloat16(), text(12).bfloat16()
    y, state = made(x, return_state=True)
    assert y.dtype == torch.bfloat16
    assert {tensor.dtype for _, tensor in leaves(state)} == {torch.float32}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "x",
    [torch.zeros(1, 600, 6), torch.ones(1, 600, 6), 1e18 * torch.ones(1, 600, 6), torch.eye(6).repeat(100, 1)[None]],
    ids=["zero", "constant", "huge", "recurring"],
)
def test_hard_inputs_neither_diverge_nor_end_in_nan(variant, x):
    made = layer(variant, inner_lr=2.0).float()
    with torch.no_grad():
        y = made(x)
    assert y.isfinite().all()
    assert (y - x).norm(dim=-1).max() < 100 * max(1.0, float(x.norm(dim=-1).max()) * 1e-6)


def test_a_recurring_sequence_is_learned_without_labels():
    """The surprise, how far a block's answer to a key is from its target at the next token, falls while it reads."""
    made = layer(periods=(8,)).float()
    x = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(5)).repeat(1, 60, 1)
    with torch.no_grad():
        answer, key = made(x) - x, F.normalize(x, dim=-1)
        start = layer(periods=(8,), inner_lr=0.0).float()
        start.load_state_dict(made.state_dict(), strict=False)
        learned = answer - (start(x) - x)
        surprise = (learned[:, :-1] - key[:, 1:] @ made.blocks[0].target.mT).square().sum(-1)[0]
    assert surprise[-40:].mean() < 0.5 * surprise[:8].mean()


# -------------------------------------------------------------------------------------------- the next-token objective


def test_slopes_from_outside_are_summed_and_written_by_every_block_at_its_period():
    made = layer(objective="next_token")
    state, x = made.initial_state(2), text(8)
    total = torch.zeros_like(state["blocks"]["1"]["model"]["outer"])
    for piece in x.split(4, 1):
        assert made.until_write(state) == 4
        fast = made.fast_parameters(state)
        y, state = made(piece, state, True)
        flat = [tensor for block in fast.values() for tensor in block.values()]
        slopes = iter(torch.autograd.grad(y.square().sum(), flat))
        given = {number: {name: next(slopes) for name in block} for number, block in fast.items()}
        total = total + given["1"]["outer"]
        before, state = state, made.write(state, given)
        step = before["blocks"]["0"]["model"]["outer"] - state["blocks"]["0"]["model"]["outer"]
        torch.testing.assert_close(step, 0.3 * given["0"]["outer"])
    torch.testing.assert_close(state["blocks"]["1"]["model"]["outer"], made.blocks[1].start()["outer"] - 0.3 * total)
    assert state["blocks"]["1"]["pending"]["outer"].abs().max() == 0


def test_reading_past_a_write_that_needs_slopes_is_an_error():
    made = layer(objective="next_token")
    with pytest.raises(ValueError, match="at most 4 tokens up to the next write at token 4, got 5"):
        made(text(5))


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"periods": ()}, "at least 1, one for each block"),
        ({"periods": (0, 4)}, "at least 1"),
        ({"variant": "nested", "periods": (4, 6)}, "multiple of the one before"),
        ({"variant": "nested", "periods": (4, 4)}, "multiple of the one before"),
        ({"variant": "sequental"}, "Did you mean 'sequential'"),
        ({"objective": "labels"}, "local, next_token"),
        ({"objective": "next_token", "periods": (4, 6)}, "expected multiples of it"),
        ({"inner_lr": -1.0}, "inner_lr of at least 0"),
        ({"retention": 1.5}, "retention from 0 to 1"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_settings_that_do_not_fit_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ContinuumMemory(6, **options)


def test_what_nobody_chose_is_as_documented():
    made, learns = ContinuumMemory(6), ContinuumMemory(6, objective="next_token")
    assert (made.periods, made.variant, made.objective, made.retention) == ((64, 256), "sequential", "local", 1.0)
    assert (made.inner_lr, learns.inner_lr) == (0.1, 1.0)
    assert made.blocks[0].inner.shape == (6, 6)


def test_tokens_and_states_that_do_not_fit_are_errors():
    made = layer()
    with pytest.raises(ValueError, match=r"expected x \[batch, time, 6\], got \(2, 3, 5\)"):
        made(torch.zeros(2, 3, 5))
    _, state = made(text(3, batch=2), return_state=True)
    with pytest.raises(ValueError, match="3 sequences"):
        made(text(3, batch=3), state)
    with pytest.raises(ValueError, match="should hold"):
        layer("nested")(text(3), state, True)


# ---------------------------------------------------------------------------------------------------------------- long


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_sixteen_thousand_tokens_stay_finite(variant, dtype):
    torch.manual_seed(0)
    made = ContinuumMemory(16, periods=(64, 256), variant=variant).to(dtype)
    x = torch.randn(1, 16_384, 16).to(dtype)
    y = made(x)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in made.parameters())
