"""A run that was stopped, saved, loaded in a new object and continued, against one that was not: the same bits."""

import dataclasses
import io

import pytest
import torch
from sameness import differences

from nestlearn.contenders import CONTENDERS, Variant
from nestlearn.training.loop import Training
from nestlearn.training.spec import RunSpec

TIMES = ("step_ms", "optimizer_ms", "clock")
TINY = RunSpec(
    "tiny_task:lines", Variant("Adam"), (("lr", 0.02),), seed=3, steps=20, points=4, schedule="cosine", warmup=3
)
TORCH = ("torch.optim.AdamW", "SGD", "RMSprop", "NAdam", "Rprop", "Adafactor", "LBFGS")


def without_seconds(training: Training) -> dict:
    """The whole state, with the seconds in its rows set to zero."""
    state = training.state_dict()
    rows = {name: [[step, 0.0, loss] for step, _, loss in state[name]] for name in ("train", "curve")}
    return state | rows


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def check(spec: RunSpec, stops: tuple[int, ...]) -> Training:
    whole = Training(spec)
    while not whole.done:
        whole.step()
    broken = Training(spec)
    while not broken.done:
        if broken.steps_taken in stops:
            state = through_a_file(broken.state_dict())
            broken = Training(spec)
            broken.load_state_dict(state)
            stops = tuple(stop for stop in stops if stop != broken.steps_taken)
        broken.step()
    assert stops == (), "the run was not stopped where it should be"
    assert differences(without_seconds(whole), without_seconds(broken), ignore=TIMES) == []
    one, two = dataclasses.asdict(whole.result()), dataclasses.asdict(broken.result())
    assert differences(one, two, ignore=(*TIMES, "train", "curve")) == []
    return broken


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CONTENDERS, *TORCH])
def test_every_optimizer_goes_on_where_it_stopped(name: str) -> None:
    lr = 0.01 if name in TORCH else CONTENDERS[name].lr
    done = check(dataclasses.replace(TINY, variant=Variant(name), settings=(("lr", lr),)), stops=(5, 12))
    assert done.result().status == "finished"


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("DeepMomentum", {"objective": "quadratic", "hidden": 4, "period": 1}),
        ("PreconditionedMomentum", {"target": "hessian", "target_period": 3}),
        ("DeepMomentum", {"hidden": 4, "target_period": 4, "levels": 2}),
        ("LayerMomentum", {"period": 3}),
        ("Muon", {"period": 4}),
    ],
)
@pytest.mark.slow
def test_periods_and_curvature_go_on_where_they_stopped(name: str, fixed: dict) -> None:
    spec = dataclasses.replace(TINY, variant=Variant(name), fixed=tuple(fixed.items()))
    check(spec, stops=(1, 7, 13))


@pytest.mark.parametrize("name", ["Adam", "LayerMomentum", "SecantMomentum"])
def test_gradients_on_their_way_are_not_lost(name: str) -> None:
    spec = dataclasses.replace(TINY, variant=Variant(name), size=(("delay", 4),))
    check(spec, stops=(2, 4, 9))
    on_time = Training(dataclasses.replace(spec, size=()))
    late = Training(spec)
    for training in (on_time, late):
        for _ in range(6):
            training.step()
    assert differences(on_time.model.state_dict(), late.model.state_dict()) != []


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_goes_on_where_it_stopped_with_tables_and_attention(name: str) -> None:
    size = {"dim": 16, "heads": 2, "context": 16, "batch": 4, "validation_windows": 4, "test_windows": 4}
    settings = (("lr", CONTENDERS[name].lr),)
    spec = dataclasses.replace(
        TINY, task="speeches", variant=Variant(name), settings=settings, size=tuple(size.items()), steps=8
    )
    check(spec, stops=(3,))


def test_the_dropout_of_the_task_is_drawn_from_the_run_alone() -> None:
    """Steps inside and outside of ``with``, and draws of others in between, give the same run."""
    outside, inside = Training(TINY), Training(TINY)
    for _ in range(8):
        torch.rand(7)
        outside.step()
    with inside:
        for _ in range(8):
            inside.step()
    assert differences(without_seconds(outside), without_seconds(inside), ignore=TIMES) == []
    before = torch.get_rng_state()
    outside.step()
    assert torch.equal(before, torch.get_rng_state())


def test_a_diverged_run_stays_diverged_and_gives_the_same_reason() -> None:
    spec = dataclasses.replace(TINY, variant=Variant("SGD"), settings=(("lr", 1e20),))
    whole = Training(spec)
    while not whole.done:
        whole.step()
    assert whole.reason.startswith("step ") and "the training loss is" in whole.reason
    at = int(whole.reason.split()[1].rstrip(":"))
    broken = Training(spec)
    while broken.steps_taken < at:
        broken.step()
    state = through_a_file(broken.state_dict())  # reading the losses finds it at once
    assert state["reason"] == whole.reason
    after = Training(spec)
    after.load_state_dict(state)
    assert after.done and after.result().reason == whole.reason
    with pytest.raises(RuntimeError, match="is done after"):
        after.step()


def test_the_state_of_another_run_is_refused() -> None:
    other = Training(dataclasses.replace(TINY, seed=4)).state_dict()
    with pytest.raises(ValueError, match=r"expected the state of the run .*seed3.*, got that of .*seed4"):
        Training(TINY).load_state_dict(other)


def test_a_result_before_the_end_is_refused() -> None:
    training = Training(TINY)
    training.step()
    with pytest.raises(RuntimeError, match="has taken 1 of 20 steps"):
        training.result()


def test_schedule_and_warmup_are_part_of_the_key_and_of_the_run() -> None:
    plain = dataclasses.replace(TINY, schedule="linear", warmup=0)
    assert len({plain.key, dataclasses.replace(plain, warmup=1).key, TINY.key}) == 3
    training = Training(TINY)
    rates = []
    for _ in range(5):
        training.step()
        rates.append(training.optimizers[0].param_groups[0]["lr"])
    assert rates[:4] == pytest.approx([0.005, 0.01, 0.015, 0.02]) and rates[4] < 0.02
