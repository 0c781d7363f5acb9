"""The language of descriptions: it computes what it says, and runs nothing else."""

import math
import re
from pathlib import Path

import pytest
import torch

import nestlearn as nl
from nestlearn.descriptions.functions import FUNCTIONS
from nestlearn.descriptions.language import evaluate, names_in, specialise

NAMES = {
    "a": 3.0,
    "b": torch.tensor([[1.0, -2.0], [4.0, 0.0]]).double(),
    "yes": True,
    "no": False,
    "t": 2,
    "path.to.a": 7.0,
}
NAMES["wide"] = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).double()


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
        ("t % 2 == 0", True),
        ("where(a > 2, a, 0)", 3.0),
        ("or_one(a - 3) + or_one(a)", 4.0),
        ("0.5^ceil(a / 2)", 0.25),
        ("max(1, a, 2) - min(4, a, 5)", 0.0),
        ("path.to.a + 1", 8.0),
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
        ("b @ b^T", [[5, 4], [4, 16]]),
        ("b^T", [[1, 4], [-2, 0]]),
        ("max(b, 0.5, 2 * b)", [[2, 0.5], [8, 0.5]]),
        ("where(t == 2, b, 0)", [[1, -2], [4, 0]]),
        ("or_one(b)", [[1, -2], [4, 1]]),
        ("mix(b, 0 * b, 0.25)", [[0.75, -1.5], [3, 0]]),
        ("ones(b)", [[1, 1], [1, 1]]),
        ("norm(b)^2", [[21]]),
        ("21 * unit(b)^2 + 0 * unit(0 * b)", [[1, 4], [16, 0]]),
        ("as_long_as(b, 2 * b)", [[2, -4], [8, 0]]),
        ("as_long_as(b, 0)", [[0, 0], [0, 0]]),
        ("as_rows(wide)", [[1, 4], [2, 5], [3, 6]]),
        ("unit_rows(wide)^2 * 91 / 3", [[1, 16], [4, 25], [9, 36]]),
        ("as_matrix(as_rows(wide), wide)", [[1, 2, 3], [4, 5, 6]]),
        ("entries(b, 2 * b)", [[1, 2], [-2, -4], [4, 8], [0, 0]]),
        ("as_matrix(entries(wide), wide)", [[1, 2, 3], [4, 5, 6]]),
        ("side_by_side(b, -b)", [[1, -2, -1, 2], [4, 0, -4, 0]]),
        ("identity(wide)", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("trace(b)", [[1]]),
        ("mean_one(b) + mean_one(0 * b)", [[2, -4], [8, 0]]),
        ("ridge(b, identity(b), 1)", [[0.5, -1], [2, 0]]),
        ("whitener(4 * identity(b), 0)", [[0.5, 0], [0, 0.5]]),
        ("inverse_root(16 * identity(b), 4, 0)", [[0.5, 0], [0, 0.5]]),
    ],
)
def test_functions_of_tensors(text, expected):
    found = torch.as_tensor(value(text), dtype=torch.float64)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=1e-15)


def test_newton_schulz_makes_a_matrix_orthogonal_up_to_its_published_spread():
    names = {"M": torch.randn(6, 4, dtype=torch.float64)}
    found = evaluate("newton_schulz(M, 5, 3.4445, -4.775, 2.0315, 0.0000001)", names.__getitem__)
    ours = evaluate("newton_schulz(M)", names.__getitem__)
    for each in (found, ours):
        singular = torch.linalg.svdvals(each)
        assert singular.min() > 0.6 and singular.max() < 1.3
    assert torch.equal(ours, evaluate("newton_schulz(M, 5)", names.__getitem__))


def test_root_steps_come_to_the_inverse_root():
    root, names = torch.zeros(2, 2, dtype=torch.float64), {"S": torch.tensor([[5.0, 4.0], [4.0, 16.0]]).double()}
    for _ in range(12):
        root = evaluate("root_step(R, S)", {**names, "R": root}.__getitem__)
    assert torch.allclose(root @ names["S"] @ root, torch.eye(2, dtype=torch.float64), atol=1e-9)


def test_random_features_are_those_of_the_target():
    names = {"u": torch.randn(5, 3)}
    scene = nl.memory.Scene(names["u"])
    assert torch.equal(evaluate("random_features(u)", names.__getitem__), nl.targets.RandomFeatures()(scene))
    assert torch.equal(evaluate("random_features(u, 3)", names.__getitem__), nl.targets.RandomFeatures(seed=3)(scene))


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "abs(a).real",
        "b[0]",
        "__import__('os')",
        "[a]",
        "lambda: a",
        "a or b",
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
    assert names_in("slow.weights @ left^T + T") == {"slow.weights", "left", "T"}


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
