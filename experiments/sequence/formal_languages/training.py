"""Train a contender on short strings of a language, and judge it on strings of any length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments.sequence.formal_languages.contenders import CONTENDERS
from experiments.sequence.formal_languages.languages import LANGUAGES, Strings, every, sample

__all__ = ["BINS", "SOLVED", "Job", "Result", "accuracy", "bins", "judge", "strings_of"]


def bins(longest: int) -> tuple[tuple[int, int], ...]:
    """Lengths, if the longest strings of training are this long; training and every decision see the first alone."""
    return (2, longest), (longest + 1, 2 * longest), (2 * longest + 1, 4 * longest)


LONGEST = 50
BINS = bins(LONGEST)
"""The bins of the full size."""

BATCH = 16
WARM_UP, ANNEAL = 20, 100
CHECK_EVERY = 50
CHECKED = 200
SOLVED = 1e-3
AT_ONCE = 250
CHECK_SEED, JUDGE_SEED = 1_000_000, 2_000_000


Result = Mapping[str, Any]
"""A job with ``loss``, ``trained`` and ``right``, see `judge`."""


@dataclass(frozen=True)
class Job:
    """One training: by whom, on what, and on how many strings of each of how many bins it is judged.

    The last four say how long its strings are, when it is checked, below which loss it ends early, and for how many
    steps the lr then falls.
    """

    contender: str
    language: str
    lr: float
    seed: int
    steps: int
    strings: int = 0
    bins: int = 0
    longest: int = LONGEST
    check_every: int = CHECK_EVERY
    solved: float = SOLVED
    anneal: int = ANNEAL


def judge(job: Job) -> dict[str, Any]:
    """Train and judge: the job with ``loss`` (held-out strings of bin 0), ``trained`` (steps) and ``right`` (%)."""
    torch.manual_seed(job.seed)
    model = CONTENDERS[job.contender].build()
    trained, loss = _train(model, job)
    right = []
    for number, (shortest, longest) in enumerate(bins(job.longest)[: job.bins]):
        right.append(accuracy(model, strings_of(job.language, job.strings, shortest, longest, JUDGE_SEED + number)))
    return {**asdict(job), "loss": loss, "trained": trained, "right": right}


def strings_of(language: str, count: int, shortest: int, longest: int, seed: int) -> Strings:
    """Every string between these lengths where each length has one, else ``count`` drawn ones."""
    if LANGUAGES[language].unique:
        return every(language, shortest, longest)
    return sample(language, count, shortest, longest, torch.Generator().manual_seed(seed))


@torch.no_grad()
def accuracy(model: nn.Module, strings: Strings) -> float:
    """Percent of the strings after each of whose prefixes exactly the legal symbols have a positive logit."""
    parts = zip(*(t.split(AT_ONCE) for t in (strings.tokens, strings.legal, strings.inside)), strict=True)
    right = [(((model(tokens) > 0) == legal).all(-1) | ~inside).all(-1) for tokens, legal, inside in parts]
    return 100 * torch.cat(right).float().mean().item()


def _train(model: nn.Module, job: Job) -> tuple[int, float]:
    """AdamW up to ``job.steps`` whose lr falls to zero in the last ``job.anneal`` of them; how many, and the loss.

    They begin early once check strings of bin 0 are all right, and sure. Strings of other lengths have no part in it.
    """
    generator = torch.Generator().manual_seed(job.seed)
    lengths = bins(job.longest)[0]
    checked = strings_of(job.language, CHECKED, *lengths, CHECK_SEED)
    optimizer = torch.optim.AdamW(model.parameters(), job.lr, weight_decay=0.0)
    step, end = 0, job.steps
    while step < end:
        optimizer.param_groups[0]["lr"] = job.lr * min(1.0, (step + 1) / WARM_UP) * min(1.0, (end - step) / job.anneal)
        loss = _loss(model, sample(job.language, BATCH, *lengths, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        due = step % job.check_every == 0 and step + job.anneal < end
        if due and _held_out(model, checked) < job.solved and accuracy(model, checked) == 100:
            end = step + job.anneal
    return step, _held_out(model, checked)


@torch.no_grad()
def _held_out(model: nn.Module, checked: Strings) -> float:
    return _loss(model, checked).item()


def _loss(model: nn.Module, strings: Strings) -> Tensor:
    """Binary cross-entropy, the mean over prefixes and answers."""
    losses = binary_cross_entropy_with_logits(model(strings.tokens), strings.legal.float(), reduction="none").mean(-1)
    return losses[strings.inside].mean()
