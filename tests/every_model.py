"""The language models that every contract runs over, in the settings in which they differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nestlearn.models import MODELS, LanguageModel

__all__ = ["CASES", "MEMORIES", "every_model", "model", "named", "text"]

CONTINUUM = {"periods": (4, 8), "feed_forward": {"hidden": 12}}
LEARNS = {"hidden": 12, "objective": "next_token"}
CASES = {
    "transformer": {},
    "gated_delta_net": {},
    "gated_delta_net, omega, momentum": {"rule": "omega", "inner_momentum": True, "tied": True},
    "titans": {"chunk": 4},
    "titans, query, momentum, l2": {"chunk": 4, "modify_query": True, "inner_momentum": True, "objective": "l2"},
    "titans of one memory": {"self_modifying": False, "chunk": 4},
    "hope": {"chunk": 4, **CONTINUUM},
    "hope, mlp": {"chunk": 4, "memory": "mlp", "variant": "nested", **CONTINUUM},
    "hope, mostly fixed": {"chunk": 4, "self_modifying": ("eta",), "dgd": False, "retention": 0.9, **CONTINUUM},
    "hope, next token": {"chunk": 4, **CONTINUUM, "feed_forward": LEARNS},
    "hope_attention": {"variant": "headwise", **CONTINUUM},
    "hope_attention, next token": {"variant": "nested", **CONTINUUM, "feed_forward": LEARNS},
    "hope_attention, headwise, next token": {"variant": "headwise", **CONTINUUM, "feed_forward": LEARNS},
}
QUICK = ("transformer", "gated_delta_net", "titans", "hope_attention", "hope, next token")

every_model = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
"""Decorates a test of every model; what only sets other switches of them is slow."""

MEMORIES = [name for name in CASES if "attention" not in name and name != "transformer"]


def named(case: str) -> str:
    return case.split(",")[0].split()[0]


def model(case: str, dtype: torch.dtype = torch.float64, **options) -> LanguageModel:
    torch.manual_seed(0)
    return MODELS[named(case)](**{"vocab_size": 17, "dim": 16, "depth": 2, "heads": 2, **CASES[case], **options}).to(
        dtype
    )


def text(time: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randint(17, (batch, time), generator=torch.Generator().manual_seed(seed))
