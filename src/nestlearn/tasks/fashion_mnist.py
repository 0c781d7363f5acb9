"""Fashion-MNIST: real images that a laptop can train on, with an MLP or a small vision transformer.

60,000 training and 10,000 test images of 28 x 28 grey pixels in ten classes of clothing (H. Xiao, K. Rasul,
R. Vollgraf, 2017, arXiv 1708.07747). The test split is the official test set. The training set is in random order, so
its last twelfth, 5,000 images, is the validation split, and every split's first images are a fair sample of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.layers.sequence import full
from nestlearn.tasks.about import AboutFashionMnist
from nestlearn.tasks.data_file import DataFile
from nestlearn.tasks.fashion_files import FILES
from nestlearn.tasks.networks import VisionTransformer, check_heads, image_classifier
from nestlearn.tasks.task import Task, seeded, shuffled, size

__all__ = ["FashionMnistTask", "fashion_mnist"]

SIDE = 28
MEAN, SPREAD = 0.2860, 0.3530  # of all training pixels, scaled to 0..1


def _numbers(file: DataFile) -> Tensor:
    """The numbers of an idx file, uint8: a header of big-endian whole numbers (type, sides), then the entries."""
    content = bytearray(file.read())
    sides = [int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in range(1, content[3] + 1)]
    return torch.frombuffer(content, dtype=torch.uint8)[4 * (1 + len(sides)) :].view(sides)


@lru_cache(maxsize=1)
def fashion_mnist() -> dict[str, tuple[Tensor, Tensor]]:
    """The images as ``{split: (pixels [n, 784] uint8, labels [n] int64)}``; 55,000 / 5,000 / 10,000 of them.

    Raises:
        DataFileError: a file is missing and cannot be downloaded, or is another than expected.
    """
    train, test = (
        (_numbers(FILES[f"{part} images"]).flatten(1), _numbers(FILES[f"{part} labels"]).long())
        for part in ("train", "test")
    )
    first = len(train[1]) - len(train[1]) // 12
    return {
        "train": (train[0][:first], train[1][:first]),
        "validation": (train[0][first:], train[1][first:]),
        "test": test,
    }


@dataclass(frozen=True, kw_only=True)
class FashionMnistTask(AboutFashionMnist, Task):
    """Fashion-MNIST. Figures: ``loss`` (nats) and ``accuracy`` (percent).

    ``network`` is an MLP 784-(4 dim)-...-10 with ``depth`` hidden layers, or a vision transformer of ``depth`` blocks
    on patches of ``patch`` x ``patch`` pixels. The first ``train_images`` images are trained on, the first
    ``validation_images`` and ``test_images`` of their splits are judged.
    """

    width: ClassVar[str | None] = "dim"

    network: str = size("mlp", choices=("mlp", "vit"))
    dim: int = 64
    depth: int = 2
    heads: int = 4
    patch: int = 7
    batch: int = 64
    train_images: int = size(55000, least=1, most=55000)
    validation_images: int = size(2000, least=1, most=5000)
    test_images: int = size(10000, least=1, most=10000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch > self.train_images:
            raise ValueError(f"expected a batch within the {self.train_images} train_images, got batch={self.batch}")
        if self.network == "vit":
            check_heads(self.dim, self.heads)
            if SIDE % self.patch:
                raise ValueError(f"expected a patch that divides the side of {SIDE} pixels, got patch={self.patch}")

    def build(self, seed: int) -> nn.Module:
        def network() -> nn.Module:
            if self.network == "mlp":
                return image_classifier(SIDE * SIDE, 4 * self.dim, self.depth)
            return VisionTransformer(SIDE, self.patch, self.dim, self.depth, self.heads)

        return seeded(seed, network).to(device=self.device, dtype=self.dtype)

    def ends(self, model: nn.Module) -> list[nn.Module]:
        return [model.patches, model.head] if isinstance(model, VisionTransformer) else []

    def _batch(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        scaled = pixels.to(self.device, torch.float32).sub_(255.0 * MEAN).div_(255.0 * SPREAD)
        return scaled.to(self.dtype), labels.to(self.device)

    def batches(self, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, labels = fashion_mnist()["train"]
        for chosen in shuffled(min(self.train_images, len(labels)), self.batch, seed, start):
            yield self._batch(pixels[chosen], labels[chosen])

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(full(model(batch[0])), batch[1])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        count = {"validation": self.validation_images, "test": self.test_images}[split]
        pixels, labels = (part[:count] for part in fashion_mnist()[split])
        loss = right = torch.zeros((), dtype=torch.float64)
        for piece in torch.arange(len(labels)).split(500):
            images, wanted = self._batch(pixels[piece], labels[piece])
            logits = full(model(images))
            loss = loss + F.cross_entropy(logits, wanted, reduction="sum").double().cpu()
            right = right + (logits.argmax(-1) == wanted).sum().cpu()
        return {"loss": loss.item() / len(labels), "accuracy": 100.0 * right.item() / len(labels)}
