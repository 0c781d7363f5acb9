import dataclasses
import math

import pytest
import torch

from nestlearn.contenders import Variant
from nestlearn.training.loop import Interrupted, state_bytes, train
from nestlearn.training.spec import RunSpec

SPEC = RunSpec("digits", Variant("Momentum"), (("lr", 0.05), ("retention", 0.9)), seed=0, steps=24, points=4)
TIMES = ("step_ms", "optimizer_ms", "train", "curve")


def losses(result) -> list[float]:
    return [row[2] for row in result.train + result.curve]


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        dataclasses.replace(
            SPEC,
            task="speeches",
            steps=4,
            size=(
                ("dim", 16),
                ("heads", 2),
                ("context", 16),
                ("batch", 4),
                ("validation_windows", 8),
                ("test_windows", 8),
            ),
        ),
    ],
    ids=["digits", "speeches"],
)
def test_the_same_spec_twice_gives_the_same_bits(spec) -> None:
    one, two = train(spec), train(spec)
    assert one.validation == two.validation and one.test == two.test and losses(one) == losses(two)
    other = train(dataclasses.replace(spec, seed=1))
    assert other.validation != one.validation


def test_training_lowers_the_loss_and_records_what_it_should() -> None:
    result = train(SPEC)
    assert result.status == "finished"
    assert result.train[-1].loss < 0.9 * result.train[0].loss
    assert [row[0] for row in result.curve] == [6, 12, 18, 24]
    assert result.curve[-1].loss == result.validation["loss"] and set(result.test) == {"loss", "accuracy"}
    seconds = [row[1] for row in result.train]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert 0 < result.optimizer_ms < result.step_ms
    assert result.parameters == 64 * 128 + 128 + 128 * 10 + 10


def test_what_is_judged_is_the_average_of_the_weights_where_one_is_kept() -> None:
    """Training is what it was; a retention of 0 averages nothing, so even the judgement is."""
    plain = train(SPEC)
    for retention, same in ((0.0, True), (0.9, False)):
        averaging = train(dataclasses.replace(SPEC, settings=(*SPEC.settings, ("averaged_weights", retention))))
        assert [row.loss for row in averaging.train] == [row.loss for row in plain.train]
        assert (averaging.validation == plain.validation) == same
        assert ([row.loss for row in averaging.curve] == [row.loss for row in plain.curve]) == same


def test_a_trial_run_never_looks_at_the_test_split() -> None:
    result = train(dataclasses.replace(SPEC, full=False))
    assert result.test == {} and result.curve == [] and result.validation


def test_a_diverged_run_is_a_result_with_a_reason() -> None:
    result = train(dataclasses.replace(SPEC, settings=(("lr", 1e20), ("retention", 0.9))))
    assert result.status == "diverged" and result.reason.startswith("step ")
    assert result.score == math.inf and result.validation == {} and result.test == {}


def test_the_run_stops_when_asked() -> None:
    with pytest.raises(Interrupted):
        train(SPEC, should_stop=lambda: True)


def test_a_run_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    train(dataclasses.replace(SPEC, steps=2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_state_bytes_counts_every_tensor_once() -> None:
    weights = [torch.nn.Parameter(torch.zeros(10, 3)), torch.nn.Parameter(torch.zeros(5))]
    optimizer = torch.optim.AdamW(weights)
    assert state_bytes(optimizer) == 0
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert state_bytes(optimizer) == 2 * 35 * 4 + 2 * 4  # two moments, and a step count for each parameter
    optimizer.state[weights[0]]["nested"] = {"a": torch.zeros(3, dtype=torch.float64)}
    optimizer.state[weights[1]]["again"] = optimizer.state[weights[1]]["exp_avg"]
    assert state_bytes(optimizer) == 2 * 35 * 4 + 2 * 4 + 24
