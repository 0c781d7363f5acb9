"""Tasks of one's own: what may be returned, what is held out, what a seed fixes, and what each mistake says."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nestlearn.tasks import OwnTask, Task, make_task


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def numbered(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches that hold their own number."""
    return [(torch.full((2, 3), float(i)), torch.zeros(2, 1)) for i in range(count)]


def own(function: Callable[..., Any], **fields: Any) -> OwnTask:
    return OwnTask(function=function, **fields)


def numbers(task: Task, count: int, start: int = 0, seed: int = 0) -> list[float]:
    return [batch[0][0, 0].item() for batch in islice(task.batches(seed, start), count)]


def held_out(task: OwnTask, model: nn.Module) -> dict[str, list[float]]:
    """The numbers of the batches that judge, seen by a loss that gives them back."""
    return {split: [task.evaluate(model, split)["loss"]] for split in ("validation", "test")}


def linear() -> nn.Module:
    return nn.Linear(3, 1)


def the_number(model: nn.Module, batch: Any) -> torch.Tensor:
    return batch[0][0, 0] + 0 * model(batch[0]).sum()


# --------------------------------------------------------------------------------------------------- what is held out


def test_the_first_batches_judge_in_turn_and_are_never_trained_on():
    task = own(lambda: (linear(), numbered(9), the_number), held_out=2)
    model = task.build(0)
    assert task.evaluate(model, "validation") == {"loss": 1.0}  # the mean of 0 and 2
    assert task.evaluate(model, "test") == {"loss": 2.0}  # of 1 and 3
    assert numbers(task, 12) == [4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5]


def test_batches_held_out_by_the_function_are_the_splits_and_all_others_train():
    splits = {"validation": numbered(2), "test": numbered(4)[3:]}
    task = own(lambda: (linear(), numbered(2), the_number, splits))
    model = task.build(0)
    assert held_out(task, model) == {"validation": [0.5], "test": [3.0]}
    assert numbers(task, 5) == [0, 1, 0, 1, 0]


def generator(count: int) -> Iterator[Any]:
    yield from numbered(count)


@pytest.mark.parametrize("held", [True, False], ids=["held out", "first ones"])
def test_a_finite_generator_is_made_again_when_it_is_exhausted(held):
    splits = {"validation": numbered(1), "test": numbered(1)}
    task = own(lambda: (linear(), generator(5), the_number, *([splits] if held else [])), held_out=1)
    assert numbers(task, 7) == ([0, 1, 2, 3, 4, 0, 1] if held else [2, 3, 4, 2, 3, 4, 2])
    assert numbers(task, 3, start=4) == ([4, 0, 1] if held else [3, 4, 2])


def loader(**options: Any) -> DataLoader:
    pairs = TensorDataset(torch.arange(12.0)[:, None].expand(12, 3), torch.zeros(12, 1))
    return DataLoader(pairs, batch_size=2, **options)


def test_a_shuffling_loader_shuffles_every_epoch_and_can_be_resumed():
    splits = {"validation": numbered(1), "test": numbered(1)}
    task = own(lambda: (linear(), loader(shuffle=True), the_number, splits))
    stream = numbers(task, 18)
    assert stream[:6] != stream[6:12]  # another order
    assert numbers(task, 18) == stream and numbers(task, 5, start=11) == stream[11:16]
    assert numbers(task, 6, seed=1) != stream[:6]


def test_a_shuffling_loader_without_held_out_data_is_refused_when_it_would_train_on_them():
    task = own(lambda: (linear(), loader(shuffle=True), the_number), held_out=1)
    assert len(numbers(task, 4)) == 4  # the first epoch is fine
    with pytest.raises(ValueError, match=r"another order the second time.*return held_out = "):
        numbers(task, 10)


def test_a_loader_in_order_needs_no_held_out_data():
    task = own(lambda: (linear(), loader(), the_number), held_out=1)
    assert numbers(task, 6) == [4, 6, 8, 10, 4, 6]


# -------------------------------------------------------------------------------------------------- what a seed fixes


def test_a_function_with_an_argument_seed_gets_it():
    seen = []

    def function(seed: int) -> Any:
        seen.append(seed)
        return linear(), numbered(9), loss

    own(function, held_out=1).build(7)
    assert set(seen) == {7}


def test_a_function_whose_batches_depend_on_neither_seed_nor_torch_is_found_out():
    calls: list[int] = []

    def function() -> Any:
        calls.append(1)
        return linear(), [(torch.full((2, 3), float(len(calls))), torch.zeros(2, 1))] * 9, loss

    task = own(function, held_out=1)
    task.build(0)
    with pytest.raises(ValueError, match="other batches for the same seed: take random numbers from torch's global"):
        next(task.batches(0))


def test_a_model_that_two_runs_would_share_is_found_out():
    shared = linear()
    task = own(lambda: (shared, numbered(9), loss))
    model = task.build(0)
    assert model is shared
    with pytest.raises(ValueError, match="same model twice: make it inside the function"):
        next(task.batches(0))


# ------------------------------------------------------------------------------------------------------ loss and model


def test_tensors_are_moved_wherever_a_batch_keeps_them():
    batch = {"pair": Pair(torch.ones(2, 3), torch.ones(2, 1)), "list": [torch.arange(2), "text"], "n": 3}
    task = own(lambda: (linear(), [batch] * 9, lambda model, b: model(b["pair"].x).mean()), dtype=torch.float64)
    found = next(task.batches(0))
    assert isinstance(found["pair"], Pair) and found["pair"].x.dtype == torch.float64
    assert found["list"][0].dtype == torch.int64 and found["list"][1] == "text" and found["n"] == 3
    model = task.build(0)
    assert model.weight.dtype == torch.float64
    assert task.evaluate(model, "validation")["loss"] == pytest.approx(task.loss(model, found).item())


def test_judging_switches_dropout_off_and_leaves_every_module_in_its_mode():
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1), nn.Dropout(0.5).eval())
    task = own(lambda: (network, numbered(9), loss))
    model = task.build(0)
    assert task.evaluate(model, "test") == task.evaluate(model, "test")
    assert [module.training for module in model] == [True, True, False]


def test_a_loss_that_draws_judges_by_the_same_numbers_and_leaves_the_generator_alone():
    task = own(lambda: (linear(), numbered(9), lambda model, batch: model(batch[0] + torch.randn(2, 3)).mean()))
    model, before = task.build(0), torch.random.get_rng_state()
    assert task.evaluate(model, "test") == task.evaluate(model, "test")
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_model_of_another_task_is_refused():
    with pytest.raises(ValueError, match="a model that this task has built, got another Linear"):
        own(lambda: (linear(), numbered(9), loss)).evaluate(linear(), "test")


# ------------------------------------------------------------------------------------------------------------ mistakes


MISTAKES = [
    (lambda: None, r"to return \(model, batches, loss\) or .*, got a NoneType"),
    (lambda: (linear(), numbered(3)), "got a tuple of length 2"),
    (lambda: ("model", numbered(3), loss), "torch.nn.Module first, got a str"),
    (lambda: (linear(), 3, loss), "iterable of batches second, got a int"),
    (lambda: (linear(), numbered(3), "mse"), r"loss\(model, batch\) third, got a str"),
    (lambda: (linear(), numbered(3), loss, {"valid": []}), r"held_out = .*, got \['valid'\]"),
    (lambda: (linear(), numbered(3), loss, [1]), r"held_out = .*, got list"),
    (lambda: (linear(), numbered(3), loss, {"validation": [1], "test": []}), "at least one batch for test, got none"),
    (lambda: (linear(), numbered(5), loss), "more than 8 batches, as the first 8 are held out, got 5"),
]


@pytest.mark.parametrize(("function", "message"), MISTAKES, ids=[message[:30] for _, message in MISTAKES])
def test_a_wrong_return_value_is_a_clear_error(function, message):
    with pytest.raises(ValueError, match=message):
        own(function).build(0)


def test_a_stream_with_nothing_beyond_the_held_out_batches_is_a_clear_error():
    task = own(lambda: (linear(), numbered(4), loss), held_out=2)
    task.build(0)
    with pytest.raises(ValueError, match="more than 4 batches, as the first 4 are held out, got 4"):
        next(task.batches(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda model, batch: 1.0, "got a float"),
        (lambda model, batch: model(batch[0]), r"got a Tensor of shape \[2, 1\]"),
    ],
)
def test_a_loss_that_is_no_single_number_is_a_clear_error(wrong, message):
    task = own(lambda: (linear(), numbered(9), wrong))
    with pytest.raises(ValueError, match=message):
        task.loss(task.build(0), numbered(1)[0])


# ------------------------------------------------------------------------------------------------------------- by name


MODULE = """
    import torch
    from own_helper import batches
    from nestlearn.tasks import DigitsTask

    def task(width=3, *, depth=1):
        return torch.nn.Linear(width, depth), batches(), lambda model, batch: model(batch).mean()

    def needs(width):
        return task(width)

    def anything(**options):
        return task()

    number = 3

    class Digits(DigitsTask):
        def evaluate(self, model, split):
            return {**super().evaluate(model, split), "of its own": 1.0}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with own_module.py and the file it imports, on no path of Python's."""
    (tmp_path / "own_module.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "own_helper.py").write_text("import torch\ndef batches():\n    return [torch.ones(2, 3)] * 20\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_module", "own_helper", "own_broken"):
        sys.modules.pop(name, None)


def test_a_module_in_the_current_folder_is_found_and_its_arguments_are_fields(module):
    task = make_task("own_module:task", {"depth": 2, "held_out": 3, "delay": 1}, "cpu", "float32")
    assert isinstance(task, OwnTask) and task.name == task.title == "own_module:task"
    assert (task.held_out, task.delay, dict(task.arguments)) == (3, 1, {"depth": 2})
    assert task.build(0).weight.shape == (2, 3)


def test_any_field_is_passed_to_a_function_that_takes_any(module):
    task = make_task("own_module:anything", {"what": "ever"}, "cpu", "float32")
    assert dict(task.arguments) == {"what": "ever"}


def test_a_class_that_is_a_task_has_fields_and_figures_of_its_own(module):
    task = make_task("own_module:Digits", {"batch": 7}, "cpu", "float32")
    assert isinstance(task, Task) and not isinstance(task, OwnTask) and task.batch == 7
    assert task.evaluate(task.build(0), "test")["of its own"] == 1.0
    with pytest.raises(ValueError, match="Did you mean 'batch'"):
        make_task("own_module:Digits", {"bach": 7}, "cpu", "float32")


NOT_FOUND = [
    ("own_modul:task", {}, "of the task 'own_modul:task': no module 'own_modul'"),
    ("own_module.inner:task", {}, "no module 'own_module.inner'"),
    ("own_module:tusk", {}, r"no function 'tusk' for the task in .*own_module\.py.*Did you mean 'task'"),
    ("own_module:number", {}, "no function 'number'"),
    ("own_module:", {}, "no function ''"),
    ("own_module:task", {"wdth": 3}, "unknown field 'wdth' of the task own_module:task.*Did you mean 'width'"),
    ("own_module:task", {"seed": 3}, "unknown field 'seed'"),
    ("own_module:task", {"held_out": 0}, "held_out of the task own_module:task to be a whole number of at least 1"),
    ("own_module:needs", {}, "own_module:needs needs a value for 'width'"),
]


@pytest.mark.parametrize(("name", "size", "message"), NOT_FOUND, ids=[f"{name} {size}" for name, size, _ in NOT_FOUND])
def test_what_cannot_be_found_or_called_is_a_clear_error(name, size, message, module):
    with pytest.raises(ValueError, match=message):
        make_task(name, size, "cpu", "float32")


def test_a_module_that_misses_a_package_of_its_own_says_which(module):
    (module / "own_broken.py").write_text("import no_such_package\n")
    with pytest.raises(ValueError, match="no_such_package"):
        make_task("own_broken:task", {}, "cpu", "float32")
