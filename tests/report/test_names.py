"""Names that are cut keep what tells them apart."""

from hypothesis import given
from hypothesis import strategies as st

from nestlearn.report.names import short, told_apart


def test_long_names_keep_their_end() -> None:
    assert short("a.long.path.to.my_module:optimizer", 23) == "…to.my_module:optimizer"
    assert short("Muon") == "Muon"


def test_paths_lose_their_first_parts_whole() -> None:
    shown = told_apart(["momentum.second_moment", "momentum.momentum", "skip"], 16)
    assert shown == {"momentum.second_moment": "…second_moment", "momentum.momentum": "…momentum", "skip": "skip"}


def test_names_that_would_look_alike_keep_both_ends_or_all() -> None:
    first, second = "first.long.momentum", "second.long.momentum"
    assert told_apart([first, second], 12) == {first: "first.…entum", second: "second…entum"}
    alike = ["a.same.b.same.c", "a.same.x.same.c"]
    assert told_apart(alike, 8) == {name: name for name in alike}


@given(st.lists(st.text("ab.", min_size=1, max_size=12), unique=True), st.integers(4, 12))
def test_names_that_differ_never_look_alike(names: list[str], most: int) -> None:
    shown = told_apart(names, most)
    assert list(shown) == names and len(set(shown.values())) == len(names)
