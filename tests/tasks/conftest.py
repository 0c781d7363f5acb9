"""Fixtures for the tests of tasks: a tiny Fashion-MNIST in the place of the real one."""

from collections.abc import Iterator
from pathlib import Path

import fashion_files
import pytest

from nestlearn.tasks.fashion_mnist import fashion_mnist
from nestlearn.tasks.found_files import FoundFile


@pytest.fixture
def tiny_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, FoundFile]]:
    """The tiny files, by part and kind, such as "train images"."""
    yield fashion_files.install(tmp_path / "data", monkeypatch)
    fashion_mnist.cache_clear()
