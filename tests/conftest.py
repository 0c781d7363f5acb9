"""What every test shares: fast tests before slow ones, the same random numbers each time, and no state left behind."""

import gc
import os
from collections.abc import Iterator

import pytest

# What the terminal is like that the tests were started from must not matter, to child processes neither. It is
# forgotten here and not in a fixture, as typer looks when it is imported.
TERMINAL = ("COLUMNS", "LINES", "TERMINAL_WIDTH", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
for variable in (*TERMINAL, "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(variable, None)


def pytest_configure(config: pytest.Config) -> None:
    """Set hypothesis up, but not in the process that only hands tests out: the others wait until it has started."""
    if config.getoption("dist", "no") != "no":
        return
    from hypothesis import settings
    from hypothesis.internal.conjecture import providers

    # Shared machines are too uneven for a deadline per example, and a failure in CI has to be repeatable.
    settings.register_profile("local", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("ci" if os.environ.get("CI") else "local")
    # Hypothesis reads the source of every module of ours for numbers to try. That takes ten seconds, and what it draws
    # then depends on which modules a process has loaded. It has no setting against it.
    if hasattr(providers, "is_local_module_file"):
        providers.is_local_module_file = lambda path: False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep modules and tests out of Python's search for garbage: they stay, and are most of what it would look at."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests last (the sort is stable), so that a plain mistake shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session", autouse=True)
def no_power_failure() -> Iterator[None]:
    """What is written may stay in memory: runs are ended in every way here, but not by the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def isolated_torch() -> Iterator[None]:
    """Start each test from one seed, and give torch's global settings back as they were."""
    import torch

    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    # `torch.manual_seed` keeps a stack trace for each kind of device that is not in use yet: a third of an empty test.
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(gradients)
