"""What the tests of every host share: a tiny language model without downloads, its text, and all bits of a run."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import pytest
import torch
from contract.members import MEMBERS, Member, over
from contract.problems import assert_equal, snapshot
from torch import Tensor, nn

__all__ = ["CLOSING", "accelerate", "assert_same", "build", "everything", "llama", "tables", "tokens", "transformers"]


def required(package: str) -> ModuleType:
    """A host; where nobody promised to install it, the test file that asks is skipped."""
    if os.environ.get("CI") or os.environ.get("NESTLEARN_HOSTS"):
        return importlib.import_module(package)
    return pytest.importorskip(package, reason=f"{package} is not installed: bash dev/test --hosts")


accelerate, transformers = required("accelerate"), required("transformers")

CLOSING = over(member for member in MEMBERS if member.closure)
"""The members that measure curvature and so need a closure."""

VOCABULARY = 48


def llama(seed: int = 0) -> nn.Module:
    """A causal language model of two layers with random weights, the same ones for the same seed."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8,
    )
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config)


def tokens(rows: int) -> list[dict[str, Tensor]]:
    """Random texts of eight tokens, in the form that Trainer and DataLoader take."""
    texts = torch.randint(VOCABULARY, (rows, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": text, "labels": text} for text in texts]


def tables(model: nn.Module) -> list[nn.Module]:
    """The embedding, which is no layer that can be watched, and the head."""
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def build(member: Member, model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """The member's optimizer over a language model."""
    return member.build(model, lr=0.01, elementwise=tables(model), **settings)


def everything(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Copies of all parameters and of all state, and the settings of the groups, learning rates included."""
    return snapshot(optimizer), optimizer.state_dict()["param_groups"]


def assert_same(optimizer: torch.optim.Optimizer, expected: tuple[dict[str, Tensor], list[dict[str, Any]]]) -> None:
    """Parameters, state and settings are those of another run, bit for bit."""
    values, settings = everything(optimizer)
    assert_equal(values, expected[0])
    assert settings == expected[1]
