"""A run that goes on from a checkpoint of another one with other settings: "what if, from here".

The new folder is made as if its run had been stopped at that step: with the rows up to it, and a checkpoint that holds
what the other run was, under the new settings. From there on it is a run like any other, and resuming is exact to the
bit; so two runs differ by what was changed alone, and one that changes nothing ends as the other did.

What is remembered is carried by name, parameter by parameter. A memory that the new settings do not have is left
behind. One that they have and the checkpoint does not, or in another shape, is refused: there is nothing to go on from.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nestlearn import optim
from nestlearn.errors import CheckpointError, SettingsError, as_settings_error
from nestlearn.foreign import foreign
from nestlearn.integrations.record_folder import copy_record
from nestlearn.training.checkpoint import Checkpoints, load_checkpoint
from nestlearn.training.live_files import LiveFiles
from nestlearn.training.loop import Training
from nestlearn.training.mending import content_of, settings_of
from nestlearn.training.room import check_room
from nestlearn.training.run_folder import RunFolder, write_atomic
from nestlearn.training.settings import to_yaml
from nestlearn.training.spec import RunSpec
from nestlearn.training.tracking import record_of
from nestlearn.training.train_settings import TrainSettings, changed_settings

__all__ = ["FORK", "ForkPoint", "fork"]

FORK = "fork.json"
FORMAT = "nestlearn fork 1"
FIXED = ("device", "dtype")
State = dict[str, Any]


@dataclass(frozen=True)
class ForkPoint:
    """Where a run is forked: its folder, and the step of one of its checkpoints; None is the latest that leaves steps
    to take.
    """

    folder: Path
    step: int | None = None

    @classmethod
    def parse(cls, text: str) -> ForkPoint:
        """``RUN`` or ``RUN@STEP``.

        Example:
            >>> ForkPoint.parse("runs/mine@300").step
            300
        """
        folder, at, step = text.rpartition("@")
        if at and folder and step.isdecimal() and len(step) < 16 and not Path(text).exists():
            return cls(Path(folder), int(step))
        return cls(Path(text))

    def settings(self) -> TrainSettings:
        """Those of the run, of its first seed, in one process.

        Raises:
            RunFolderError, SettingsError: it is no folder of ``nestlearn train``.
        """
        found = settings_of(RunFolder(self.folder))
        return found.model_copy(update={"seeds": found.seeds[:1], "strategy": "none"})


@as_settings_error()
def fork(point: ForkPoint, settings: TrainSettings, path: Path) -> list[str]:
    """Make the folder ``path``, in which a run with other settings goes on from a checkpoint of another one: what
    ``TrainRun(RunFolder(path), settings).begin(resume=True)`` takes up.

    Args:
        settings: resolved, with one of the seeds of the other run.

    Returns:
        What there is to say of it: from which step, what was changed, and which memories were left behind.

    Raises:
        SettingsError: the state cannot be carried over to these settings; the message says which.
        CheckpointError: there is no checkpoint of this step, or it is broken.
        RunFolderError: ``path`` holds a run, or cannot be written.
    """
    parent = RunFolder(point.folder)
    before = settings_of(parent)
    if len(settings.seeds) != 1 or settings.seeds[0] not in before.seeds:
        raise SettingsError(
            f"a fork goes on from one seed: expected one of {list(before.seeds)}, those of {parent.path}, got "
            f"{list(settings.seeds)}"
        )
    before = before.model_copy(update={"seeds": settings.seeds})
    _check_same(before, settings)
    step, content = _checkpoint(parent, point.step, settings)
    old, new = before.specs()[0], settings.specs()[0]
    with foreign(CheckpointError, f"the checkpoint in {parent.checkpoints} does not fit its run"):
        saved = content["training"]
        if saved["run"] != old.key or saved["steps_taken"] != step:
            raise ValueError(f"expected the run {old.key} at step {step}, got {saved['run']} at {saved['steps_taken']}")
        if saved["reason"]:
            raise SettingsError(
                f"{parent.path} had diverged by step {step} ({saved['reason']}): fork from an earlier one"
            )
        was = _layout(Training(old))  # built and let go of: two networks are never there at once
    check_room(new.task, dict(new.size), new.device, new.dtype, new.seed)
    training = Training(new, rows=settings.rows, looks=settings.rows)
    _check_model(saved["model"], training)
    optimizers, left = _carried(was, saved["optimizers"], training)
    training.load_state_dict({**saved, "run": new.key, "optimizers": optimizers})
    changed = changed_settings(before, settings)
    _write(
        RunFolder(path), settings, training, _facts(parent, old, step, changed, left), record_of(parent.path, old.seed)
    )
    notes = [f"forked from step {step:,} of {parent.path}; {'; '.join(changed) or 'nothing is changed'}"]
    return notes + ([f"left behind: {', '.join(left)}"] if left else [])


def _check_same(before: TrainSettings, now: TrainSettings) -> None:
    """Raise SettingsError for what no state can be carried over."""
    pairs: dict[str, tuple[Any, Any]] = {name: (getattr(before, name), getattr(now, name)) for name in FIXED}
    pairs["task.name"] = before.task.name, now.task.name
    one, two = (each.specs()[0].make_task().delay for each in (before, now))
    pairs["task.delay"] = one, two
    wrong = [f"{name}: is {one}, got {two}" for name, (one, two) in pairs.items() if one != two]
    if wrong or now.strategy != "none":
        raise SettingsError(
            "a fork keeps its task, device and dtype, and is one process: "
            f"{'; '.join(wrong) or 'expected strategy none'}"
        )


def _checkpoint(parent: RunFolder, step: int | None, settings: TrainSettings) -> tuple[int, State]:
    kept = Checkpoints(parent.checkpoints, f"seed{settings.seeds[0]}")
    steps = kept.steps()
    usable = [each for each in steps if each < settings.steps]
    step = usable[-1] if step is None and usable else step
    file = None if step is None else kept.at(step)
    if step is None or file is None or step >= settings.steps:
        wanted = "with steps left" if step is None else f"of step {step:,}, before the end at {settings.steps:,}"
        raise CheckpointError(
            f"expected a checkpoint {wanted}, in {kept.folder}: found those of the steps "
            f"{', '.join(map(str, steps)) or 'none'}. --steps lengthens a fork; `--set checkpoints=` says "
            "how many a run keeps"
        )
    return step, load_checkpoint(file)


def _layout(training: Training) -> list[list[tuple[State, list[str], type]]]:
    """Of each optimizer its groups: the settings, the names of the parameters, and the class."""
    names = {id(parameter): name for name, parameter in training.model.named_parameters()}
    return [
        [
            (
                {key: value for key, value in group.items() if key not in ("params", "param_names")},
                [names[id(parameter)] for parameter in group["params"]],
                type(optimizer),
            )
            for group in optimizer.param_groups
        ]
        for optimizer in training.optimizers
    ]


def _carried(
    was: list[list[tuple[State, list[str], type]]], saved: list[State], training: Training
) -> tuple[list[State], list[str]]:
    """What the optimizers of a training load, and the memories that are left behind, each with of how many
    parameters.
    """
    held: dict[str, tuple[State, type]] = {}
    for groups, state in zip(was, saved, strict=True):
        for (_, names, kind), group in zip(groups, state["param_groups"], strict=True):
            for name, number in zip(names, group["params"], strict=True):
                held[name] = state["state"].get(number, {}), kind
    left: Counter[str] = Counter()
    found = []
    for index, (optimizer, groups) in enumerate(zip(training.optimizers, _layout(training), strict=True)):
        own = optimizer.state_dict()
        for group, told, (_, names, _) in zip(optimizer.param_groups, own["param_groups"], groups, strict=True):
            for parameter, number, name in zip(group["params"], told["params"], names, strict=True):
                state, kind = held.get(name, ({}, type(optimizer)))
                if not state:
                    continue
                kept = _fitting(optimizer, group, parameter, state, kind, name)
                left.update(sorted(str(key) for key in state if key not in kept))
                own["state"][number] = kept
        if index < len(was) and _alike(was[index], groups):
            own["param_groups"] = [
                # What was not changed stays as it was saved: an optimizer may count in its groups.
                {**old, **{key: now[key] for key in now if now[key] != then[key]}}
                for old, (then, _, _), (now, _, _) in zip(saved[index]["param_groups"], was[index], groups, strict=True)
            ]
        found.append(own)
    return found, [f"{key} ({count})" for key, count in left.items()]


def _alike(one: list[tuple[State, list[str], type]], two: list[tuple[State, list[str], type]]) -> bool:
    """Whether two optimizers are of one class, and their groups have the same parameters and kinds of settings."""
    return [(set(group), *rest) for group, *rest in one] == [(set(group), *rest) for group, *rest in two]


def _fitting(
    optimizer: torch.optim.Optimizer, group: State, parameter: torch.Tensor, state: State, kind: type, name: str
) -> State:
    """Of the state of a parameter what an optimizer goes on with."""
    if not isinstance(optimizer, optim.Optimizer):
        if kind is not type(optimizer):
            raise _refused(name, f"the state of {kind.__name__} is none of {type(optimizer).__name__}")
        missing = _needed(optimizer, group) - set(state)
        if missing:
            raise _refused(name, f"it has no {', '.join(sorted(missing))}")
        return state
    expected = optimizer.fresh_state(parameter, group, device="meta")
    for key, fresh in expected.items():
        value = state.get(key)
        if key.startswith("pending"):  # made when a period begins, and summed where there is none any more
            continue
        if value is None:
            raise _refused(name, f"it has no memory {key!r}, only {', '.join(sorted(map(str, state)))}")
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
        if shape != tuple(fresh.shape):
            raise _refused(name, f"its memory {key!r} has the shape {list(shape)}, expected {list(fresh.shape)}")
    return {key: value for key, value in state.items() if key in expected or key.startswith("pending")}


def _needed(optimizer: torch.optim.Optimizer, group: State) -> set[str]:
    """What an optimizer of torch keeps of a parameter under the settings of a group: a step of one of its own tells."""
    if not type(optimizer).__module__.startswith("torch.optim"):
        return set()
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    known = inspect.signature(type(optimizer)).parameters
    twin: Any = type(optimizer)(
        [weight], **{name: value for name, value in group.items() if name in known.keys() - {"params"}}
    )
    twin.step(lambda: torch.zeros(()))
    return set(twin.state[weight])


def _check_model(weights: State, training: Training) -> None:
    own = {name: list(tensor.shape) for name, tensor in training.model.state_dict().items()}
    saved = {name: list(tensor.shape) for name, tensor in weights.items()}
    for name in [*own, *saved]:
        if own.get(name) != saved.get(name):
            raise _refused(name, f"its shape is {saved.get(name, 'none')}, expected {own.get(name, 'none')}")


def _refused(name: str, why: str) -> SettingsError:
    return SettingsError(
        f"the checkpoint cannot be carried over to these settings, {name}: {why}. Leave out the setting that changes "
        "it, or start a new run"
    )


def _facts(parent: RunFolder, spec: RunSpec, step: int, changed: list[str], left: list[str]) -> State:
    folder = str(parent.path.resolve())
    return {"format": FORMAT, "folder": folder, "run": spec.key, "step": step, "changed": changed, "left": left}


def _write(folder: RunFolder, settings: TrainSettings, training: Training, facts: State, record: Path) -> None:
    """Make the folder of a run that was stopped, the record up to there with it; its settings, which make it one, come
    last.
    """
    held = RunFolder.create(folder.path).hold(new=True)
    try:
        for path in (folder.metrics, folder.events):
            write_atomic(path, "")
        with LiveFiles(folder) as files:
            files.write(training)
            content = content_of(settings, files, training.state_dict())
        kept = Checkpoints(folder.checkpoints, f"seed{training.spec.seed}", settings.checkpoints)
        kept.save(training.steps_taken, content)
        if settings.record:
            spec = training.spec
            copy_record(record, record_of(folder.path, spec.seed), spec.key, training.steps_taken)
        write_atomic(folder.path / FORK, json.dumps(facts, indent=1) + "\n")
        write_atomic(folder.config, to_yaml(settings))
    finally:
        held.release()
