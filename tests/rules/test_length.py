"""How long an update is, row by row and against the weights, against loops written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import nestlearn as nl
from nestlearn.descriptions import rebuild
from nestlearn.ops import newton_schulz
from nestlearn.rules import (
    Link,
    average,
    cautious,
    chain,
    constant_norm,
    deep,
    floor,
    gradient,
    muon,
    orthogonal,
    radial,
    row_norm,
    scale,
    sum,
    whiten,
    within,
)

from .examples import composed, loop, stepped

SAME = {"rtol": 1e-12, "atol": 1e-12}
LENGTH_LINKS: dict[str, Link] = {
    "rows": chain(average(0.8), row_norm(0.9)),
    "floor": chain(average(0.8), floor(0.3)),
    "brake": chain(average(0.8), radial(0.25)),
    "hyperball": chain(average(0.8), cautious(), constant_norm()),
}


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **SAME)


def norms(matrix: Tensor, of: str) -> Tensor:
    return matrix.norm(dim=-1, keepdim=True) if of == "rows" else matrix.norm()


def test_rows_are_divided_by_their_past_and_the_whole_is_as_long_as_an_orthogonal_matrix():
    """NorMuon as printed: O / (sqrt(v) + eps), then 0.2 sqrt(m n) over its Frobenius norm, v not corrected."""
    v = torch.zeros(4, 1, dtype=torch.float64)

    def write(weight, u, time):
        nonlocal v
        found = newton_schulz(u, 5)
        v = 0.9 * v + 0.1 * found.square().mean(-1, keepdim=True)
        divided = found / (v.sqrt() + 1e-3)
        return weight - 0.1 * 0.2 * 12**0.5 * divided / divided.norm()

    rule = chain(orthogonal(scale="none"), row_norm(0.9, eps=1e-3), scale())
    assert_same(stepped(composed(rule)), loop(write))


def test_rows_of_what_has_no_length_of_its_own_keep_the_length_that_it_has():
    def write(weight, u, time):
        rows = u / u.norm(dim=-1, keepdim=True)  # v is u's own, so all rows become alike
        return weight - 0.1 * rows / rows.norm() * u.norm()

    assert_same(stepped(composed(row_norm(0.0, eps=0.0))), loop(write))


@pytest.mark.parametrize(
    "rule",
    [
        within(whiten(retention=0.5), chain(orthogonal(), row_norm())),
        chain(orthogonal(), cautious(), chain(row_norm(), name="inside")),
    ],
    ids=repr,
)
def test_a_known_length_goes_on_through_links_that_keep_it(rule):
    weight = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    weight.grad = torch.randn(4, 3, dtype=torch.float64)
    nl.optim.Optimizer([weight], 1.0, matrix=rule).step()
    assert weight.detach().norm() == pytest.approx(0.2 * 12**0.5, rel=1e-12)


@pytest.mark.parametrize("of", ["rows", "matrix"])
def test_an_update_is_at_least_a_share_of_the_weights(of):
    seen = []

    def write(weight, u, time):
        factor = 1.1 * norms(weight, of) / norms(u, of)
        seen.append(factor)
        return weight - 0.1 * u * factor.clamp_min(1)

    assert_same(stepped(composed(floor(1.1, of))), loop(write))
    factors = torch.cat([each.reshape(-1) for each in seen])
    assert (factors > 1).any() and (factors < 1).any()  # both cases were met


def test_a_floor_raises_no_row_without_direction_and_none_without_weights():
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0], [30.0, 40.0], [3.0, 4.0]]))
    weight.grad = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1e-3], [0.0, 1e-30]])
    nl.optim.Optimizer([weight], 1.0, matrix=floor(0.5)).step()
    expected = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [30.0, 15.0], [3.0, 4.0]])
    torch.testing.assert_close(weight.detach(), expected)  # 1e-30 has no square in single precision


@pytest.mark.parametrize("of", ["rows", "matrix"])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_brake_takes_from_the_outward_part_alone(of, share):
    seen = []

    def write(weight, u, time):
        total = (lambda x: x.sum(-1, keepdim=True)) if of == "rows" else torch.sum
        unit = weight / norms(weight, of)
        along = total(u * unit)  # negative: the step goes outwards
        seen.append(along)
        return weight - 0.1 * (u - along * unit + torch.where(along < 0, share * along, along) * unit)

    start = stepped(composed(gradient(), lr=0.0), steps=1)[0]
    assert_same(stepped(composed(radial(share, of))), loop(write))
    signs = torch.cat([each.reshape(-1) for each in seen])
    assert (signs < 0).any() and (signs > 0).any()
    zero = torch.nn.Parameter(torch.zeros_like(start))
    zero.grad = start.clone()
    nl.optim.Optimizer([zero], 1.0, matrix=radial(share, of)).step()
    assert torch.equal(zero.detach(), -start)


@pytest.mark.parametrize("of", ["rows", "matrix"])
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)])
def test_weights_turn_and_keep_their_norm(of, lr):
    def write(weight, u, time):
        moved = 0.95 * weight - 0.1 * norms(weight, of) * u / norms(u, of)
        return norms(weight, of) * moved / norms(moved, of)

    ours = stepped(composed(constant_norm(of), lr=lr, weight_decay=0.5))
    assert_same(ours, loop(write))
    for weight in ours:
        torch.testing.assert_close(norms(weight, of), norms(ours[0], of), **SAME)


def test_a_norm_is_kept_whatever_was_decided_before_about_decay():
    def write(weight, u, time):
        kept = 1 - 0.05 * (u * weight > 0).double()
        moved = kept * weight - 0.1 * weight.norm() * u / u.norm()
        return weight.norm() * moved / moved.norm()

    rule = chain(cautious(), constant_norm())
    assert_same(stepped(composed(rule, weight_decay=0.5)), loop(write))


def test_weights_without_a_norm_take_the_plain_step_and_keep_what_they_have_then():
    weight = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))
    start = torch.randn(3, 2, dtype=torch.float64)
    optimizer = nl.optim.Optimizer([weight], 0.1, matrix=constant_norm(), weight_decay=0.5)
    weight.grad = start.clone()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), -0.1 * start, **SAME)
    weight.grad = torch.randn(3, 2, dtype=torch.float64)
    optimizer.step()
    assert weight.detach().norm().item() == pytest.approx(0.1 * start.norm().item(), rel=1e-12)
    before = weight.detach().clone()
    weight.grad = torch.zeros(3, 2, dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before, **SAME)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before, **SAME)


@pytest.mark.parametrize("rule", LENGTH_LINKS.values(), ids=LENGTH_LINKS)
def test_matrices_of_one_lane_do_not_know_of_each_other(rule):
    """Tall, wide, convolutions, and equal matrices in one batch: each goes as it would alone."""
    shapes = [(5, 2), (5, 2), (2, 5), (4, 2, 2, 3), (4, 2, 2, 3)]

    def trained(together: bool) -> list[Tensor]:
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
        groups = [weights] if together else [[weight] for weight in weights]
        optimizers = [nl.optim.Optimizer(group, 0.1, matrix=rule, weight_decay=0.3) for group in groups]
        for _ in range(4):
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            for optimizer in optimizers:
                optimizer.step()
        return [weight.detach() for weight in weights]

    assert_same(trained(True), trained(False))


def test_one_number_a_row_is_remembered():
    weight = torch.nn.Parameter(torch.randn(5, 3))
    optimizer = nl.optim.Optimizer([weight], 0.1, matrix=chain(sum(0.5), row_norm()))
    weight.grad = torch.randn(5, 3)
    optimizer.step()
    assert optimizer.state[weight]["row_norm.model.value"].shape == (5, 1)
    described = {memory.name: memory for memory in nl.describe(optimizer).memories}["row_norm"]
    assert (described.bytes, described.parameters) == (20, 5)


def test_what_speaks_of_the_weights_is_no_rule_behind_a_memory():
    with pytest.raises(ValueError, match=r"constant_norm\(\) is for the weights, not for written_by= a memory"):
        deep(4, written_by=chain(average(0.5), constant_norm()))


def test_what_a_name_means_may_depend_on_the_shape():
    """A side that is too large is not whitened: two matrices of one rule have words of their own for one name."""
    rule = chain(average(0.8), whiten("root", 0.9, largest_side=4), orthogonal(), row_norm(0.9))
    weights = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((4, 4), (4, 6))]
    optimizer = nl.optim.Optimizer(weights, 0.1, matrix=rule)
    systems = nl.describe(optimizer).everything
    assert len({system.where["row_norm.given"] for system in systems}) == 2
    learners = {
        memory.parameters: rebuild(system)
        for system in systems
        for memory in system.memories
        if memory.home == "weights"
    }
    states = [learners[weight.numel()].init(weight) for weight in weights]
    for _ in range(5):
        for number, weight in enumerate(weights):
            weight.grad = torch.randn_like(weight)
            states[number] = learners[weight.numel()].write(states[number], weight.grad)
        optimizer.step()
    for state, weight in zip(states, weights, strict=True):
        torch.testing.assert_close(state["weights"]["model"]["value"], weight.detach(), rtol=1e-9, atol=1e-10)


def test_a_name_with_two_meanings_is_an_error_that_says_how_to_tell_them_apart():
    weight = torch.nn.Parameter(torch.randn(4, 3))

    def described(name: str | None) -> str:
        inner = chain(average(0.5, nesterov=True), radial(name=name))
        rule = chain(muon(), radial(), deep(3, written_by=inner))
        return str(nl.describe(nl.optim.Optimizer([weight], 0.1, matrix=rule)))

    with pytest.raises(ValueError, match=r"two parts of the rule say 'radial\.given' and mean different things"):
        described(None)
    assert "inner.given = 0.5 * u + 0.5 * average" in described("inner")
