import pytest

from nestlearn.errors import SettingsError
from nestlearn.training import merge, read_settings, to_yaml
from nestlearn.training.train_settings import TrainSettings, changed_settings, resolve_training


def resolved(*assignments: str) -> TrainSettings:
    return resolve_training(TrainSettings(), *assignments)


def test_what_is_left_open_is_filled_in() -> None:
    settings = resolved("optimizer=muon", "device=auto")
    assert settings.optimizer.name == "Muon" and settings.optimizer.lr == 0.052
    assert settings.optimizer.elementwise_lr == 0.01 and settings.device in ("cpu", "cuda")
    assert resolve_training(settings) == settings, "resolving twice changes something"


def test_settings_survive_yaml(tmp_path) -> None:
    settings = resolved(
        "task=speeches", "task.dim=64", "optimizer=SGD", "optimizer.momentum=0.9", "seeds=0..2", "warmup=5"
    )
    (tmp_path / "config.yaml").write_text(to_yaml(settings))
    assert merge(TrainSettings(), read_settings(tmp_path / "config.yaml")) == settings


def test_the_spec_has_everything_on_which_the_result_depends() -> None:
    settings = resolved("task.hidden=16", "optimizer=DeepMomentum2", "optimizer.hidden=8", "optimizer.lr=0.5",
                        "schedule=cosine", "warmup=3", "seeds=7", "optimizer.elementwise_lr=0.2")  # fmt: skip
    (spec,) = settings.specs()
    assert (spec.task, dict(spec.size), spec.variant.name, spec.seed) == ("digits", {"hidden": 16}, "DeepMomentum2", 7)
    assert dict(spec.settings) == {"lr": 0.5} and dict(spec.fixed) == {"levels": 2, "hidden": 8}
    assert (spec.schedule, spec.warmup, spec.elementwise_lr) == ("cosine", 3, 0.2)


def test_a_name_alone_replaces_the_settings_of_another() -> None:
    settings = merge(resolved("task=speeches", "task.dim=64"), {"task": "digits"})
    assert settings.task.others() == {}
    assert merge(resolved("task=speeches", "task.dim=64"), "task=speeches").task.others() == {"dim": 64}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("task=digit", "unknown task 'digit'.*Did you mean 'digits'"),
        ("task.hiden=3", "of the task digits 'hiden'.*Did you mean 'hidden'"),
        ("task.hidden=0", "hidden of the task digits.*got 0"),
        ("optimizer=Moun", "unknown optimizer 'Moun'.*Did you mean 'Muon'"),
        ("optimizer=RMSprp", "Did you mean 'RMSprop'"),
        ("optimizer.hiden=3", r"unknown setting 'optimizer\.hiden' of DeepMomentum.*Did you mean 'hidden'"),
        ("optimizer.lr=-1", r"optimizer\.lr: expected greater than 0, got -1"),
        ("schedule=cosin", "schedule: expected 'linear', 'constant' or 'cosine', got 'cosin'. Did you mean 'cosine'"),
        ("warmup=400", "warmup of at least 0 and less than the 400 steps, got 400"),
        ("stepz=3", "unknown setting 'stepz'.*Did you mean 'steps'"),
        ("seeds=2..0", r"seeds: expected seeds such as 0\.\.2 or 0,1"),
        ("seeds=[1, 1]", "expected different seeds"),
        ("device=tpu9", "unknown device 'tpu9'"),
        ("dtype=float8", "dtype: expected 'float32', 'float64' or 'bfloat16'"),
        ("kind=compare", "kind: expected 'train', got 'compare'"),
    ],
)
def test_bad_settings_are_one_clear_line(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        resolved(assignment)
    assert "\n" not in str(caught.value)


def test_a_class_of_torch_has_one_rate() -> None:
    assert resolved("optimizer=SGD").optimizer.elementwise_lr is None
    with pytest.raises(ValueError, match=r"optimizer\.elementwise_lr: torch\.optim\.SGD treats all parameters alike"):
        resolved("optimizer=SGD", "optimizer.elementwise_lr=0.1")


def test_changes_are_named_and_those_that_matter_not_are_none() -> None:
    before = resolved("optimizer.hidden=8")
    assert changed_settings(before, resolved("rows=5", "optimizer.levels=2")) == [
        "optimizer.hidden: was 8, now None",
        "optimizer.levels: was None, now 2",
        "rows: was 200, now 5",
    ]


def test_a_task_that_is_a_kind_of_the_one_before_keeps_its_fields(tmp_path):
    (tmp_path / "text").write_bytes(b"text " * 100)
    file = {"task": {"name": "speeches", "network": "titans", "context": 8}}
    files = f"task.files={tmp_path / 'text'}"
    for name in ({"task": "text"}, "task=text", "task.name=text"):
        given = [name, files] if isinstance(name, str) else [name | {"steps": 3}, files]
        if name == "task.name=text":  # as ever, and no text is asked for before there is one
            given = [files, name]
        found = resolve_training(TrainSettings(), file, *given)
        assert found.task.name == "text"
        assert found.task.others() == {"network": "titans", "context": 8, "files": str(tmp_path / "text")}
    assert resolve_training(TrainSettings(), file, {"task": "digits"}).task.others() == {}
    with pytest.raises(SettingsError, match="expected files for the task text, got none"):
        resolve_training(TrainSettings(), file, {"task": "text"})


@pytest.mark.parametrize(
    ("changes", "warmup", "note"),
    [
        ([{"steps": 20}], 2, "the warm-up of 20 steps is shortened to 2, as the run has 20 steps"),
        (["steps=5"], 0, "the warm-up of 20 steps is left out, as the run has 5 steps"),
        ([{"steps": 39}], 3, "is shortened to 3"),
        ([{"steps": 40}], 20, ""),
        ([{"steps": 20}, "warmup=15"], 15, ""),
        ([], 20, ""),
    ],
)
def test_a_warm_up_is_shortened_for_who_asks_for_fewer_steps(changes, warmup, note):
    notes = []
    found = resolve_training(TrainSettings(), {"steps": 600, "warmup": 20}, *changes, notes=notes)
    assert found.warmup == warmup and [note in each for each in notes] == ([True] if note else [])


def test_a_warm_up_that_is_asked_for_with_the_steps_has_to_fit():
    with pytest.raises(SettingsError, match="warmup of at least 0 and less than the 20 steps, got 30"):
        resolve_training(TrainSettings(), {"steps": 600}, {"steps": 20, "warmup": 30})
