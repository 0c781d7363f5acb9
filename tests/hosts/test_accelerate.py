"""Accelerate saves and resumes every optimizer bit for bit, and passes on the closure that curvature needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract.members import EVERY, OPEN, Member
from torch import Tensor
from torch.utils.data import DataLoader

from .common import CLOSING, accelerate, assert_same, build, everything, llama, tokens

EPOCHS = 3


class Run:
    """A loop as the manual of Accelerate has it: an epoch is four batches, with a cosine schedule and clipping."""

    def __init__(self, member: Member, accumulation: int = 1, seed: int = 0) -> None:
        self.member = member
        self.accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        model = llama(seed)
        optimizer = build(member, model)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * EPOCHS // accumulation)
        loader = DataLoader(tokens(16), batch_size=4)
        self.model, self.optimizer, self.schedule, self.loader = self.accelerator.prepare(
            model, optimizer, schedule, loader
        )

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            for batch in self.loader:
                with self.accelerator.accumulate(self.model):
                    self.step(batch)

    def step(self, batch: dict[str, Tensor]) -> None:
        def closure() -> Tensor:
            loss = self.model(**batch).loss
            self.accelerator.backward(loss, retain_graph=self.member.closure)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), 0.1)
            return loss

        if self.member.closure:
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


def resumes(member: Member, folder: Path, accumulation: int) -> None:
    """The checkpoint of the first epoch, loaded twice into everything new, trains to the bits of the whole run."""
    whole = Run(member, accumulation)
    whole.train(1)
    whole.accelerator.save_state(str(folder))
    saved = everything(whole.optimizer)
    whole.train(EPOCHS - 1)
    resumed = Run(member, accumulation, seed=99)
    for _ in range(2):
        resumed.accelerator.load_state(str(folder))
        assert_same(resumed.optimizer, saved)
    resumed.train(EPOCHS - 1)
    assert_same(resumed.optimizer, everything(whole.optimizer))


@pytest.mark.parametrize(**EVERY)
def test_a_fresh_loop_resumes_bit_for_bit(member: Member, tmp_path: Path) -> None:
    resumes(member, tmp_path, accumulation=1)


@pytest.mark.parametrize(**OPEN)
def test_a_loop_that_accumulates_resumes_bit_for_bit(member: Member, tmp_path: Path) -> None:
    resumes(member, tmp_path, accumulation=2)


@pytest.mark.parametrize(**EVERY)
def test_a_loop_goes_back_and_trains_again(member: Member, tmp_path: Path) -> None:
    run = Run(member)
    run.train(1)
    run.accelerator.save_state(str(tmp_path))
    run.train(2)
    expected = everything(run.optimizer)
    for _ in range(2):
        run.accelerator.load_state(str(tmp_path))
        run.train(2)
        assert_same(run.optimizer, expected)


@pytest.mark.parametrize(**CLOSING)
def test_curvature_says_that_it_needs_a_closure(member: Member) -> None:
    run = Run(member)
    run.accelerator.backward(run.model(**next(iter(run.loader))).loss)
    with pytest.raises(RuntimeError, match=r"no closure was given.*Call optimizer\.step\(closure\)"):
        run.optimizer.step()
