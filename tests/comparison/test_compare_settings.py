import re
from importlib import util

import pytest

from nestlearn.comparison.compare_settings import PRESETS, CompareSettings, preset, resolve
from nestlearn.contenders import BASELINE, CONTENDERS, MUON
from nestlearn.training import merge, read_settings, to_yaml
from nestlearn.training.settings import parse_seeds


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_yaml(name: str, tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(preset(name)))
    assert path.read_text().startswith("kind: compare\n")
    assert merge(CompareSettings(), read_settings(path)) == preset(name)


@pytest.mark.parametrize(
    ("text", "expected"), [("0..2", (0, 1, 2)), ("0,1", (0, 1)), ("3", (3,)), ("4..4", (4,)), ("1,0,1", (1, 0))]
)
def test_seeds(text: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(text) == expected
    assert merge(preset("demo"), *[f"seeds={text}"]).seeds == expected


@pytest.mark.parametrize("text", ["", "2..0", "a", "0..", "-1", "1.5", "0,,1"])
def test_bad_seeds_say_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected seeds such as 0\.\.2 or 0,1"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizers": ("Muno",)}, "Did you mean 'Muon'"),
        ({"tasks": ("digit",)}, "Did you mean 'digits'"),
        ({"steps": 0}, "steps: expected .*1, got 0"),
        ({"workers": 0}, "workers: expected .*1, got 0"),
        ({"dtype": "float8"}, "dtype: expected 'float32', 'float64' or 'bfloat16', got 'float8'"),
        ({"device": "gpu0"}, "unknown device 'gpu0'"),
        ({"seeds": (1, 1)}, r"expected different seeds, none negative, got \[1, 1\]"),
        ({"retentions": (0.9, 1.0)}, "expected retentions below 1"),
        ({"retentions": (0.9, 0.8)}, "expected increasing values"),
        ({"weight_decays": (-0.1, 0.0)}, "none negative"),
        ({"inner_factors": (0.5, 2.0)}, "with 1 among them"),
        ({"fixed": {"Moun": {"hidden": 3}}}, "unknown optimizer under `fixed` 'Moun'"),
        ({"fixed": {"Muon": {"lr": 3}}}, "fixed.Muon.lr: expected other arguments than lr"),
        ({"sizes": {"digit": {"hidden": 3}}}, "unknown task under `sizes` 'digit'.*Did you mean 'digits'"),
        ({"sizes": {"digits": {"hiden": 3}}}, "Did you mean 'hidden'"),
        ({"task_steps": {"digit": 3}}, "unknown task under `task_steps` 'digit'"),
        ({"cluster": "tcp://localhost:1"}, "expected it with executor: dask, got executor: processes"),
    ],
)
def test_bad_settings_are_clear_errors(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(preset("demo"), **changes)


def test_unknown_presets_and_settings() -> None:
    with pytest.raises(ValueError, match="Did you mean 'full'"):
        preset("ful")
    with pytest.raises(ValueError, match=r"unknown setting 'sedes'.*Did you mean 'seeds'"):
        merge(preset("demo"), *["sedes=1"])


@pytest.mark.parametrize(
    ("changes", "package", "extra"),
    [({"search": "tpe"}, "optuna", "search"), ({"executor": "dask"}, "distributed", "cluster")],
)
def test_a_missing_package_is_an_error_with_the_install_line(monkeypatch, changes, package, extra) -> None:
    real = util.find_spec
    monkeypatch.setattr(
        "nestlearn.comparison.compare_settings.find_spec", lambda name: None if name == package else real(name)
    )
    line = f'{package}, which is not installed: pip install "nestlearn[{extra}]"'
    with pytest.raises(ValueError, match=re.escape(line)):
        resolve(preset("demo"), **changes)


def test_steps_hold_for_every_task_that_has_none_of_its_own() -> None:
    settings = merge(preset("demo"), *["task_steps.digits=50"])
    assert settings.steps_of("digits") == 50 and settings.steps_of("ravine") == settings.steps
    assert resolve(settings, steps=7).steps_of("digits") == 7


def test_the_demo_has_six_contenders_and_five_seeds_and_the_others_have_all() -> None:
    demo = preset("demo")
    assert len(demo.optimizers) == 6 and len(demo.seeds) == 5
    assert demo.optimizers == tuple(name for name in CONTENDERS if name in demo.optimizers)
    assert {BASELINE, MUON, "Nested"} <= set(demo.optimizers)
    assert preset("quick").optimizers == preset("full").optimizers == tuple(CONTENDERS)
    assert len(preset("full").seeds) >= 3


def test_the_baseline_and_muon_are_always_there_and_names_have_no_case() -> None:
    assert resolve(preset("demo"), optimizers=("m3",)).optimizers == (BASELINE, MUON, "M3")
