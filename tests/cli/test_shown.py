"""What a model says is shown, and says no more than it shows."""

import pytest

from nestlearn.cli.shown import Until, visible
from nestlearn.cli.width import fitting, pairs, wrapped


def test_control_characters_are_written_out():
    said = "a\tb\nc\x1b[2J\x00\x7f\x9b\u202e\u2028\ufffd\u00a0\u200d\u00fc"
    assert visible(said) == "a\tb\nc\\x1b[2J\\x00\\x7f\\x9b\\u202e\\u2028\ufffd\u00a0\u200d\u00fc"


@pytest.mark.parametrize("pieces", [["one. Two. stop", "ped"], list("one. Two. stopped"), ["one. Two. st", "opped"]])
def test_a_text_ends_before_the_first_stop_however_it_comes(pieces):
    until = Until(["Four", ". stop"])
    assert "".join(map(until.push, pieces)) + until.rest() == "one. Two" and until.ended
    other = Until(["never", "stopper"])
    assert "".join(map(other.push, pieces)) + other.rest() == "one. Two. stopped" and not other.ended


def test_space_before_an_answer_is_no_answer():
    until = Until(["\n"], skip=True)
    assert [until.push(text) for text in ("\n ", "\n", "a", " b", "\nc")] == ["", "", "a", " b", ""]


def test_names_and_words_stay_whole_at_any_width():
    names = {"a-long-name": "words that go on for a while", "short": ""}
    assert pairs(names, 40).splitlines() == ["a-long-name  words that go on for a", " " * 13 + "while", "short"]
    assert pairs(names, 20).splitlines() == ["a-long-name", "    words that go on", "    for a while", "short"]
    assert wrapped("0.123456789012345678901234", 10) == "0.123456789012345678901234"
    assert fitting(["too long", "short", "s"], 5) == "short" and fitting(["too long"], 2) == ""
