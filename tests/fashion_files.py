"""A tiny Fashion-MNIST in the real files' format, so that no test needs the real one or a network."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nestlearn.tasks import fashion_mnist as module
from nestlearn.tasks.about import AboutFashionMnist
from nestlearn.tasks.found_files import FoundFile

__all__ = ["COUNTS", "idx", "install", "pixels_and_labels"]

COUNTS = {"train": 600, "test": 40}


def idx(numbers: Tensor) -> bytes:
    """Bytes in the idx format: two zeros, the type (8: bytes), the dimensions, each side, the entries."""
    sides = b"".join(side.to_bytes(4, "big") for side in numbers.shape)
    return bytes([0, 0, 8, numbers.ndim]) + sides + bytes(numbers.flatten().tolist())


def pixels_and_labels(part: str) -> tuple[Tensor, Tensor]:
    """Images [n, 28, 28] and labels [n], both uint8; the classes take turns, and each is bright in a row of its own."""
    count = COUNTS[part]
    generator = torch.Generator().manual_seed(count)
    labels = (torch.arange(count) % 10).to(torch.uint8)
    images = torch.randint(60, (count, 28, 28), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 2 * labels.long() + 4] += 150
    return images, labels


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FoundFile]:
    """Write the tiny files to ``folder / "fashion-mnist"``, make them the expected ones, and look for them there."""
    place = folder / "fashion-mnist"
    place.mkdir(parents=True)
    files = {}
    for part in ("train", "test"):
        for kind, numbers in zip(("images", "labels"), pixels_and_labels(part), strict=True):
            content, key = idx(numbers), f"{part} {kind}"
            files[key] = replace(
                module.FILES[key], sha256=hashlib.sha256(content).hexdigest(), folder=folder / "no package", mirrors=()
            )
            (place / files[key].name).write_bytes(gzip.compress(content))
    monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setattr(AboutFashionMnist, "data", tuple(files.values()))
    monkeypatch.setenv("NESTLEARN_DATA", str(folder))
    module.fashion_mnist.cache_clear()
    return files
