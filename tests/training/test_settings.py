from collections.abc import Mapping
from typing import Any, Literal

import pytest
from pydantic import Field

from nestlearn.training import merge, read_settings, to_yaml
from nestlearn.training.settings import Settings


class Inner(Settings):
    width: int = Field(default=3, ge=1)
    mode: Literal["plain", "fancy"] = "plain"


class Outer(Settings):
    kind: Literal["test"] = "test"
    lr: float = 0.1
    seeds: tuple[int, ...] = (0, 1)
    name: str | None = None
    inner: Inner = Inner()
    maybe: Inner | None = None
    free: Mapping[str, Any] = {}
    sizes: Mapping[str, Mapping[str, int]] = {"a": {"x": 1, "y": 2}}


def test_settings_survive_yaml_with_every_kind_of_value(tmp_path) -> None:
    settings = Outer(
        lr=1e-5, seeds=(3,), name="β", inner=Inner(width=9), maybe=Inner(mode="fancy"), free={"a": [1, {"b": None}]}
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(settings), encoding="utf-8")
    assert merge(Outer(), read_settings(path)) == settings
    assert path.read_text(encoding="utf-8").startswith("kind: test\n")


def test_mappings_are_merged_key_by_key_and_the_rest_is_replaced() -> None:
    settings = merge(Outer(), {"sizes": {"a": {"x": 5}, "b": {"z": 3}}, "seeds": [7], "inner": {"width": 8}})
    assert settings.sizes == {"a": {"x": 5, "y": 2}, "b": {"z": 3}}
    assert settings.seeds == (7,) and settings.inner == Inner(width=8) and settings.lr == 0.1
    assert Outer().sizes == {"a": {"x": 1, "y": 2}}, "the settings merged into have changed"


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("free.x=1e-3", 1e-3),
        ("free.x=2E5", 2e5),
        ("free.x=.5e+1", 5.0),
        ("free.x=0.25", 0.25),
        ("free.x=3", 3),
        ("free.x=true", True),
        ("free.x=null", None),
        ("free.x=", None),
        ("free.x=word", "word"),
        ("free.x='1'", "1"),
        ("free.x=a=b", "a=b"),
        ("free.x=[1, 2.5, {a: b}]", [1, 2.5, {"a": "b"}]),
        ("free.x=1e", "1e"),
        (" free.x = 4 ", 4),
    ],
)
def test_assigned_values_are_yaml_and_numbers_are_numbers(assignment: str, value: Any) -> None:
    found = merge(Outer(), *[assignment]).free["x"]
    assert found == value and type(found) is type(value)


def test_assignments_are_carried_out_in_order() -> None:
    settings = merge(Outer(), *["inner.width=4", "inner.mode=fancy", "inner.width=5", "maybe.width=2"])
    assert settings.inner == Inner(width=5, mode="fancy") and settings.maybe == Inner(width=2)
    assert merge(settings, *["maybe=null", "maybe.mode=fancy"]).maybe == Inner(mode="fancy")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sedes=1", r"unknown setting 'sedes': expected one of free, inner, .*\. Did you mean 'seeds'\?"),
        ("inner.widht=1", r"unknown setting 'inner\.widht': expected one of mode, width\. Did you mean 'width'\?"),
        ("maybe.widht=1", r"unknown setting 'maybe\.widht'.* Did you mean 'width'\?"),
        ("inner.width=0", r"inner\.width: expected greater than or equal to 1, got 0"),
        ("inner.width=x", r"inner\.width: expected a valid integer.*, got 'x'"),
        ("inner.mode=fany", r"inner\.mode: expected 'plain' or 'fancy', got 'fany'\. Did you mean 'fancy'\?"),
        ("inner=3", r"inner: expected a valid dictionary.*, got 3"),
        ("lr.x=3", r"lr: expected a valid number, got \{'x': 3\}"),
        ("lr=.nan", r"^lr: expected a finite number, got nan$"),
        ("sizes.a.x=big", r"sizes\.a\.x: expected a valid integer.*, got 'big'"),
        ("lr", r"expected key=value with a key such as optimizer\.hidden, got 'lr'"),
        ("=3", r"expected key=value"),
        ("inner..width=3", r"expected key=value"),
        ("seeds=[1", r"seeds: expected a YAML value, got '\[1'"),
        ("kind=compare", r"kind: expected 'test', got 'compare'"),
    ],
)
def test_bad_assignments_say_what_was_expected_and_what_came(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        merge(Outer(), *[assignment])
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_all_complaints_come_at_once() -> None:
    with pytest.raises(ValueError, match=r"lr: expected.*; unknown setting 'x'"):
        merge(Outer(), {"lr": "fast", "x": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "are not YAML"),
        ("- 1", r"expected a mapping of settings in .*, got \[1\]"),
        ("lr: 1\nlr: 2", "the key 'lr' is given twice"),
        ("inner: {width: 1, width: 2}", "the key 'width' is given twice"),
    ],
)
def test_bad_files_are_clear_errors(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(path)


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the settings .*: No such file"):
        read_settings(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_settings(tmp_path / "binary.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_settings(tmp_path / "empty.yaml") == {}


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().lr = 1.0
