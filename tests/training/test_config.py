import pytest

from nestlearn.training.config import PRESETS, Settings, parse_seeds, preset, resolve
from nestlearn.training.contenders import BASELINE, CONTENDERS, find_contenders
from nestlearn.training.spec import Variant


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_yaml(name: str) -> None:
    assert Settings.from_yaml(preset(name).to_yaml()) == preset(name)


@pytest.mark.parametrize(
    ("text", "expected"), [("0..2", (0, 1, 2)), ("0,1", (0, 1)), ("3", (3,)), ("4..4", (4,)), ("1,0,1", (1, 0))]
)
def test_seeds(text: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize("text", ["", "2..0", "a", "0..", "-1", "1.5", "0,,1"])
def test_bad_seeds_say_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected seeds such as 0\.\.2 or 0,1"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizers": ("Muno",)}, "Did you mean 'Muon'"),
        ({"tasks": ("digit",)}, "Did you mean 'digits'"),
        ({"steps": 0}, "at least one step, got 0"),
        ({"workers": 0}, "at least one worker, got 0"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"device": "gpu0"}, "unknown device 'gpu0'"),
    ],
)
def test_bad_options_are_clear_errors(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(preset("demo"), **changes)


def test_unknown_preset_and_broken_yaml() -> None:
    with pytest.raises(ValueError, match="Did you mean 'full'"):
        preset("ful")
    with pytest.raises(ValueError, match=r"unknown setting 'sedes'.*Did you mean 'seeds'"):
        Settings.from_yaml("preset: demo\nsedes: [1]\n")
    with pytest.raises(ValueError, match="not YAML"):
        Settings.from_yaml("a: [1")


def test_steps_replace_those_of_every_task() -> None:
    assert dict(resolve(preset("demo"), steps=7).steps) == {"digits": 7, "speeches": 7}


def test_the_demo_has_two_seeds_and_every_contender() -> None:
    assert len(preset("demo").seeds) >= 2 and len(preset("full").seeds) >= 3
    assert set(preset("demo").optimizers) == set(CONTENDERS)


def test_contenders_are_found_without_regard_to_case_in_the_order_of_the_registry() -> None:
    assert [c.name for c in find_contenders(["muon", "ADAMW"])] == [BASELINE, "Muon"]


def test_every_control_that_is_a_variant_exists() -> None:
    for contender in CONTENDERS.values():
        if isinstance(contender.control, Variant):
            other = CONTENDERS[contender.control.contender]
            assert not contender.control.control or other.control is not None
