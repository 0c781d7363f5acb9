"""Models that are asked for what stood in their text: trained on the same texts, each at its own learning rate.

Every contender is trained at every rate with the first seed for a part of the steps; the rate with the lowest loss on
validation texts is its own, and with it all seeds are trained at full length and judged. All contenders are as wide,
with as many heads, so that matrix memories are of one size; feed-forward layers are made as wide as brings each nearest
to the parameters of ``REFERENCE``. A seed fixes the texts for all contenders. A run folder that was begun is continued.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.harness import workers_of_one_thread
from experiments.sequence.equal_size import count, units
from nestlearn.models import MODELS, LanguageModel

__all__ = ["CONTENDERS", "UNASKED", "Examples", "Plan", "Row", "Task", "accuracies", "build", "read_out", "tuned"]

UNASKED = -100  # the target where nothing is asked
PIECE = 512  # tokens that are read at once by models under judgement, the state carried on
DEPTH = 2
REFERENCE = "hope"

Examples = tuple[Tensor, Tensor]
"""Tokens [batch, time], and at every question its answer [batch, time], `UNASKED` elsewhere."""

CHUNK = 16
CONTENDERS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "hope": ("hope", {"mixer": {"chunk": CHUNK}}),
        "hope, not self-modifying": ("hope", {"mixer": {"chunk": CHUNK, "self_modifying": ()}}),
        "hope, default chunk": ("hope", {}),
        "titans": ("titans", {"chunk": CHUNK}),
        "gated delta": ("gated_delta_net", {"output_gate": False}),
        "delta": ("gated_delta_net", {"output_gate": False, "rule": "delta"}),
        "linear": ("gated_delta_net", {"output_gate": False, "rule": "linear"}),
        "transformer": ("transformer", {}),
    }
)
"""By the name in a table, which of `nestlearn.models.MODELS` with which options."""


class Task(Protocol):
    """What is asked; its fields are the sizes of a run."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""

    @property
    def dim(self) -> int:
        """Width of the models."""

    @property
    def heads(self) -> int:
        """Heads of the models."""

    def training(self, generator: torch.Generator, progress: float) -> Examples:
        """The texts of one step, easy ones first; ``progress`` runs from 0 to 1."""

    def validation(self) -> list[Examples]:
        """Texts by whose loss a learning rate is chosen."""

    def judge(self, model: LanguageModel) -> dict[str, float]:
        """Figures of a trained model."""


@dataclass(frozen=True)
class Plan:
    """What is the same for all contenders; ``trial`` is the part of the steps by which rates are chosen."""

    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    trial: float


@dataclass(frozen=True)
class Row:
    """What is known of a contender in the end.

    Attributes:
        trials: validation loss by learning rate.
        rate: the best of them.
        runs: figures of the judged runs, one a seed.
    """

    name: str
    parameters: int
    step_ms: float
    trials: Mapping[float, float]
    rate: float
    runs: Sequence[Mapping[str, float]]

    def mean(self, figure: str) -> float:
        """A figure's mean over seeds."""
        return sum(run[figure] for run in self.runs) / len(self.runs)

    def figures(self) -> dict[str, float]:
        """All figures, means over seeds, called "CONTENDER/FIGURE"."""
        return {f"{self.name}/{figure}": self.mean(figure) for figure in self.runs[0]}

    def tuning(self) -> str:
        """A cell with the validation loss at each learning rate tried, the best one in bold."""
        told = [(f"**{rate:g}**" if rate == self.rate else f"{rate:g}", loss) for rate, loss in self.trials.items()]
        return ", ".join(f"{rate}: {loss:.2f}" for rate, loss in told)


@dataclass(frozen=True)
class _Job:
    task: Task
    contender: str
    rate: float
    seed: int
    steps: int
    judged: bool

    @property
    def key(self) -> str:
        return json.dumps([repr(self.task), self.contender, self.rate, self.seed, self.steps, self.judged])


def build(name: str, task: Task, seed: int) -> LanguageModel:
    """A contender with fresh weights."""
    network, options = CONTENDERS[name]
    hidden = _fitted(name, task)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MODELS[network](task.vocabulary, task.dim, DEPTH, task.heads, hidden=hidden, **options)


def _fitted(name: str, task: Task) -> int:
    """Units of the feed-forward layers that bring a contender nearest to the parameters of ``REFERENCE``."""
    network, options = CONTENDERS[name]
    reference, its = CONTENDERS[REFERENCE]
    size = (task.vocabulary, task.dim, DEPTH, task.heads)
    return units(count(reference, *size, **its), network, *size, **options)


def tuned(task: Task, names: Sequence[str], plan: Plan, folder: Path, workers: int) -> list[Row]:
    """Tune, train and judge contenders as the plan says; finished runs of the folder are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    short = max(2, round(plan.steps * plan.trial))
    tried = {name: {rate: _Job(task, name, rate, plan.seeds[0], short, False) for rate in plan.rates} for name in names}
    with workers_of_one_thread(workers) as pool:
        known = _finished([job for jobs in tried.values() for job in jobs.values()], folder / "runs.jsonl", pool)
        losses = {name: {rate: known[job.key]["loss"] for rate, job in jobs.items()} for name, jobs in tried.items()}
        best = {name: min(found, key=found.__getitem__) for name, found in losses.items()}
        # Seed by seed, so that a run which is cut short has all contenders with fewer seeds.
        full = [_Job(task, name, best[name], seed, plan.steps, True) for seed in plan.seeds for name in names]
        known = _finished(full, folder / "runs.jsonl", pool)
    runs = {name: [known[job.key] for job in full if job.contender == name] for name in names}
    return [_row(name, losses[name], best[name], runs[name]) for name in names]


def _finished(jobs: Sequence[_Job], file: Path, pool: Executor) -> dict[str, dict[str, Any]]:
    """What all jobs found, by their keys; the file has those that were run before, and gets the others."""
    known: dict[str, dict[str, Any]] = {}
    if file.is_file():
        known |= map(json.loads, file.read_text(encoding="utf-8").splitlines())
    missing = [job for job in jobs if job.key not in known]
    for job, found in zip(missing, pool.map(_run, missing), strict=True):
        known[job.key] = found
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([job.key, found]) + "\n")
        what = f"{job.contender}, lr {job.rate:g}, seed {job.seed}, {job.steps} steps"
        print(f"{what}: loss {found['loss']:.3f}", file=sys.stderr, flush=True)
    return known


def _row(name: str, trials: Mapping[float, float], rate: float, runs: Sequence[Mapping[str, Any]]) -> Row:
    step_ms = min(run["step_ms"] for run in runs)
    return Row(name, runs[0]["parameters"], step_ms, trials, rate, [run["figures"] for run in runs])


def _run(job: _Job) -> dict[str, Any]:
    """Train one model: its validation loss (infinite if it diverged), milliseconds a step, and its figures."""
    model = build(job.contender, job.task, job.seed)
    step_ms = _train(model, job)
    loss = _loss(model, job.task.validation())
    return {
        "loss": loss if loss == loss else float("inf"),
        "step_ms": step_ms,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "figures": job.task.judge(model) if job.judged else {},
    }


def _train(model: nn.Module, job: _Job) -> float:
    """AdamW without weight decay; the rate rises over a twentieth of the steps, then falls to zero along a line."""
    optimizer = torch.optim.AdamW(model.parameters(), job.rate, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = max(1, job.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / warmup, 1 - step / job.steps))
    generator = torch.Generator().manual_seed(job.seed + 1000)
    times = []
    for step in range(job.steps):
        tokens, targets = job.task.training(generator, step / job.steps)
        began = time.process_time()
        optimizer.zero_grad()
        F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=UNASKED).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        times.append(1000 * (time.process_time() - began))
    return median(times)


@torch.no_grad()
def _loss(model: nn.Module, examples: Sequence[Examples]) -> float:
    losses = [F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=UNASKED).item() for x, y in examples]
    return sum(losses) / len(losses)


@torch.no_grad()
def read_out(model: LanguageModel, tokens: Tensor) -> tuple[Tensor, int]:
    """The likeliest token at every place [batch, time], read in pieces; bytes of the state of one text at the end."""
    state, found = None, []
    for piece in tokens.split(PIECE, 1):
        logits, state = model(piece, state=state, return_state=True)
        found.append(logits.argmax(-1))
    return torch.cat(found, 1), _bytes_of_one(state)


def accuracies(answers: Tensor, targets: Tensor) -> Tensor:
    """1 for every question that was answered right, else 0, in the order of the places [questions]."""
    asked = targets != UNASKED
    return (answers[asked] == targets[asked]).double()


def _bytes_of_one(state: Any) -> int:
    """Bytes that the state has for each text; the count of tokens, which is no memory, is left out."""
    if isinstance(state, Mapping):
        return sum(map(_bytes_of_one, state.values()))
    return state[0].numel() * state.element_size() if state.ndim else 0
