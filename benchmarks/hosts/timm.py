"""timm: an optimizer by the name that it is registered under, decay by layers, its schedule, saver and resume."""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, Bits, Mode, bits, claim_same, installed, step
from nestlearn.integrations.timm import register

__all__ = ["MODES", "timm"]

STEPS, MIDDLE, CLASSES, LAYER_DECAY = 4, 2, 3, 0.7


def timm() -> Any:
    """The package. It needs torchvision to read images, which nothing here does: where there is none, or one of
    another build than torch's, timm gets names without content in its place while it is imported.
    """
    try:
        return installed("timm")
    except Exception:  # noqa: BLE001 - a torchvision of another build raises RuntimeError
        with _without_images():
            return installed("timm")


class _Named(type):
    """The kind of classes that have every name, each a class like them."""

    def __getattr__(cls, name: str) -> Any:
        return _made(name)


class _Anything(ModuleType):
    """A module that has every name."""

    __version__ = "0"

    def __getattr__(self, name: str) -> Any:
        return _made(name)


def _made(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Named(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        wanted = name.partition(".")[0] in {"torchvision", "PIL"}
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: Any) -> ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def _without_images() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Anything)]:
            del sys.modules[name]


def _vit(seed: int) -> Any:
    """A vision transformer of two blocks for images of 8x8, with position and class token."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
        return timm().create_model("vit_tiny_patch16_224", num_classes=CLASSES, **sizes)


def _loss(model: nn.Module, index: int) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    images, labels = torch.randn(4, 3, 8, 8, generator=generator), torch.randint(CLASSES, (4,), generator=generator)
    return nn.functional.cross_entropy(model(images), labels)


def _name(choice: Choice) -> str:
    return f"nl-{choice.kind.__name__.lower()}" if choice.ours else "adamw"


class _Run:
    """What timm's script for training makes of ``--opt``, ``--layer-decay`` and ``--sched cosine``."""

    def __init__(self, choice: Choice, seed: int = 0) -> None:
        self.choice, self.model = choice, _vit(seed)
        keywords = choice.keywords(self.model, [self.model.pos_embed, self.model.cls_token])
        self.optimizer = installed("timm.optim").create_optimizer_v2(
            self.model, opt=_name(choice), lr=LR, weight_decay=0.1, layer_decay=LAYER_DECAY, **keywords
        )
        self.schedule = installed("timm.scheduler").CosineLRScheduler(self.optimizer, STEPS, t_in_epochs=False)

    def train(self, steps: range) -> _Run:
        """Some steps."""
        for index in steps:
            step(
                self.choice,
                self.optimizer,
                lambda index=index: _loss(self.model, index),
                lambda: nn.utils.clip_grad_norm_(self.model.parameters(), 0.5),
            )
            self.schedule.step_update(index + 1)
        return self


def _resumes(choice: Choice, folder: Path) -> None:
    """A checkpoint of timm's saver, resumed by timm in new objects, trains to the same bits; a plain loop does too."""
    timm()
    register()
    logging.getLogger("timm").setLevel(logging.WARNING)
    folder.mkdir(exist_ok=True)
    whole = _Run(choice).train(range(MIDDLE))
    saver = installed("timm.utils").CheckpointSaver(
        whole.model, whole.optimizer, args=argparse.Namespace(model="vit"), checkpoint_dir=str(folder)
    )
    saver.save_checkpoint(epoch=0)
    end = bits(whole.train(range(MIDDLE, STEPS)).optimizer)
    resumed = _Run(choice, seed=99)
    installed("timm.models").resume_checkpoint(
        resumed.model, str(folder / "last.pth.tar"), resumed.optimizer, log_info=False, weights_only=False
    )
    resumed.schedule.step_update(MIDDLE)
    claim_same("the resumed run", bits(resumed.train(range(MIDDLE, STEPS)).optimizer), end)
    claim_same("a plain loop", _plain(choice, whole), end, settings=False)


def _plain(choice: Choice, whole: _Run) -> Bits:
    """Rates of 0.7 to the power of the layers above, and no decay of vectors, said by hand."""
    model = _vit(0)
    names = {id(each): name for name, each in whole.model.named_parameters()}
    groups = []
    for group in whole.optimizer.param_groups:
        found = [names[id(each)] for each in group["params"]]
        above = {_above(name) for name in found}
        decays = {model.get_parameter(name).ndim > 1 and name not in {"pos_embed", "cls_token"} for name in found}
        if len(above) > 1 or len(decays) > 1:
            raise AssertionError(f"a group of different layers or of decay and none: {found}")
        scale = LAYER_DECAY ** above.pop()
        decay = 0.1 if decays.pop() else 0.0
        groups.append({"params": [model.get_parameter(name) for name in found], "part": scale, "weight_decay": decay})
    keywords = choice.keywords(model, [model.pos_embed, model.cls_token])
    optimizer: Any = choice.kind(groups, lr=LR, **keywords)
    for index in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * (LR * group["part"]) * (1 + math.cos(math.pi * index / STEPS))
        step(
            choice,
            optimizer,
            lambda index=index: _loss(model, index),
            lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.5),
        )
    return bits(optimizer)


def _above(name: str) -> int:
    """How many layers are above a parameter, of embeddings, two blocks, the second with the norm, and the head."""
    if name.startswith("blocks."):
        return 2 - int(name.split(".")[1])
    return {"head": 0, "norm": 1}.get(name.partition(".")[0], 3)


MODES = (Mode("timm", "", ("timm",), _resumes, costly=True),)
