import math
from itertools import islice

import pytest
import torch

from nestlearn.tasks import DigitsTask, SpeechesTask, make_task
from nestlearn.tasks.networks import ByteTransformer

SMALL = SpeechesTask(dim=16, heads=2, context=16, batch=4, validation_windows=8, test_windows=8)
BOTH = pytest.mark.parametrize("task", [DigitsTask(), SMALL], ids=["digits", "speeches"])


@BOTH
def test_a_seed_fixes_weights_and_batches_and_another_changes_them(task) -> None:
    first, again, other = (task.build(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    one, same, different = (list(islice(task.batches(seed), 3)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for x, y in zip(one, same, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(one[0][0], different[0][0])


@BOTH
def test_building_leaves_the_global_generator_alone(task) -> None:
    before = torch.random.get_rng_state()
    task.build(3)
    assert torch.equal(before, torch.random.get_rng_state())


@BOTH
def test_an_untrained_network_is_near_chance(task) -> None:
    chance = math.log(10) if isinstance(task, DigitsTask) else math.log(256)
    assert abs(task.evaluate(task.build(0), "validation")["loss"] - chance) < 0.5


def test_the_evaluation_is_the_mean_over_all_windows_whatever_the_pieces() -> None:
    model = SMALL.build(0)
    whole = SpeechesTask(dim=16, heads=2, context=16, batch=8, validation_windows=8, test_windows=8)
    assert SMALL.evaluate(model, "test")["loss"] == pytest.approx(whole.evaluate(model, "test")["loss"], rel=1e-6)
    assert SMALL.evaluate(model, "test")["bits"] == pytest.approx(SMALL.evaluate(model, "test")["loss"] / math.log(2))


def test_the_transformer_does_not_see_the_future() -> None:
    model = SMALL.build(0)
    tokens = torch.randint(256, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 256
    difference = (model(tokens) - model(changed)).abs().amax(-1)[0]
    assert difference[:9].max() == 0 and difference[9:].min() > 0


def test_tables_are_the_embeddings_and_the_head_and_the_rest_has_matrices() -> None:
    model = SMALL.build(0)
    apart = {id(p) for module in SMALL.tables(model) for p in module.parameters()}
    assert {name for name, p in model.named_parameters() if id(p) in apart} == {
        "tokens.weight",
        "positions.weight",
        "head.weight",
    }
    assert sum(p.ndim == 2 and id(p) not in apart for p in model.parameters()) == 12


def test_wrong_width_and_unknown_task_are_clear_errors() -> None:
    with pytest.raises(ValueError, match="dim=10 and heads=4"):
        ByteTransformer(dim=10, depth=1, heads=4, context=8)
    with pytest.raises(ValueError, match="Did you mean 'speeches'"):
        make_task("speech", {}, "cpu", "float32")
