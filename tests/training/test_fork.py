"""A fork: the same run where nothing is changed, and what one would have done by hand where something is."""

import json
from pathlib import Path

import pytest
import torch
from sameness import TIMES, differences, left_behind

import nestlearn as nl
from nestlearn.contenders import find_contender
from nestlearn.errors import CheckpointError, SettingsError
from nestlearn.explore import Shelf
from nestlearn.rules import average, chain, orthogonal
from nestlearn.training.checkpoint import Checkpoints, load_checkpoint
from nestlearn.training.fork import ForkPoint, fork
from nestlearn.training.loop import Training
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.schedule import make_schedule
from nestlearn.training.train_run import TrainRun
from nestlearn.training.train_settings import TrainSettings, resolve_training

STEPS, AT = 24, 14
TINY = (
    "task=tiny_task:lines",
    *(f"steps={STEPS}", "rows=12", "points=6", "checkpoint_every=7", "checkpoints=5"),
)


def trained(path: Path, *changes: str) -> Path:
    run = TrainRun(RunFolder(path), resolve_training(TrainSettings(), *TINY, *changes))
    run.begin()
    run.run()
    return path


def forked(parent: Path, path: Path, *changes: str, step: int | None = AT) -> list[str]:
    """Fork and train to the end; returns what was said of it."""
    point = ForkPoint(parent, step)
    settings = resolve_training(point.settings(), *changes)
    said = fork(point, settings, path)
    run = TrainRun(RunFolder(path), settings)
    run.begin(resume=True)
    run.run()
    assert run.notes == []
    return said


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "deep", "optimizer=DeepMomentum", "optimizer.hidden=4")


def test_a_fork_that_changes_nothing_ends_in_the_bits_of_its_parent(deep, tmp_path) -> None:
    said = forked(deep, tmp_path / "same")
    assert differences(left_behind(deep, 1), left_behind(tmp_path / "same", 1), ignore=TIMES) == []
    assert said == [f"forked from step 14 of {deep}; nothing is changed"]
    facts = json.loads((tmp_path / "same" / "fork.json").read_text())
    assert facts["folder"] == str(deep) and facts["step"] == AT and facts["changed"] == facts["left"] == []


def checkpoint(path: Path, step: int) -> dict:
    file = Checkpoints(path / "checkpoints", "seed0").at(step)
    assert file is not None
    return load_checkpoint(file)["training"]


def test_a_memory_switched_off_is_the_continuation_by_hand(tmp_path) -> None:
    parent = trained(
        tmp_path / "parent", "optimizer=DeepMomentum", "optimizer.hidden=4", "task.dropout=0", "task.width=6"
    )
    said = forked(parent, tmp_path / "off", "optimizer.without=momentum")
    assert any("momentum.model.inner (2)" in each for each in said)

    before = Training(resolve_training(ForkPoint(parent).settings()).specs()[0])
    while before.steps_taken < AT:
        before.step()
    model, spec, (old,) = before.model, before.spec, before.optimizers
    matrices = [each for each in model.parameters() if each.ndim == 2]
    vectors = [each for each in model.parameters() if each.ndim == 1]
    lr = dict(spec.settings)["lr"]
    new = nl.optim.Optimizer(
        [{"params": matrices}, {"params": vectors}],
        lr,
        matrix=chain(average(0.8, name="skip"), orthogonal()),
        element=old.element_rule(old.param_groups[0]),
        elementwise_lr=spec.elementwise_lr,
    )
    for parameter in matrices:
        new.state[parameter] = {key: old.state[parameter][key] for key in ("step", "skip.model.value")}
    for parameter in vectors:
        new.state[parameter] = dict(old.state[parameter])
    factor, batches = make_schedule(spec.schedule, spec.warmup, STEPS), before.task.batches(spec.seed, start=AT)
    for step in range(AT, STEPS):
        for group in new.param_groups:
            group["lr"] = lr * factor(step)
        new.zero_grad()
        before.task.loss(model, next(batches)).backward()
        new.step()

    assert differences(dict(model.state_dict()), dict(checkpoint(tmp_path / "off", STEPS)["model"])) == []
    assert differences(dict(model.state_dict()), dict(checkpoint(parent, STEPS)["model"])) != []
    rows = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (parent, tmp_path / "off")
    ]
    early = [[(row["step"], row["loss"]) for row in each if row.get("step", STEPS) <= AT] for each in rows]
    assert early[0] == early[1] and len(early[0]) > 5


@pytest.mark.parametrize(
    ("part", "left"),
    [("second_moment", "second_moment.model.value (2)"), ("element.momentum", "momentum.model.value (4)")],
)
def test_a_memory_of_a_target_or_of_vectors_is_switched_off_alone(deep, tmp_path, part: str, left: str) -> None:
    said, behind = forked(deep, tmp_path / "off", f"optimizer.without={part}")
    assert said.endswith(f"optimizer.without: was None, now {part}") and behind == f"left behind: {left}"
    states = [
        {number: set(one) for number, one in checkpoint(path, STEPS)["optimizers"][0]["state"].items()}
        for path in (deep, tmp_path / "off")
    ]
    gone = [states[0][number] - states[1][number] for number in states[0]]
    name, _, count = left.partition(" ")
    assert [each for each in gone if each] == [{name}] * int(count.strip("()"))


def test_the_record_of_a_fork_begins_as_that_of_its_parent(tmp_path) -> None:
    parent = trained(tmp_path / "parent", "optimizer=DeepMomentum", "optimizer.hidden=4", "record=1", "rows=24")
    forked(parent, tmp_path / "off", "optimizer.without=momentum")
    forked(parent, tmp_path / "silent", "record=0")
    assert not (tmp_path / "silent" / "record").exists()

    def record(path: Path) -> tuple[dict[int, dict], list[list[str]], list[int]]:
        """Its rows by their steps without the times, the lanes as they were said, and the frozen steps."""
        folder = path / "record" / "seed0"
        lines = [json.loads(line) for line in (folder / "writes.jsonl").read_text().splitlines()]
        rows = {line["step"]: {**line, "seconds": 0} for line in lines if "step" in line}
        lanes = [[lane["memory"] for lane in line["lanes"]] for line in lines if "lanes" in line]
        return rows, lanes, sorted(int(file.stem) for file in (folder / "frozen").iterdir())

    (before, whole, frozen), (after, both, frozen_after) = record(parent), record(tmp_path / "off")
    assert set(before) == set(after) == set(range(1, STEPS + 1))
    assert all((before[step] == after[step]) == (step <= AT) for step in before)
    assert both[: len(whole)] == whole and "matrix.momentum" in both[-2] and "matrix.momentum" not in both[-1]
    assert [step for step in frozen_after if step <= AT] == [step for step in frozen if step <= AT] != []
    (run,) = Shelf([tmp_path / "off"]).refresh()
    lanes = {lane["memory"]: lane["ended"] for lane in run.lanes.facts.values()}
    assert {memory for memory, ended in lanes.items() if ended} == {"matrix.momentum", "matrix.second_moment"}
    assert run.lanes.steps.tolist() == list(range(1, STEPS + 1))


def test_a_setting_that_is_changed_is_that_of_the_fork_and_memories_stay(deep, tmp_path) -> None:
    changed = tmp_path / "changed"
    forked(deep, changed, "optimizer.inner_lr=0.5", "optimizer.lr=0.01", "steps=16")
    one, two = checkpoint(deep, AT)["optimizers"][0], checkpoint(changed, AT)["optimizers"][0]
    assert differences(one["state"], two["state"]) == []
    assert two["param_groups"][0]["inner_lr"] == 0.5 and one["param_groups"][0]["inner_lr"] == 0.1
    last = checkpoint(changed, 16)
    assert last["optimizers"][0]["param_groups"][0]["lr"] == pytest.approx(0.01 / 16)
    assert TrainRun.settings_of(RunFolder(changed)).optimizer.others()["inner_lr"] == 0.5


def test_an_optimizer_of_torch_goes_on_with_its_state(tmp_path) -> None:
    parent = trained(tmp_path / "adamw", "optimizer=torch.optim.AdamW")
    forked(parent, tmp_path / "decayed", "optimizer.weight_decay=0.3", "steps=16")
    one, two = (checkpoint(path, AT)["optimizers"][0] for path in (parent, tmp_path / "decayed"))
    assert differences(one["state"], two["state"]) == []
    assert two["param_groups"][0]["weight_decay"] == 0.3
    with pytest.raises(SettingsError, match=r"0\.weight: it has no max_exp_avg_sq"):
        forked(parent, tmp_path / "refused", "optimizer.amsgrad=true")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (("optimizer.hidden=8",), r"'momentum\.model\.inner' has the shape \[4, 4\], expected \[8, 4\]"),
        (("optimizer.levels=2",), r"0\.weight: it has no memory '"),
        (("optimizer=M3",), r"it has no memory 'fast\.model\.value', only momentum"),
        (("optimizer=torch.optim.SGD",), "the state of DeepMomentum is none of SGD"),
        (("optimizer.without=nothing",), "no part 'nothing': expected one of momentum, skip, orthogonal"),
        (("task.width=5",), r"0\.weight: its shape is \[8, 4\], expected \[5, 4\]"),
        (("task=digits",), r"task\.name: is tiny_task:lines, got digits"),
        (("task.delay=2",), r"task\.delay: is 0, got 2"),
        (("dtype=float64",), "dtype: is float32, got float64"),
        (("seeds=1",), r"expected one of \[0\]"),
    ],
)
def test_what_cannot_be_carried_is_refused_in_words(deep, tmp_path, changes: tuple[str, ...], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        forked(deep, tmp_path / "refused", *changes)
    assert not (tmp_path / "refused").exists()


def test_only_checkpoints_that_are_there_and_leave_steps_are_forked(deep, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"of step 15, before the end at 24, .*found those of the steps 0, 7, 14"):
        forked(deep, tmp_path / "refused", step=15)
    assert "from step 21 of" in forked(deep, tmp_path / "latest", step=None)[0]
    assert "from step 24 of" in forked(deep, tmp_path / "longer", "steps=26", step=None)[0]


def test_a_step_is_told_from_a_name(tmp_path) -> None:
    assert ForkPoint.parse("runs/mine@7") == ForkPoint(Path("runs/mine"), 7)
    assert ForkPoint.parse("runs/mine@home") == ForkPoint(Path("runs/mine@home"))
    (tmp_path / "a@7").mkdir()
    assert ForkPoint.parse(str(tmp_path / "a@7")).step is None


@pytest.mark.parametrize(
    ("name", "part", "left"),
    [
        ("Muon", "momentum", "chain(orthogonal())"),
        ("Momentum", "momentum", "gradient()"),
        ("SOAP", "whiten,momentum", "chain(second_moment(0.95))"),
        ("nestlearn.optim.Muon", "orthogonal", "chain(average(0.95, nesterov=True, name='momentum'))"),
        ("mine=chain(average(0.9), orthogonal())", "average,orthogonal", "chain()"),
    ],
)
def test_a_part_of_every_kind_of_optimizer_can_be_switched_off(name: str, part: str, left: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    made = find_contender(name).make(model, 0.1, tables=[], elementwise_lr=0.01, without=part, weight_decay=0.2)
    group = made[0].param_groups[0]
    assert repr(made[0].matrix_rule(group) or made[0].element_rule(group)) == left
    assert group["weight_decay"] == 0.2
    known = find_contender(name).takes()
    assert known is None or "without" in known
