"""A third of the further settings in each test: every class in all, every setting in some, and none left out."""

from __future__ import annotations

from collections import Counter

from .members import MEMBERS
from .selections import COVER, FEW, FURTHER, left_to_others
from .torch_database import ours

TESTS = [
    (f"test_{place}.py::test[{form}-{member}]", str(member))
    for place in range(10)
    for form in ("float32", "float64")
    for member in MEMBERS
]


def test_a_test_has_every_class_and_a_third_of_the_settings_and_all_of_them_each_setting() -> None:
    left = left_to_others(TESTS)
    taken = [(name, member) for name, member in TESTS if name not in left]
    met = Counter(member for _, member in taken)
    assert met.keys() == {str(member) for member in MEMBERS}
    assert {count for member, count in met.items() if member not in FURTHER} == {20}
    assert all(0 < count < 20 for member, count in met.items() if member in FURTHER)
    sizes = Counter(name.replace(member, "") for name, member in taken if member in FURTHER)
    third = len(FURTHER) // COVER
    assert len(sizes) == 20 and set(sizes.values()) <= {third, third + 1}


def test_which_they_are_does_not_depend_on_what_else_is_collected_or_in_which_order() -> None:
    left = left_to_others(TESTS)
    assert left_to_others(reversed(TESTS)) == left
    half = TESTS[: len(TESTS) // 2]
    assert left_to_others(half) == left & {name for name, _ in half}


def test_a_test_that_has_chosen_few_settings_keeps_them() -> None:
    chosen = [(f"test[{member}]", member) for member in list(FURTHER)[: FEW + 1]]
    assert left_to_others(chosen[:FEW]) == set()
    assert 0 < len(left_to_others(chosen)) < len(chosen)


def test_each_setting_is_in_one_of_any_three_tests_of_the_suite_of_torch() -> None:
    asked = [{str(info.member) for info in ours()} for _ in range(COVER)]
    expected = {str(member) for member in MEMBERS if not member.closure}
    assert set.union(*asked) == expected and set.intersection(*asked) == expected - FURTHER.keys()
