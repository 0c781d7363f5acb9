"""The Trainer of transformers: it makes the optimizer, is given one, computes in bfloat16, trains LoRA."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, Bits, Mode, bits, claim_same, installed, llama, step, texts
from nestlearn.integrations.huggingface import for_trainer
from nestlearn.optim import tables

__all__ = ["MODES", "by_class", "settings"]

STEPS, MIDDLE, ROWS, DECAY = 4, 2, 2, 0.1
CLOSURE = "no closure was given"


def settings(folder: Path, **more: Any) -> Any:
    """Four steps with a cosine schedule, clipping and weight decay, and a checkpoint in the middle."""
    usual = {
        "max_steps": STEPS,
        "save_steps": MIDDLE,
        "per_device_train_batch_size": ROWS,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 0.1,
        "weight_decay": DECAY,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
    }
    return installed("transformers").TrainingArguments(str(folder), **usual | more)


def _trainer(model: nn.Module, arguments: Any, **more: Any) -> Any:
    rows = texts(STEPS * ROWS * arguments.gradient_accumulation_steps)
    return installed("transformers").Trainer(model, arguments, train_dataset=rows, **more)


def by_class(choice: Choice, folder: Path, seed: int = 0) -> Any:
    """A trainer that makes the optimizer, of the class where parameters are all that it needs."""
    model = llama(seed)
    keywords = choice.keywords(model, tables(model))
    if not choice.watches:
        return _trainer(model, settings(folder), optimizer_cls_and_kwargs=(choice.kind, {"lr": LR, **keywords}))
    return _trainer(model, settings(folder), optimizer_cls_and_kwargs=_of_model(choice))


def _of_model(choice: Choice) -> Any:
    extra = {"elementwise": tables} if choice.ours else {}
    return for_trainer(choice.kind, watch=choice.watches, weight_decay=DECAY, lr=LR, **extra, **choice.settings)


def _by_hand(choice: Choice, folder: Path, seed: int = 0) -> Any:
    """A trainer that is given the optimizer and its schedule."""
    model = llama(seed)
    optimizer = choice.build(model, lr=LR, weight_decay=DECAY, elementwise=tables(model))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    return _trainer(model, settings(folder), optimizers=(optimizer, schedule))


def _in_bfloat16(choice: Choice, folder: Path, seed: int = 0) -> Any:
    """A trainer that computes in bfloat16 and accumulates two batches a step."""
    arguments = settings(folder, bf16=True, gradient_accumulation_steps=2)
    return _trainer(llama(seed), arguments, optimizer_cls_and_kwargs=_of_model(choice))


def _lora(choice: Choice, folder: Path, seed: int = 0) -> Any:
    """A trainer of adapters of low rank; all else is frozen, the same in every run."""
    peft = installed("peft")
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, task_type="CAUSAL_LM")
    model = peft.get_peft_model(llama(), config)
    return _trainer(model, settings(folder), optimizer_cls_and_kwargs=_of_model(choice))


def _resumes(make: Callable[..., Any], choice: Choice, folder: Path) -> Bits:
    """A trainer that is new resumes from the checkpoint to the same bits."""
    whole = make(choice, folder / "whole")
    whole.train()
    end = bits(whole.optimizer)
    resumed = make(choice, folder / "resumed", seed=99)
    resumed.train(resume_from_checkpoint=str(folder / "whole" / f"checkpoint-{MIDDLE}"))
    if resumed.state.global_step != STEPS:
        raise AssertionError(f"the resumed run ended at step {resumed.state.global_step} of {STEPS}")
    claim_same("the resumed run", bits(resumed.optimizer), end)
    return end


def _goes_back(choice: Choice, folder: Path) -> None:
    """As above, and the trainer itself goes back, twice; a loop of one's own ends in the same bits."""
    end = _resumes(by_class, choice, folder)
    trainer = by_class(choice, folder / "again")
    for _ in range(2):
        trainer.train(resume_from_checkpoint=str(folder / "whole" / f"checkpoint-{MIDDLE}"))
        claim_same("the run that went back", bits(trainer.optimizer), end)
    claim_same("a plain loop", _plain(choice), end, settings=False)


def _plain(choice: Choice) -> Bits:
    """The same four steps without Trainer: its two groups, its schedule, its loss."""
    model: Any = llama()
    norms = [each for name, each in model.named_parameters() if "norm" in name]
    others = [each for name, each in model.named_parameters() if "norm" not in name]
    groups = [{"params": others, "weight_decay": DECAY}, {"params": norms, "weight_decay": 0.0}]
    optimizer = choice.build(model, groups, lr=LR, elementwise=tables(model))
    rows = texts(STEPS * ROWS)
    for index in range(STEPS):
        words = torch.stack([row["input_ids"] for row in rows[index * ROWS : (index + 1) * ROWS]])
        for group in optimizer.param_groups:
            group["lr"] = LR * max(0.0, 0.5 * (1 + math.cos(math.pi * index / STEPS)))
        count = torch.tensor(words[:, 1:].numel())
        step(
            choice,
            optimizer,
            lambda words=words, count=count: model(input_ids=words, labels=words, num_items_in_batch=count).loss,
            lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.1),
        )
    return bits(optimizer)


def _mode(name: str, run: Callable[[Choice, Path], Any], *packages: str) -> Mode:
    return Mode("Trainer", name, ("transformers", "accelerate", *packages), run, CLOSURE, costly=True)


MODES = (
    _mode("class", _goes_back),
    _mode("optimizer", partial(_resumes, _by_hand)),
    _mode("bfloat16", partial(_resumes, _in_bfloat16)),
    _mode("LoRA", partial(_resumes, _lora), "peft"),
)
