"""The Trainer of transformers saves and resumes every optimizer bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contract.members import OPEN, Member
from torch import nn

from .common import CLOSING, assert_same, build, everything, llama, tokens, transformers

STEPS, MIDDLE = 6, 3


def arguments(folder: Path) -> Any:
    """Six steps with a cosine schedule, clipping and weight decay, and a checkpoint in the middle."""
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        save_steps=MIDDLE,
        per_device_train_batch_size=4,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        max_grad_norm=0.1,
        weight_decay=0.1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )


def choice(member: Member) -> tuple[Any, dict[str, Any]]:
    """The class where parameters are all it needs, else a factory of a function that is given the model too."""
    if not member.model:
        return member.cls, {"lr": 0.01, **member.settings}

    def factory() -> Callable[..., torch.optim.Optimizer]:
        return lambda model, **settings: build(member, model, **settings)

    return factory, {"weight_decay": 0.1}


def by_trainer(member: Member, folder: Path, seed: int = 0) -> Any:
    """A trainer that makes the optimizer itself."""
    chosen = choice(member)
    return transformers.Trainer(
        llama(seed), arguments(folder), train_dataset=tokens(24), optimizer_cls_and_kwargs=chosen
    )


def by_hand(member: Member, folder: Path, seed: int = 0) -> Any:
    """A trainer that is given the optimizer and its schedule."""
    model = llama(seed)
    optimizer = build(member, model, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    return transformers.Trainer(model, arguments(folder), train_dataset=tokens(24), optimizers=(optimizer, schedule))


@pytest.mark.parametrize("trainer", [by_trainer, by_hand])
@pytest.mark.parametrize(**OPEN)
def test_a_fresh_trainer_resumes_bit_for_bit(member: Member, trainer: Callable[..., Any], tmp_path: Path) -> None:
    whole = trainer(member, tmp_path / "whole")
    whole.train()
    resumed = trainer(member, tmp_path / "resumed", seed=99)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{MIDDLE}"))
    assert resumed.state.global_step == STEPS
    assert_same(resumed.optimizer, everything(whole.optimizer))


@pytest.mark.parametrize(**OPEN)
def test_a_trainer_goes_back_and_trains_again(member: Member, tmp_path: Path) -> None:
    trainer = by_trainer(member, tmp_path)
    trainer.train()
    expected = everything(trainer.optimizer)
    for _ in range(2):
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{MIDDLE}"))
        assert_same(trainer.optimizer, expected)


@pytest.mark.parametrize(**CLOSING)
def test_curvature_says_that_it_needs_a_closure(member: Member, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no closure was given.*Call optimizer\.step\(closure\)"):
        by_trainer(member, tmp_path).train()


def test_a_keyword_named_model_never_reaches_the_optimizer(tmp_path: Path) -> None:
    """Why docs/hosts.md has a factory: Trainer takes the keyword out."""
    model = llama()
    chosen = torch.optim.SGD, {"model": [nn.Parameter(torch.zeros(3))], "lr": 0.01}
    trainer = transformers.Trainer(model, arguments(tmp_path), optimizer_cls_and_kwargs=chosen)
    assert [p.shape for group in trainer.create_optimizer().param_groups for p in group["params"]] == [(3,)]
