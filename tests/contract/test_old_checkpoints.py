"""Checkpoints that earlier commits wrote load and continue; contract/checkpoints/README.md says what the files are.

The bits of a continuation are those of the old commit where no sum of products is taken, no kernel of torch's writes,
and the processor has the instructions of the one that wrote the file. Elsewhere a matrix product may add in another
order, or a product and a sum be rounded once instead of twice, so that weights agree to a few units in the last place
of their movement.
"""

from __future__ import annotations

import copy
import io
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from .checkpoints.write import RUNS, Problem, capability, file_name, made, train, weights
from .members import MEMBERS, Member
from .problems import assert_equal, flat_state, snapshot, tensors_of
from .selections import CLASSES

ARCHIVES = sorted((Path(__file__).parent / "checkpoints").glob("*.zip"))
FAST = {file_name(member) for member in MEMBERS if not member.extra}
FEW = {file_name(member) for member in CLASSES if member.name in {"Adam", "Muon", "SecantMomentum"}}
WITHOUT_PRODUCTS = {"GradientDescent", "Momentum", "PreconditionedMomentum", "Adam"}
"""Classes whose rule is element-wise, unless a setting in `FOR_MATRICES` says otherwise."""

FOR_MATRICES = {"readout", "feature_map", "target"}

Made = tuple[Problem, torch.optim.Optimizer]


def files(fast: set[str] = FAST) -> dict[str, Any]:
    """Keywords of `pytest.mark.parametrize`: an archive and the name of a file in it; others than `fast` are slow."""
    found = [(archive, name) for archive in ARCHIVES for name in zipfile.ZipFile(archive).namelist()]
    values = [pytest.param(*each, marks=() if each[1] in fast else pytest.mark.slow) for each in found]
    ids = [f"{archive.stem}-{name.removesuffix('.pt')}" for archive, name in found]
    return {"argnames": ("archive", "name"), "argvalues": values, "ids": ids}


@cache
def unpacked(archive: Path, name: str) -> bytes:
    return zipfile.ZipFile(archive).read(name)


def opened(archive: Path, name: str) -> tuple[Member, str, list[dict[str, Any]]]:
    """The member of a file, the instructions of the processor that wrote it, and its runs."""
    tree = torch.load(io.BytesIO(unpacked(archive, name)), weights_only=True)
    return Member(**tree["member"]), tree["capability"], tree["runs"]


def fresh(member: Member, run: dict[str, Any]) -> Made:
    """Today's optimizer, built with the arguments of the file, over a network with the weights of the file."""
    problem, optimizer = made(member, period=run["period"])
    problem.load_state_dict(run["model"])
    return problem, optimizer


def resumed(member: Member, run: dict[str, Any]) -> Made:
    problem, optimizer = fresh(member, run)
    optimizer.load_state_dict(run["optimizer"])
    return problem, optimizer


def finish(member: Member, run: dict[str, Any], pair: Made, steps: int | None = None) -> dict[str, Tensor]:
    """Everything that the optimizer knows after the steps that the old commit took after the checkpoint, or fewer."""
    before, after = RUNS[run["period"]]
    train(member, *pair, range(before, before + (steps or after)))
    return snapshot(pair[1])


def is_exact(member: Member, written_on: str) -> bool:
    """Whether the continuation has the bits of the file."""
    elementwise = member.name in WITHOUT_PRODUCTS and not FOR_MATRICES & set(member.settings)
    return elementwise and written_on == capability()


@pytest.mark.parametrize(**files())
def test_the_state_is_that_of_the_file(archive: Path, name: str) -> None:
    member, _, runs = opened(archive, name)
    for run in runs:
        _, optimizer = resumed(member, run)
        saved, loaded = run["optimizer"], optimizer.state_dict()
        flat = dict(tensors_of(saved["state"]))
        assert {key: value.dtype for key, value in tensors_of(loaded["state"])} == {k: v.dtype for k, v in flat.items()}
        assert_equal(dict(tensors_of(loaded["state"])), flat)
        for ours, theirs in zip(loaded["param_groups"], saved["param_groups"], strict=True):
            assert {key: ours.get(key) for key in theirs} == theirs


@pytest.mark.parametrize(**files())
def test_it_continues_as_the_old_commit_did(archive: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    member, written_on, runs = opened(archive, name)
    for run in runs:
        pair = resumed(member, run)
        start = weights(pair[0])
        finish(member, run, pair)
        movement = (run["later"] - start).norm()
        assert movement > 1e-4
        assert (weights(pair[0]) - run["later"]).norm() <= 1e-12 * movement
    if is_exact(member, written_on):
        monkeypatch.setattr("nestlearn.optim.plan.fits", lambda kernel, parameter: False)
        for run in runs:
            pair = resumed(member, run)
            finish(member, run, pair)
            assert torch.equal(weights(pair[0]), run["later"])


@pytest.mark.parametrize(**files(FEW))
def test_it_may_be_loaded_again_or_copied(archive: Path, name: str) -> None:
    member, _, runs = opened(archive, name)
    for run in runs:
        expected = finish(member, run, resumed(member, run), 3)
        twice = resumed(member, run)
        twice[1].load_state_dict(run["optimizer"])
        assert_equal(finish(member, run, twice, 3), expected)
        pair = fresh(member, run)
        pair[1].load_state_dict(copy.deepcopy(run["optimizer"]))
        assert_equal(finish(member, run, pair, 3), expected)
        assert_equal(finish(member, run, copy.deepcopy(resumed(member, run)), 3), expected)


def defaults(member: Member) -> dict[str, Any]:
    """The settings of a group whose optimizer was given nothing but parameters, and the model where it must be."""
    problem = Problem(layers=member.model)
    group = member.cls(problem.parameters(), **({"model": problem} if member.model else {})).param_groups[0]
    return {key: value for key, value in group.items() if key != "params"}


def layout(member: Member, number: int, setting: str, value: Any) -> list[dict[str, torch.Size]] | None:
    """The names and shapes of the state if group `number` had `value`; None if such an optimizer is refused."""
    problem, optimizer = made(member)
    groups = [dict(group) for group in optimizer.param_groups]
    groups[number][setting] = value
    try:
        other = member.build(problem, groups)
    except ValueError:
        return None
    train(member, problem, other, [0])
    return [{key: leaf.shape for key, leaf in state.items()} for state in flat_state(other)]


@pytest.mark.parametrize(**files(FEW))
def test_a_setting_that_did_not_exist_yet_has_its_default(archive: Path, name: str) -> None:
    """The default is that of the class, since this is what the old class did, whatever today's optimizer was given.

    It is the first group that lacks a setting in one file, and the second in the next.
    """
    member, _, runs = opened(archive, name)
    run, standard = runs[0], defaults(member)
    number = sorted(zipfile.ZipFile(archive).namelist()).index(name) % 2
    expected = finish(member, run, resumed(member, run), 2)
    saved = run["optimizer"]["param_groups"][number]
    held = [{key: leaf.shape for key, leaf in state.items()} for state in run["optimizer"]["state"].values()]
    for setting in saved.keys() - {"params"}:
        pair, checkpoint = fresh(member, run), without(run, number, setting)
        if saved[setting] != standard[setting]:
            wanted = layout(member, number, setting, standard[setting])
            if wanted is None or any(not new.items() <= old.items() for new, old in zip(wanted, held, strict=True)):
                with pytest.raises(ValueError, match=r"load_state_dict|readout|objective"):
                    pair[1].load_state_dict(checkpoint)
                continue
        pair[1].load_state_dict(checkpoint)
        assert pair[1].param_groups[number][setting] == standard[setting], setting
        if saved[setting] == standard[setting]:
            assert_equal(finish(member, run, pair, 2), expected)


def without(run: dict[str, Any], number: int, setting: str) -> dict[str, Any]:
    """The checkpoint of a run in which group `number` lacks this setting."""
    groups = [dict(group) for group in run["optimizer"]["param_groups"]]
    del groups[number][setting]
    return {**run["optimizer"], "param_groups": groups}
