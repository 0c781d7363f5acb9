"""No test here may ask the network, and hosts share what they know of a process: each test starts without it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
import torch

from benchmarks.hosts.accelerate import forget

# Read once, when huggingface_hub is imported; a conftest.py runs before the test files beside it.
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection is refused, and is a failure even where the host would go on without it."""
    asked: list[object] = []

    def refuse(_: socket.socket, address: object) -> NoReturn:
        asked.append(address)
        raise ConnectionRefusedError(f"no test of hosts may connect, asked for {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert asked == []


@pytest.fixture(autouse=True)
def forgetful_hosts() -> Iterator[None]:
    """Whatever a host keeps for the process (device, accumulation, environment, threads) is dropped."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    yield
    forget()
    os.environ.clear()
    os.environ |= environment
    torch.set_num_threads(threads)
