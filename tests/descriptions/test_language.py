"""The language of descriptions: it computes what it says, and runs nothing else."""

import math
import re
from pathlib import Path

import pytest
import torch

from nestlearn.descriptions.language import FUNCTIONS, evaluate, names_in, specialise

NAMES = {"a": 3.0, "b": torch.tensor([[1.0, -2.0], [4.0, 0.0]], dtype=torch.float64), "yes": True, "no": False, "t": 2}


def value(text: str) -> object:
    return evaluate(text, NAMES.__getitem__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * a^2 - 1", 17.0),
        ("-a / 4 + 1", 0.25),
        ("a if yes else missing", 3.0),  # the other branch is never looked at
        ("1 if no and missing else 2", 2.0),
        ("not no", True),
        ("1 if a >= 3 else 0", 1.0),
        ("max(a, 5) - min(a, 5)", 2.0),
        ("0.9^t", 0.9**2),
        ("sqrt(a)", math.sqrt(3)),
        ("1 if a is None else 2", 2.0),
    ],
)
def test_arithmetic_over_numbers(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abs(b)", [[1, 2], [4, 0]]),
        ("sign(b)", [[1, -1], [1, 0]]),
        ("clip(b, -1, 2)", [[1, -1], [2, 0]]),
        ("max(b, 0.5)", [[1, 0.5], [4, 0.5]]),
        ("where(b > 0, 1.2, b)", [[1.2, -2], [1.2, 0]]),
        ("row_means(b)", [[-0.5], [2]]),
        ("column_means(b)", [[2.5, -1]]),
        ("rms(b)", math.sqrt(21 / 4)),
        ("rows(b) + 10 * columns(b)", 22),
        ("precision(b)", 2.0**-52),
    ],
)
def test_functions_of_tensors(text, expected):
    assert torch.equal(torch.as_tensor(value(text), dtype=torch.float64), torch.tensor(expected, dtype=torch.float64))


def test_newton_schulz_makes_a_matrix_orthogonal_up_to_its_published_spread():
    names = {"M": torch.randn(6, 4, dtype=torch.float64)}
    found = evaluate("newton_schulz(M, 5, 3.4445, -4.775, 2.0315, 0.0000001)", names.__getitem__)
    singular = torch.linalg.svdvals(found)
    assert singular.min() > 0.6 and singular.max() < 1.3


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "a.real",
        "b[0]",
        "__import__('os')",
        "[a]",
        "lambda: a",
        "a @ b",
        "abs(x=a)",
        "(a := 1)",
        "a if",
        "'",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        value(text)


def test_every_function_says_what_it_does():
    assert all(words for _, words in FUNCTIONS.values())


def test_names_leave_functions_out():
    assert names_in("sqrt(v) + eps^t if flag else M") == {"v", "eps", "t", "flag", "M"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(-g if no else g) + (a * W if no else 0)", "g"),
        ("(-g if yes else g) + (a * W if a else 0)", "-g + a * W"),
        ("1 - a * W if a > 2 else 1", "1 - a * W"),
        ("u if t == 1 else (1 - a) * u", "u if t == 1 else (1 - a) * u"),  # the step is no setting
        ("beta^t * 1", "beta^t"),
    ],
)
def test_settings_decide_conditions_and_nothing_more(text, expected):
    settings = {name: NAMES[name] for name in ("a", "yes", "no")}
    assert specialise(text, settings) == expected


def test_the_page_lists_every_function():
    page = (Path(__file__).parents[2] / "docs" / "describe.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| function \| meaning \|\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)\(", table)) == set(FUNCTIONS)
