"""When an optimizer is measured, where the numbers go, and that nothing happens where nobody asked."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from needed import needs
from torch import nn

import nestlearn as nl
from nestlearn.errors import MissingPackageError
from nestlearn.integrations import logging
from nestlearn.integrations.logging import check_tracker, log
from nestlearn.integrations.places import copies
from nestlearn.integrations.scalars import scalars

NUMBERS = {"surprise/2/matrix.momentum": 0.25, "update/1/matrix": 0.5}


def trained(steps: int, optimizer: torch.optim.Optimizer, layer: nn.Module) -> None:
    for number in range(steps):
        optimizer.zero_grad()
        layer(torch.full((3, 4), float(number + 1))).square().sum().backward()
        optimizer.step()


def test_every_so_many_steps_the_step_itself_is_measured() -> None:
    layers = [nn.Linear(4, 3), nn.Linear(4, 3)]
    layers[1].load_state_dict(layers[0].state_dict())
    logged, alone = (nl.optim.Muon(layer.parameters()) for layer in layers)
    sent: list[tuple[int, dict[str, float]]] = []
    handle = log(logged, lambda numbers, step: sent.append((step, dict(numbers))), every=3, start=4)
    trained(6, logged, layers[0])
    handle.remove()
    trained(3, logged, layers[0])
    assert [step for step, _ in sent] == [6, 9]

    trained(4, alone, layers[1])  # the fifth step is the ninth, and is measured by hand
    before = copies(alone)
    layers[1](torch.full((3, 4), 5.0))
    alone.zero_grad()
    layers[1](torch.full((3, 4), 5.0)).square().sum().backward()
    alone.step()
    assert sent[1][1] == scalars(alone, before)


def test_weights_are_copied_at_the_steps_that_are_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(logging, "copies", lambda *given, **more: made.append(given) or copies(*given, **more))
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    sent: list[int] = []
    log(optimizer, lambda numbers, step: sent.append(step), every=4)
    trained(9, optimizer, layer)
    assert sent == [4, 8] and len(made) == 2


def test_what_is_trained_is_the_same_with_and_without() -> None:
    weights = []
    for logged in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        optimizer = nl.optim.DeepMomentum(layer.parameters(), hidden=4)
        if logged:
            log(optimizer, lambda numbers, step: None, every=1, memories=True)
        trained(4, optimizer, layer)
        weights.append(layer.weight)
    assert torch.equal(*weights)


def test_memories_are_measured_when_asked_for_and_a_group_that_came_later_too() -> None:
    layer, later = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
    optimizer = nl.optim.Muon(layer.parameters())
    sent: list[dict[str, float]] = []
    log(optimizer, lambda numbers, step: sent.append(dict(numbers)), every=1, memories=True, spectrum=False)
    trained(2, optimizer, layer)
    assert "update/2/matrix.momentum" not in sent[0] and "update/2/matrix.momentum" in sent[1]
    later.weight.data.fill_(100.0)
    optimizer.add_param_group({"params": later.parameters()})
    trained(1, optimizer, layer)
    assert sent[2]["size/1/matrix"] > 50 and not any(name.startswith("spectrum/") for each in sent for name in each)


def test_a_step_that_fails_sends_nothing_and_leaves_no_copy_behind() -> None:
    layer = nn.Linear(4, 3)
    optimizer = nl.optim.Muon(layer.parameters())
    sent: list[int] = []
    handle = log(optimizer, lambda numbers, step: sent.append(step), every=1)
    layer.weight.grad = torch.full_like(layer.weight, torch.nan)
    with pytest.raises(FloatingPointError):
        optimizer.step()
    trained(1, optimizer, layer)
    assert sent == [1] and handle.step == 1


@pytest.mark.parametrize("every", [0, -1, 2.0, True])
def test_steps_are_counted_in_whole_numbers(every: Any) -> None:
    with pytest.raises(ValueError, match="every: expected a whole number of steps from 1"):
        log(torch.optim.SGD([nn.Parameter(torch.ones(2))]), print, every=every)


# ------------------------------------------------------------------------------------------------------------ trackers


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No connection but one between processes of this machine; asking for a name counts too."""
    asked: list[object] = []
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or address[0] == "127.0.0.1":
            return connect(self, address)
        asked.append(address)
        raise ConnectionRefusedError(f"asked for {address}")

    def unknown(*given: Any, **more: Any) -> None:
        asked.append(given)
        raise socket.gaierror(f"asked for {given}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    yield
    assert asked == []


def test_tensorboard_has_the_numbers_and_hides_what_a_resumed_run_says_again(tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with logging.tensorboard(tmp_path / "new") as tracker:
        tracker(NUMBERS, 3)
        tracker({"update/1/matrix": 0.75}, 6)
    with logging.tensorboard(tmp_path / "new", start=3) as tracker:
        tracker({"update/1/matrix": 0.125}, 6)
    found = EventAccumulator(str(tmp_path / "new")).Reload()
    assert set(found.Tags()["scalars"]) == set(NUMBERS)
    points = [(event.step, event.value) for event in found.Scalars("update/1/matrix")]
    assert points == [(3, 0.5), (6, 0.125)]


def test_trackio_keeps_the_numbers_here_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_network: None
) -> None:
    needs("trackio")
    (storage,) = needs("trackio.sqlite_storage")
    # Read once, when trackio is imported.
    for name in [name for name in sys.modules if name.startswith("trackio.")]:
        for own in ("TRACKIO_DIR", "MEDIA_DIR"):
            if hasattr(sys.modules[name], own):
                monkeypatch.setattr(sys.modules[name], own, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    for step in (3, 6):  # the second continues the first
        with logging.trackio("mine", "first") as tracker:
            tracker(NUMBERS, step)
    (file,) = tmp_path.glob("*.db")
    rows = sqlite3.connect(file).execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert [(name, step, json.loads(metrics)) for name, step, metrics in rows] == [
        ("first", 3, NUMBERS), ("first", 6, NUMBERS)
    ]  # fmt: skip
    assert capsys.readouterr().out == "" and os.environ["TRACKIO_SPACE_ID"] == "somebody/space"
    assert storage.SQLiteStorage.get_runs("mine")


@pytest.mark.slow
def test_wandb_stays_offline(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (wandb,) = needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    with logging.wandb("mine", "first", folder=tmp_path / "new") as tracker:
        tracker(NUMBERS, 3)
        tracker({"update/1/matrix": 0.75}, 6)
    wandb.teardown()  # its own process writes, and has the last of it on the disk when it ends
    (file,) = (tmp_path / "new" / "wandb").glob("offline-run-*/*.wandb")
    assert history(file.read_bytes()) == [{**NUMBERS, "_step": 3}, {"update/1/matrix": 0.75, "_step": 6}]


def history(data: bytes) -> list[dict[str, float]]:
    """The rows in a file of wandb: after seven bytes, records in pieces, each behind its checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, whole, found = 7, b"", []
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        whole, place = whole + data[place + 7 : place + 7 + size], place + 7 + size
        if kind in (1, 4):  # all of a record, or its last piece
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                rows = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                found.append({name: value for name, value in rows.items() if name not in ("_timestamp", "_runtime")})
    return found


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_package_that_is_missing_is_answered_with_the_line_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logging.PACKAGES, name, "not_there_at_all")
    with pytest.raises(MissingPackageError, match=rf'logging to {name} needs .*: pip install "nestlearn\[log\]"'):
        check_tracker(name)
    check_tracker("none")
