"""What a record holds is what the optimizer did, it stays within its bounds, and the training is what it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn.errors import RunFolderError
from nestlearn.integrations import frozen, record_folder, recording

Make = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "DeepMomentum": lambda model: nl.optim.DeepMomentum(model.named_parameters(), hidden=4),
    "DeepMomentum2": lambda model: nl.optim.DeepMomentum(model.named_parameters(), hidden=4, levels=2),
    "Muon": lambda model: nl.optim.Muon(model.named_parameters(), weight_decay=0.1, maximize=True),
    "Adam": lambda model: nl.optim.Adam(model.named_parameters()),
    "DeepAdam": lambda model: nl.optim.DeepAdam(model.named_parameters()),
    "M3": lambda model: nl.optim.M3(model.named_parameters()),
    "SOAP": lambda model: nl.optim.SOAP(model.named_parameters()),
    "Nested": lambda model: nl.optim.Nested(model.named_parameters()),
    "LayerMomentum": lambda model: nl.optim.LayerMomentum(model.named_parameters(), model=model),
    "SecantMomentum": lambda model: nl.optim.SecantMomentum(model.named_parameters()),
    "period": lambda model: nl.optim.Muon(model.named_parameters(), period=2),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters()),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def trained(steps: int, model: nn.Module, optimizer: torch.optim.Optimizer, recorder: Any = None) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator)
        optimizer.zero_grad()
        loss = (model(inputs) - inputs[:, :3]).square().mean()
        loss.backward()
        if recorder is not None:
            recorder.loss(loss)
        optimizer.step()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines(folder / "writes.jsonl") if "step" in line]


def parameter(folder: Path, step: int, role: str) -> dict[str, Any]:
    content = json.loads((folder / "frozen" / f"{step}.json").read_text())
    return next(each for each in content["parameters"] if each["role"] == role)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_step_done_once_more_is_the_step_and_the_training_is_what_it_was(name: str, tmp_path: Path) -> None:
    models = [network(), network()]
    alone, recorded = (OPTIMIZERS[name](model) for model in models)
    with nl.record(recorded, tmp_path, every=1, freeze=1, share=1) as recorder:
        trained(4, models[1], recorded, recorder)
    trained(4, models[0], alone)
    assert all(torch.equal(one, two) for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert "observe" not in vars(recorded)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    for step in (2, 4):
        for each in json.loads((tmp_path / "frozen" / f"{step}.json").read_text())["parameters"]:
            assert each["memories"], each["note"]
            assert bool(each["note"]) == (name == "AdamW"), each["note"]


def test_a_frozen_step_tells_keys_answers_errors_writes_and_singular_values(tmp_path: Path) -> None:
    model = network()
    rule = nl.rules.chain(nl.rules.average(0.75), nl.rules.orthogonal(steps=12))
    optimizer = nl.optim.Optimizer(model.named_parameters(), lr=0.5, matrix=rule)
    with nl.record(optimizer, tmp_path, every=1, freeze=1, share=1) as recorder:
        trained(2, model, optimizer, recorder)
        before = optimizer.state[model[0].weight]["average.model.value"].clone()
        weight = model[0].weight.detach().clone()
        trained(1, model, optimizer, recorder)
    told = parameter(tmp_path, 3, "*.weight")
    gradient, after = model[0].weight.grad, optimizer.state[model[0].weight]["average.model.value"]
    (memory,) = told["memories"]
    for name, expected in (
        ("value", gradient),
        ("answer", before),
        ("error", before - gradient),
        ("write", after - before),
    ):
        found = memory[name]["value"] if name == "write" else memory[name]
        assert found["shape"] == [8, 6]
        torch.testing.assert_close(torch.tensor(found["cells"]), expected, rtol=1e-2, atol=1e-6)
    assert memory["surprise"] == pytest.approx(0.5 * float((before - gradient).square().mean()), rel=1e-3)
    torch.testing.assert_close(
        torch.tensor(memory["readout"]["singular before"]), torch.linalg.svdvals(after), rtol=1e-2, atol=1e-5
    )
    spread = told["update"]["singular"]  # of an orthogonal matrix: all directions alike
    assert len(spread) == 6 and max(spread) < 2 * min(spread)
    change = model[0].weight.detach() - weight
    assert told["weights"]["change"]["rms"] == pytest.approx(float(change.square().mean().sqrt()), rel=1e-3)
    assert told["weights"]["singular"] == pytest.approx(torch.linalg.svdvals(change).tolist(), rel=1e-3)


def test_a_row_has_the_surprise_and_the_update_of_every_memory_by_role(tmp_path: Path) -> None:
    model = network()
    optimizer = nl.optim.DeepMomentum(model.named_parameters(), hidden=4)
    with nl.record(optimizer, tmp_path, every=3, share=1) as recorder:
        trained(2, model, optimizer, recorder)
        before = [model[number].weight.detach().clone() for number in (0, 2, 4)]
        trained(1, model, optimizer, recorder)
    lanes, row = lines(tmp_path / "writes.jsonl")[-2:]
    names = [f"{lane['level']}/{lane['memory']}" for lane in lanes["lanes"]]
    assert row["step"] == 3 and "1/matrix" in names and "1/element" in names and "2/matrix.momentum" in names
    assert {lane["role"] for lane in lanes["lanes"]} == {"*.weight", "*.bias"}
    momentum, weights = names.index("2/matrix.momentum"), names.index("1/matrix")
    assert lanes["lanes"][weights]["parameters"] == 3 and lanes["lanes"][weights]["part"] is None
    switched = lanes["lanes"][momentum]
    assert (switched["part"], switched["along"]) == ("momentum", ["matrix.second_moment"])
    assert row["surprise"][momentum] == pytest.approx(float(optimizer.surprise["momentum"]), rel=1e-3)
    moved = [model[number].weight.detach() - was for number, was in zip((0, 2, 4), before, strict=True)]
    ratio = torch.cat([each.flatten() for each in moved]).norm() / torch.cat([each.flatten() for each in before]).norm()
    assert row["update"][weights] == pytest.approx(float(ratio), rel=1e-3)


def test_losses_are_written_where_the_step_is_looked_at_and_validation_at_once(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nl.record(optimizer, tmp_path, every=2, share=1, run="mine") as recorder:
        trained(5, model, optimizer, recorder)
        recorder.loss(0.5, split="validation")
        with pytest.raises(ValueError, match=r"loss: expected one number, got a tensor of the shape \[2\]"):
            recorder.loss(torch.ones(2))
        with pytest.raises(ValueError, match="'train' or 'validation', got 'test'"):
            recorder.loss(0.5, split="test")
    points = lines(tmp_path / "metrics.jsonl")
    assert [(each["kind"], each["step"]) for each in points] == [
        ("train", 2),
        ("train", 4),
        ("train", 5),
        ("validation", 5),
    ]
    assert {each["run"] for each in points} == {"mine"} and points[-1]["loss"] == 0.5


def test_a_recorder_that_has_used_its_share_leaves_looks_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01  # each look at the clock takes that long, and nothing else takes any time
        return now

    monkeypatch.setattr(recording, "perf_counter", clock)
    model = network()
    optimizer = nl.optim.Muon(model.parameters())
    with nl.record(optimizer, tmp_path, every=1, freeze=1, share=0.5) as recorder:
        for step in range(60):
            trained(1, model, optimizer)
            assert recorder.step == step + 1
        share = recorder.spent / (now - 0.01)
    assert 2 < len(rows(tmp_path)) < 40 and share < 0.6
    assert len(list((tmp_path / "frozen").iterdir())) < len(rows(tmp_path))


def test_a_step_that_is_asked_for_is_frozen_whatever_is_due(tmp_path: Path) -> None:
    model = network()
    optimizer = nl.optim.Adam(model.named_parameters())
    with nl.record(optimizer, tmp_path, every=1000, freeze=0) as recorder:
        trained(2, model, optimizer)
        recorder.freeze()
        trained(2, model, optimizer)
    assert [path.name for path in (tmp_path / "frozen").iterdir()] == ["3.json"]


def test_a_long_record_becomes_coarser_and_not_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_folder, "FROZEN_MOST", 4)
    lanes = [{"name": "matrix/w", "level": 1, "memory": "matrix", "role": "w", "period": 1, "parameters": 1}]
    with record_folder.RecordFolder(tmp_path, "mine", {}, start=0, most=8192) as folder:
        for step in range(1, 2001):
            if step % folder.thinned == 0:  # as a recorder does
                folder.row(step, step / 10, lanes, [None], [float(step)])
                folder.loss(step, step / 10, "train", 1.0)
            assert (tmp_path / "writes.jsonl").stat().st_size <= 8192
            if step % 100 == 0:
                folder.freeze(step, {"parameters": []})
        assert folder.thinned > 8
    found = rows(tmp_path)
    assert found[-1]["step"] > 1900 and found[0]["step"] < 100 and len(found) > 40
    assert all(row["update"] == [float(row["step"])] for row in found)
    assert lines(tmp_path / "writes.jsonl")[0] == {"lanes": lanes}
    kept = sorted(int(path.stem) for path in (tmp_path / "frozen").iterdir())
    assert len(kept) <= 4 and kept[0] == 100 and kept[-1] == 2000


def test_a_record_that_goes_on_becomes_coarser_from_its_start_on(tmp_path: Path) -> None:
    lane = {"name": "matrix/w", "level": 1, "memory": "matrix", "role": "w", "period": 1, "parameters": 1}
    for start, lanes in (0, [lane]), (40, [lane]), (80, [lane, lane]):
        with record_folder.RecordFolder(tmp_path, "mine", {}, start=start, most=8192) as folder:
            for step in range(start + 1, start + 41):
                folder.row(step, 0.0, lanes, [None] * len(lanes), [float(step)] * len(lanes))
    assert folder.thinned >= 2
    counts, wide = [], 0  # of lanes, by row
    for each in lines(tmp_path / "writes.jsonl"):
        wide = len(each["lanes"]) if "lanes" in each else wide
        counts += [] if "lanes" in each else [wide]
    found = rows(tmp_path)
    assert found[0]["step"] <= 2 and found[-1]["step"] == 120 and len(found) < 100
    assert [len(row["update"]) for row in found] == counts == [1 + (row["step"] > 80) for row in found]


def recorded_in(folder: Path, *pieces: tuple[int, int]) -> list[int]:
    """The steps of a record with such beginnings and ends, each piece going on where a run was resumed."""
    lanes = [{"name": "matrix/w", "level": 1, "memory": "matrix", "role": "w", "period": 1, "parameters": 1}]
    for start, end in pieces:
        with record_folder.RecordFolder(folder, "mine", {}, start=start, most=8192) as record:
            for step in range(start + 1, end + 1):
                if step % record.thinned == 0:  # as a recorder does
                    record.row(step, 0.0, lanes, [None], [1.0])
    return [row["step"] for row in rows(folder)]


def test_a_record_that_was_resumed_is_as_coarse_as_one_that_was_not(tmp_path: Path) -> None:
    whole = recorded_in(tmp_path / "whole", (0, 2000))
    pieces = recorded_in(tmp_path / "pieces", (0, 1000), (900, 1500), (1450, 1900), (1900, 2000))
    said = [json.loads((tmp_path / each / "record.json").read_text())["thinned"] for each in ("whole", "pieces")]
    assert said[0] == said[1] >= 8
    gaps = [{b - a for a, b in pairwise(steps)} for steps in (whole, pieces)]
    assert min(gaps[1]) >= said[0] // 2 and max(gaps[1]) <= 2 * max(gaps[0])
    assert abs(len(whole) - len(pieces)) <= len(whole) // 10
    # From its beginning it is a new record.
    assert recorded_in(tmp_path / "whole", (0, 5)) == [1, 2, 3, 4, 5]


def test_a_record_goes_on_from_a_step_and_takes_back_what_came_later(tmp_path: Path) -> None:
    model = network()
    optimizer = nl.optim.Muon(model.named_parameters())
    with nl.record(optimizer, tmp_path, every=1, freeze=1, share=1) as recorder:
        trained(5, model, optimizer, recorder)
        with pytest.raises(RunFolderError, match="written by another process"):
            nl.record(optimizer, tmp_path)
    with (tmp_path / "writes.jsonl").open("a") as file:
        file.write('{"step": 6, "sec')  # a process was killed here
    with nl.record(optimizer, tmp_path, every=1, freeze=0, share=1, start=3) as recorder:
        trained(1, model, optimizer, recorder)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert sorted(int(path.stem) for path in (tmp_path / "frozen").iterdir()) == [1, 2, 3]


def test_a_step_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    model = network()
    optimizer = nl.optim.Muon(model.named_parameters())
    with nl.record(optimizer, tmp_path, every=1, freeze=1, share=1):
        model(torch.ones(2, 6)).sum().backward()
        model[0].weight.grad.fill_(torch.nan)
        with pytest.raises(FloatingPointError):
            optimizer.step()
        trained(1, model, optimizer)
    assert "observe" not in vars(optimizer) and [row["step"] for row in rows(tmp_path)] == [1]


def test_what_differs_from_the_step_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = frozen.watched
    other = nl.rules.written(nl.rules.average(0.1))
    monkeypatch.setattr(frozen, "watched", lambda rule, notes, path: real(rule if path else other, notes, path))
    model = network()
    optimizer = nl.optim.Optimizer(model.parameters(), lr=0.1, matrix=nl.rules.average(0.9))
    with nl.record(optimizer, tmp_path, every=1, freeze=1, share=1):
        trained(1, model, optimizer)
    told = parameter(tmp_path, 1, "8×6")
    assert told["memories"] == [] and "average.model.value otherwise" in told["note"]


def test_a_record_that_cannot_be_written_ends_with_a_warning_and_the_training_goes_on(tmp_path: Path) -> None:
    model = network()
    optimizer = nl.optim.Muon(model.named_parameters())
    recorder = nl.record(optimizer, tmp_path / "gone", every=1, freeze=1, share=1)
    trained(1, model, optimizer)
    shutil.rmtree(tmp_path / "gone")
    with pytest.warns(RuntimeWarning, match="no more is recorded.*was removed while it was being written"):
        trained(1, model, optimizer)
    trained(2, model, optimizer)
    recorder.loss(0.5, split="validation")
    assert "observe" not in vars(optimizer)
    assert recorder.step == 2 and optimizer.taken(model[0].weight) == 4


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    for settings, message in (
        ({"every": 0}, "every: expected a whole number from 1, got 0"),
        ({"freeze": -1}, "freeze: expected a whole number from 0, got -1"),
        ({"share": 0}, "share: expected a number above 0"),
        ({"most": 10}, "most: expected at least 4,096 bytes, got 10"),
    ):
        with pytest.raises(ValueError, match=message):
            nl.record(optimizer, tmp_path / "none", **settings)
    assert not (tmp_path / "none").exists()


def test_cells_keep_the_largest_entry_with_its_sign() -> None:
    matrix = torch.zeros(100, 70)
    matrix[99, 0], matrix[3, 69] = -5.0, 4.0
    told = frozen.summary(matrix)
    cells = torch.tensor(told["cells"])
    assert cells.shape == (16, 16) and cells[15, 0] == -5 and cells[0, 15] == 4 and cells.count_nonzero() == 2
    assert told["largest"] == 5 and told["rms"] == pytest.approx((41 / 7000) ** 0.5)
