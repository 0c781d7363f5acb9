"""What every test shares: fast tests before slow ones, the same random numbers each time, and no state left behind."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from hypothesis.internal.conjecture import providers

# Shared machines are too uneven for a deadline per example, and a failure in CI has to be repeatable.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# Hypothesis reads the source of every module of ours for numbers to try. That takes ten seconds, and what it draws then
# depends on which modules a process has loaded. It has no setting against it.
if hasattr(providers, "is_local_module_file"):
    providers.is_local_module_file = lambda path: False

settings.load_profile("ci" if os.environ.get("CI") else "local")

# What the terminal is like that the tests were started from must not matter, to child processes neither. It is
# forgotten here and not in a fixture, as typer looks when it is imported.
TERMINAL = ("COLUMNS", "LINES", "TERMINAL_WIDTH", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
for variable in (*TERMINAL, "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(variable, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests last (the sort is stable), so that a plain mistake shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def isolated_torch() -> Iterator[None]:
    """Start each test from one seed, and give torch's global settings back as they were."""
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(gradients)
