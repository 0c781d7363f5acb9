"""What every task promises, for all of them; what each alone promises is in the file of its name."""

import math
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from typing import Any

import pytest
import torch
from pages import ROOT
from torch import Tensor

import nestlearn as nl
from nestlearn.tasks import TASKS, Task, make_task, sources, task_type
from nestlearn.tasks.about import ABOUT
from nestlearn.tasks.data_file import DIGITS, SPEECHES

LANGUAGE = {"dim": 16, "heads": 2, "context": 16, "batch": 4, "validation_windows": 8, "test_windows": 8}
SMALL = {
    "digits": {"hidden": 16},
    "speeches": LANGUAGE,
    "text": {**LANGUAGE, "file": str(ROOT / "LICENSE")},
    "delayed-gradients": LANGUAGE,
    "fashion-mnist": {"network": "vit", "dim": 16, "patch": 14, "batch": 50},
    "ravine": {},
    "quadratic": {"n": 8, "rows": 4},
    "orthogonal-tasks": {"phase": 3, "subspace": 4, "batch": 8},
    "own_examples:images": {"width": 8},
}
UNTRAINED = {
    "digits": math.log(10),
    "speeches": math.log(256),
    "text": math.log(256),
    "delayed-gradients": math.log(256),
    "fashion-mnist": math.log(10),
    "ravine": 351.96,
    "quadratic": 4 * 0.5 * sum(1000 ** (-i / 7) for i in range(8)),  # expected over starts
    "orthogonal-tasks": 1.0,
    "own_examples:images": math.log(10),
}
NO_DATA = ("ravine", "quadratic")

OWN = """
    import torch
    from torch.nn.functional import cross_entropy

    def images(width=4):
        model = torch.nn.Linear(width, 10)

        def batches():
            while True:
                yield torch.randn(8, width), torch.randint(10, (8,))

        return model, batches(), lambda model, batch: cross_entropy(model(batch[0]), batch[1])
"""


def small(name: str, dtype: str = "float32") -> Task:
    return make_task(name, SMALL[name], "cpu", dtype)


@pytest.fixture(params=SMALL)
def task(request, tiny_fashion_mnist, tmp_path, monkeypatch) -> Iterator[Task]:
    """Each task, small enough to be quick."""
    (tmp_path / "own_examples.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield small(request.param)
    sys.modules.pop("own_examples", None)


def same(one: Any, other: Any) -> bool:
    """Whether two batches, or two state dictionaries, are bitwise equal."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return len(one) == len(other) and all(map(same, one, other))


def test_every_task_is_tested_here():
    assert set(TASKS) == {name for name in SMALL if ":" not in name} == set(UNTRAINED) - {"own_examples:images"}


def test_a_seed_fixes_weights_and_batches_and_another_changes_them(task):
    first, again, other = (task.build(seed).state_dict() for seed in (0, 0, 1))
    assert same(first, again) and not same(first, other)
    one, repeated, different = (list(islice(task.batches(seed), 3)) for seed in (0, 0, 1))
    assert same(one, repeated)
    assert task.name in NO_DATA or not same(one, different)


def test_batches_from_a_later_start_are_the_rest_of_the_stream(task):
    stream = list(islice(task.batches(2), 40))  # over an epoch's end, and over changes of phase
    for start in (1, 7, 13, 37):
        assert same(list(islice(task.batches(2, start=start), 3)), stream[start : start + 3])


def test_building_and_judging_leave_the_global_generator_alone(task):
    before = torch.random.get_rng_state()
    model = task.build(3)
    next(iter(task.batches(3)))
    task.evaluate(model, "test")
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_is_drawn_between_two_batches_does_not_change_them(task):
    def stream(draw: bool) -> list[Any]:
        found = []
        for batch in islice(task.batches(5), 4):
            found.append(batch)
            if draw:
                torch.rand(3)
        return found

    assert same(stream(True), stream(False))


def test_an_untrained_network_is_near_chance_or_at_the_known_value(task):
    for split in ("validation", "test"):
        found = task.evaluate(task.build(0), split)["loss"]
        assert found == pytest.approx(UNTRAINED[task.name], abs=0.5, rel=1e-4 if task.name == "ravine" else 0.5)


def test_evaluating_is_repeatable_changes_nothing_and_gives_the_figure(task):
    model = task.build(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, again = (task.evaluate(model, "validation") for _ in range(2))
    assert first == again
    assert same(before, dict(model.state_dict())) and model.training
    assert set(first) >= {"loss"} | ({task.figure.name} if task.figure else set())
    assert all(isinstance(value, float) for value in first.values())


def test_a_gradient_step_on_a_batch_lowers_its_loss(task):
    model, batch = task.build(0), next(iter(task.batches(0)))
    loss = task.loss(model, batch)
    assert loss.ndim == 0
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-4 * parameter.grad
    assert task.loss(model, batch) < loss


def test_networks_and_losses_have_the_precision_asked_for(task):
    double = small(task.name, "float64")
    model = double.build(0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    loss = double.loss(model, next(iter(double.batches(0))))
    assert loss.dtype == torch.float64 and math.isfinite(loss.item())
    single = task.evaluate(task.build(0), "test")["loss"]
    assert double.evaluate(model, "test")["loss"] == pytest.approx(single, rel=1e-3)


def test_tables_of_the_network_are_found(task):
    model = task.build(0)
    found = set(map(id, nl.optim.tables(model, output=task.ends(model))))
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    assert embeddings <= found <= set(map(id, model.parameters()))


@pytest.mark.parametrize("name", TASKS)
def test_the_field_for_equal_bytes_scales_the_network(name, tiny_fashion_mnist):
    kind = TASKS[name]
    if kind.width is None:
        return
    assert kind.width in {field.name for field in fields(kind)}
    sizes = [
        sum(
            p.numel()
            for p in make_task(name, SMALL[name] | {kind.width: width}, "cpu", "float32").build(0).parameters()
        )
        for width in (32, 64)
    ]
    assert sizes[0] < sizes[1]


# ----------------------------------------------------------------------------------------------------------- registry


def test_titles_are_known_without_importing_what_is_the_users():
    assert task_type("digits").title == "Handwritten digits"
    assert task_type("no_such_module:task").title == "no_such_module:task"


def test_every_task_with_a_name_is_told_of_in_the_same_order():
    assert list(TASKS) == list(ABOUT)
    assert [name for name in TASKS if not issubclass(TASKS[name], ABOUT[name])] == []


def test_sources_are_each_data_file_once():
    assert sources(["digits", "speeches", "delayed-gradients", "ravine", "my.module:task"]) == [DIGITS, SPEECHES]
    assert len(sources(["fashion-mnist"])) == 4


WRONG = [
    ("speech", {}, "unknown task 'speech'.*module:function.*Did you mean 'speeches'"),
    ("digits", {"hiden": 3}, "unknown field of the task digits 'hiden'.*Did you mean 'hidden'"),
    ("digits", {"device": "cpu"}, "unknown field of the task digits 'device'"),
    ("digits", {"hidden": 0}, "hidden of the task digits to be a whole number of at least 1, got 0"),
    ("digits", {"hidden": 3.5}, "whole number of at least 1, got 3.5"),
    ("digits", {"hidden": True}, "whole number of at least 1, got True"),
    ("digits", {"hidden": "many"}, "whole number of at least 1, got 'many'"),
    ("digits", {"batch": 2000}, "whole number from 1 to 1080, got 2000"),
    ("delayed-gradients", {"delay": -1}, "whole number of at least 0, got -1"),
    ("speeches", {"dim": 10}, "dim=10 and heads=4"),
    ("speeches", {"start": "torch", "network": "titans"}, "expected start='scaled' with network='titans'"),
    ("speeches", {"text": "a.txt"}, "take the task text, as in --task text --set task.files=a.txt"),
    (str(ROOT / "LICENSE"), {}, "For a text of your own: --task text --set task.files=.*LICENSE"),
    ("text", {"text": "a.txt"}, "unknown field of the task text 'text'"),
    ("text", {}, "expected files for the task text, got none"),
    ("text", {"file": str(ROOT / "LICENSE"), "context": 2000}, "context=2000 expected at least 20,020"),
    ("fashion-mnist", {"network": "vid"}, "unknown network of the task fashion-mnist 'vid'.*Did you mean 'vit'"),
    ("fashion-mnist", {"network": "vit", "dim": 10}, "dim=10 and heads=4"),
    ("fashion-mnist", {"network": "vit", "patch": 5}, "divides the side of 28 pixels, got patch=5"),
    ("fashion-mnist", {"train_images": 60000}, "from 1 to 55000, got 60000"),
    ("fashion-mnist", {"train_images": 20}, "within the 20 train_images, got batch=64"),
    ("ravine", {"jitter": -0.1}, "number of at least 0, got -0.1"),
    ("ravine", {"steepness": float("nan")}, "number of at least 0, got nan"),
    ("quadratic", {"condition": 0.5}, "number of at least 1, got 0.5"),
    ("orthogonal-tasks", {"overlap": 1.5}, "number from 0 to 1, got 1.5"),
    ("orthogonal-tasks", {"tasks": 1}, "whole number of at least 2, got 1"),
]


@pytest.mark.parametrize(("name", "size", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_unknown_names_and_impossible_sizes_are_clear_errors(name, size, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, size, "cpu", "float32")


def test_whole_numbers_may_stand_for_others():
    assert make_task("quadratic", {"condition": 10}, "cpu", "float32").condition == 10
