"""Every contender trains: the hidden matrices by its own rule, everything else by Adam at the common rate."""

import dataclasses

import pytest
import torch

import nestlearn as nl
from nestlearn.contenders import CONTENDERS, Variant
from nestlearn.tasks import SpeechesTask
from nestlearn.training.loop import train
from nestlearn.training.spec import RunSpec

SIZE = {"dim": 16, "heads": 2, "context": 16, "batch": 4, "validation_windows": 4, "test_windows": 4}
NAMES = sorted(CONTENDERS)


def settings(name: str, lr: float) -> dict:
    contender = CONTENDERS[name]
    tuned = {"retention": 0.9} if "retention" in contender.tuned else {}
    return {"lr": lr, **tuned, **contender.fixed}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_lowers_the_loss_on_digits(name: str) -> None:
    values = tuple(settings(name, CONTENDERS[name].lr).items())
    result = train(RunSpec("digits", Variant(name), values, seed=0, steps=40))
    assert result.status == "finished", result.reason
    assert result.validation["loss"] < 2.15 < 2.2 < result.train[0].loss


@pytest.mark.parametrize("name", NAMES)
def test_vectors_embeddings_and_head_learn_the_same_way_in_every_run(name: str) -> None:
    def after(contender: str) -> dict[str, torch.Tensor]:
        task = SpeechesTask(**SIZE)
        model = task.build(0)
        values = settings(contender, 1e-9)  # hidden matrices hardly move, so the others see the same gradients
        optimizers = CONTENDERS[contender].make(
            model, values.pop("lr"), tables=nl.optim.tables(model), elementwise_lr=1e-2, **values
        )
        for _, batch in zip(range(3), task.batches(0), strict=False):
            model.zero_grad()
            task.loss(model, batch).backward()
            for optimizer in optimizers:
                optimizer.step()
        hidden = {n for n, p in model.named_parameters() if n.startswith("blocks") and p.ndim == 2}
        return {n: p.detach() for n, p in model.named_parameters() if n not in hidden}

    expected = after("AdamW")
    for parameter, value in after(name).items():
        torch.testing.assert_close(
            value, expected[parameter], atol=2e-4, rtol=0, msg=lambda m, p=parameter: f"{p}: {m}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(CONTENDERS[name].control, dict)])
def test_its_control_trains_too_and_differs(name: str) -> None:
    contender = CONTENDERS[name]
    fixed = {**contender.fixed, **contender.control}
    rate = contender.control_lr or contender.lr
    spec = RunSpec("digits", Variant(name, True), (("lr", rate),), seed=0, steps=40, fixed=tuple(fixed.items()))
    result = train(spec)
    assert result.status == "finished" and result.validation["loss"] < 2.15
    values = tuple(settings(name, rate).items())
    on = train(dataclasses.replace(spec, variant=Variant(name), settings=values, fixed=()))
    assert on.validation["loss"] != result.validation["loss"]
