"""The eight cells of the article's sentence: what differs between them, and the effects that are told of them."""

import pytest
import torch

from experiments.optimizers.combined import contenders, effects
from experiments.optimizers.combined.contenders import CELLS, rule
from nestlearn.optim import Muon, Optimizer


def walk(build, steps=4):
    """A matrix after a few steps on fixed gradients."""
    weight = torch.nn.Parameter(torch.zeros(6, 5, dtype=torch.float64))
    optimizer = build([("weight", weight)])
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        weight.grad = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        optimizer.step()
    return weight.detach()


def cell(switches, inner_lr=0.1):
    return lambda named: Optimizer(named, 0.1, matrix=rule(*switches, 0.8, inner_lr))


def test_each_of_the_eight_goes_another_way() -> None:
    ends = [walk(cell(switches)) for switches in CELLS.values()]
    for index, one in enumerate(ends):
        assert all(not torch.allclose(one, other, atol=1e-6) for other in ends[:index])


def test_the_cell_without_any_is_muon_without_look_ahead() -> None:
    plain = walk(lambda named: Muon(named, 0.1, retention=0.8, nesterov=False))
    assert walk(cell((False, False, False))).allclose(plain, atol=1e-9)


@pytest.mark.parametrize("p", [False, True])
@pytest.mark.parametrize("l2", [False, True])
def test_an_mlp_that_does_not_learn_is_the_average_of_gradients(p: bool, l2: bool) -> None:
    silent = walk(cell((p, l2, True), inner_lr=1e-12))
    assert silent.allclose(walk(cell((False, False, False))), atol=1e-6)


@pytest.mark.parametrize("p", [False, True])
def test_a_box_that_forgets_nothing_along_its_key_is_the_plain_box(p: bool) -> None:
    assert walk(cell((p, True, False), inner_lr=1e-12)).allclose(walk(cell((p, False, False))), atol=1e-9)


def test_names_say_what_is_on() -> None:
    assert set(CELLS) == set(contenders.__all__) - {"CELLS", "FACTORS", "rule"}
    assert CELLS["mlp_l2_p"] == (True, True, True) and CELLS["box_dot_p"] == (True, False, False)
    made = contenders.mlp_dot_p([torch.nn.Parameter(torch.zeros(3, 3))], retention=0.7, inner_lr=0.2)
    assert made.param_groups[0]["matrix.average.retention"] == 0.7
    assert made.param_groups[0]["matrix.deep.inner_lr"] == 0.2


def test_an_effect_is_the_mean_over_the_pairs_that_differ_in_it_alone() -> None:
    sizes = (-0.1, 0.02, 0.3)  # of P, the objective, the MLP
    noise = {0: (0.0, 0.0, 0.0), 1: (0.01, 0.0, -0.02), 2: (-0.01, 0.0, 0.02)}
    losses = {
        name: [2 + sum((size + noise[s][f]) * on for f, (size, on) in enumerate(zip(sizes, switches, strict=True)))
               for s in noise]
        for name, switches in CELLS.items()
    }  # fmt: skip
    table, figures = effects(losses)
    assert [figures[f"effect/{name}"] for name in ("P", "objective", "MLP")] == pytest.approx(sizes)
    assert figures["effect/all three"] == pytest.approx(sum(sizes))
    assert figures["effect/P/p"] < 0.05 and figures["effect/objective/p"] == 1.0  # no scatter, no p
    assert "| MLP | +0.3000 |" in table


def test_what_needs_a_cell_that_diverged_is_not_told() -> None:
    losses = {name: [2.0, 2.1] for name in CELLS if name != "mlp_l2_p"}
    assert effects(losses)[1] == {}
