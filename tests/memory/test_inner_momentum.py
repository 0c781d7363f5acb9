"""Inner momentum, and writes whose gradient is taken at other parameters, against formulas on one matrix."""

import pytest
import torch

from nestlearn.memory import (
    AssociativeMemory,
    DeltaGradientDescent,
    GradientDescent,
    InnerMomentum,
    LeastSquares,
    Matrix,
    l2,
)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("rule", [GradientDescent(), DeltaGradientDescent()], ids=lambda rule: type(rule).__name__)
def test_the_box_sums_steps_and_forgetting_does_not_pass_through_it(rule):
    """[T] 9-10 with the factor of S4, written out."""
    memory = AssociativeMemory(Matrix(4, 3), l2, InnerMomentum(rule=rule, momentum=0.7))
    state, weight, box = memory.init(dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64), 0
    for t in range(5):
        key, value, lr, retention = draw(4), draw(3), 0.1 + 0.05 * t, 0.9
        theta = 0.7 if t < 3 else 0.2
        observed = {} if t < 3 else {"momentum": torch.tensor(theta, dtype=torch.float64)}
        state, _ = memory.write(state, key, value, lr=lr, retention=retention, observations=observed)
        box = theta * box + lr * torch.outer(weight @ key - value, key)
        forgotten = lr * weight @ torch.outer(key, key) if isinstance(rule, DeltaGradientDescent) else 0
        weight = retention * weight - forgotten - box
        torch.testing.assert_close(state["model"]["weight"], weight, rtol=1e-12, atol=1e-12)


def test_without_momentum_it_is_the_rule_itself():
    plain = AssociativeMemory(Matrix(4, 3), l2, DeltaGradientDescent(lr=0.3, retention=0.9))
    behind = AssociativeMemory(
        Matrix(4, 3), l2, InnerMomentum(lr=0.3, retention=0.9, rule=DeltaGradientDescent(), momentum=0.0)
    )
    one, other = plain.init(dtype=torch.float64), behind.init(dtype=torch.float64)
    for _ in range(4):
        key, value = draw(4), draw(3)
        one, other = plain.write(one, key, value)[0], behind.write(other, key, value)[0]
        torch.testing.assert_close(one["model"], other["model"], rtol=1e-12, atol=1e-12)


def test_rules_that_have_no_gradient_to_sum_are_refused():
    for rule in (LeastSquares(), DeltaGradientDescent(implicit=True)):
        with pytest.raises(TypeError, match="rule must be GradientDescent"):
            InnerMomentum(rule=rule)
    with pytest.raises(TypeError, match="pass the rule by name"):
        InnerMomentum(GradientDescent())


def test_a_gradient_may_be_taken_at_older_parameters():
    """S6: the error of the chunk's start, the factor on the running matrix."""
    memory = AssociativeMemory(Matrix(4, 3), l2, DeltaGradientDescent(lr=0.3, retention=0.9))
    old, now, key, value = draw(3, 4), draw(3, 4), draw(4), draw(3)
    state, surprise = memory.write({"model": {"weight": now}, "rule": {}}, key, value, at={"weight": old})
    missing = old @ key - value
    expected = 0.9 * now - 0.3 * torch.outer(now @ key, key) - 0.3 * torch.outer(missing, key)
    torch.testing.assert_close(state["model"]["weight"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(surprise, 0.5 * missing.square().sum(), rtol=1e-12, atol=1e-12)
