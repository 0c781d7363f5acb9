"""The programs of examples/: each runs, on little, and does what it says."""

import re
import runpy
from functools import cache

import pytest
import torch
from pages import ROOT, text

from nestlearn.tasks import OwnTask

FOLDER = ROOT / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@cache
def example(name: str) -> dict:
    """What a file defines, without its command."""
    return runpy.run_path(str(FOLDER / f"{name}.py"), run_name=name)


def test_the_page_has_every_example_and_its_commands():
    page = text("examples/README.md")
    assert sorted(re.findall(r"^\| `python examples/(\w+)\.py", page, re.MULTILINE)) == NAMES
    for name in NAMES:
        assert f"python examples/{name}.py" in example(name)["__doc__"], name


def test_a_table_of_ones_own_is_read_and_learned(tmp_path):
    rows = torch.randn(300, 3)
    lines = [f"{a},{b},{c},{int(a > 0)}" for a, b, c in rows.tolist()]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,c,class", *lines]))
    found = example("own_data")["main"](str(tmp_path / "table.csv"), epochs=8)
    assert len(found) == 2 and max(found.values()) < 0.4


def test_the_table_is_a_task_of_the_command_line():
    task = OwnTask(function=example("own_data")["table"], arguments={"width": 8})
    model = task.build(seed=0)
    assert task.loss(model, next(iter(task.batches(seed=0)))).ndim == 0
    assert set(task.evaluate(model, "test")) == {"loss"}


@pytest.mark.slow
def test_a_text_of_ones_own_is_learned_and_continued(tmp_path):
    (tmp_path / "text.txt").write_text("abcd" * 200)
    losses, said = example("own_text")["main"](str(tmp_path / "text.txt"), steps=8, dim=16, prompt="abc", tokens=20)
    assert losses[-1] < 0.8 * losses[0]
    assert said.startswith("abc") and len(said) > 12


@pytest.mark.slow
def test_torchs_transformer_trains_with_each():
    found = example("transformer")["main"](steps=6)
    assert list(found) == ["AdamW", "Muon", "Muon, projections apart", "Nested"]
    assert max(found.values()) < 5.4  # a guess has 5.55


def test_a_memory_of_ones_own_has_the_slopes_of_autograd_and_trains():
    page = example("own_memory")
    model = page["Waves"](5)
    key, error = (torch.randn(2, 3, 5, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(2, 5, 64, dtype=torch.float64, requires_grad=True)
    key.requires_grad_()
    answer, trace = model.trace({"weight": weight}, key)
    by_weight, by_key = torch.autograd.grad((answer * error).sum(), (weight, key))
    assert torch.allclose(model.pullback({"weight": weight}, key, error, trace)["weight"], by_weight)
    assert torch.allclose(model.transpose({"weight": weight}, key, error), by_key)
    found = page["main"](steps=12)
    assert max(loss for loss, _ in found.values()) < 2.2 and found["waves"][1] < 1


@pytest.mark.parametrize("name", NAMES)
def test_an_example_fits_a_screen_or_two(name):
    assert len(text(f"examples/{name}.py").splitlines()) <= 130
