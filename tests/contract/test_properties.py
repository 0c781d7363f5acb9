"""Properties that hold for any gradient, looked for by hypothesis."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from .members import MEMBERS, OPEN, Member, over
from .problems import Bag, snapshot

quick = settings(max_examples=8, deadline=None, derandomize=True, database=None)
SEEDS = st.integers(0, 10_000)
OPENED = [member for member in MEMBERS if not member.closure]
FREE = [member for member in MEMBERS if not member.closure and not member.model]
NORMALISED = [member for member in FREE if member.name in {"Adam", "Muon"}]
ROWWISE = [
    member
    for member in FREE
    if member.name in {"Muon", "Adam", "Momentum", "GradientDescent", "M3"} and "feature_map" not in member.settings
]
ODD = [member for member in FREE if not member.name.startswith("Deep")]
"""An MLP with a bent hidden unit is no odd function of its key; everything else is."""


def shaped(member: Member, shape: tuple[int, ...], gradients: list[Tensor]) -> Tensor:
    """Where a zero parameter of `shape` ends after one step on each of `gradients`."""
    module = Bag([torch.zeros(shape, dtype=gradients[0].dtype)])
    optimizer = member.build(module)
    for gradient in gradients:
        module.p0.grad = gradient.clone()
        optimizer.step()
    return module.p0.detach()


def draw(seed: int, shape: tuple[int, ...], count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize(**OPEN)
@quick
@given(seed=SEEDS, exponents=st.lists(st.integers(-20, 20), min_size=3, max_size=3), rank=st.integers(0, 2))
@example(seed=0, exponents=[0, 20, 0], rank=0)
@example(seed=0, exponents=[0, 20, 0], rank=2)
@example(seed=0, exponents=[18, -20, 0], rank=2)
@example(seed=0, exponents=[-20, 18, -20], rank=1)
@pytest.mark.slow
def test_finite_gradients_give_finite_weights(member: Member, seed: int, exponents: list[int], rank: int) -> None:
    """From 1e-20 to 1e18 in float32. A gradient whose square overflows may be refused: then nothing changes."""
    if member.settings.get("literal"):  # as printed, these forms diverge under large gradients
        exponents = [min(exponent, 0) for exponent in exponents]
    gradients = [(g * 10.0**e).float() for g, e in zip(draw(seed, (4, 3)[:rank], 3), exponents, strict=True)]
    module = Bag([torch.zeros(gradients[0].shape)])
    optimizer = member.build(module)
    for gradient in gradients:
        module.p0.grad = gradient.clone()
        before = snapshot(optimizer)
        try:
            optimizer.step()
        except FloatingPointError:
            assert gradient.square().sum().isinf()
            after = snapshot(optimizer)
            assert all(torch.equal(after[key], value) for key, value in before.items())
    assert module.p0.isfinite().all()
    assert [key for key, value in optimizer.state[module.p0].items() if not value.isfinite().all()] == []


@pytest.mark.parametrize("shape", [(4, 3), (5,)], ids=str)
@pytest.mark.parametrize(**over(member for member in OPENED if not member.settings.get("literal")))
def test_a_huge_bfloat16_gradient_does_not_poison_float32_memories(member: Member, shape: tuple[int, ...]) -> None:
    """bfloat16 reaches 3e38 as float32 does, so its squares overflow in memories just the same."""
    module = Bag([torch.zeros(shape, dtype=torch.bfloat16)])
    optimizer = member.build(module)
    for size in (1.0, 1e20, 1.0):
        module.p0.grad = torch.full(shape, size, dtype=torch.bfloat16)
        with contextlib.suppress(FloatingPointError):
            optimizer.step()
    assert module.p0.isfinite().all()
    assert [key for key, value in optimizer.state[module.p0].items() if value.isnan().any()] == []


@pytest.mark.parametrize(**over(NORMALISED))
@quick
@given(seed=SEEDS, exponent=st.integers(-3, 8), shape=st.sampled_from([(4, 3), (3, 4), (5,), ()]))
def test_normalised_rules_do_not_see_the_scale(
    member: Member, seed: int, exponent: int, shape: tuple[int, ...]
) -> None:
    gradients = draw(seed, shape, 3)
    plain = shaped(member, shape, gradients)
    scaled = shaped(member, shape, [10.0**exponent * gradient for gradient in gradients])
    torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(**over(ROWWISE))
@quick
@given(seed=SEEDS, data=st.data())
def test_permuted_rows_and_columns_give_permuted_weights(member: Member, seed: int, data: st.DataObject) -> None:
    rows = data.draw(st.permutations(range(4)))
    columns = data.draw(st.permutations(range(3)))
    gradients = draw(seed, (4, 3), 3)
    plain = shaped(member, (4, 3), gradients)
    permuted = shaped(member, (4, 3), [gradient[rows][:, columns] for gradient in gradients])
    torch.testing.assert_close(permuted, plain[rows][:, columns], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(**over(FREE))
@quick
@given(seed=SEEDS)
@pytest.mark.slow
def test_permuted_keys_give_permuted_weights(member: Member, seed: int) -> None:
    """Rows of the long side are keys of one memory: their order means nothing."""
    gradients = draw(seed, (6, 3), 3)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    plain = shaped(member, (6, 3), gradients)
    permuted = shaped(member, (6, 3), [gradient[order] for gradient in gradients])
    torch.testing.assert_close(permuted, plain[order], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(**over(ODD))
@quick
@given(seed=SEEDS, shape=st.sampled_from([(4, 3), (5,), ()]))
def test_the_update_is_odd_on_the_first_step(member: Member, seed: int, shape: tuple[int, ...]) -> None:
    """The opposite first gradient gives the opposite first move: no rule has a preferred direction."""
    gradients = draw(seed, shape, 1)
    ahead, back = shaped(member, shape, gradients), shaped(member, shape, [-gradients[0]])
    torch.testing.assert_close(back, -ahead, rtol=1e-9, atol=1e-12)
