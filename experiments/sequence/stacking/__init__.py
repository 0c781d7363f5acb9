"""Does a pretrained model that goes on learning predict a book better as it reads? And does it remember facts?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.harness import Outcome, markdown
from experiments.sequence.stacking.contenders import CONTENDERS, VARIANTS, Contender
from experiments.sequence.stacking.controls import cached, dynamic
from experiments.sequence.stacking.recall import recall
from experiments.sequence.stacking.source import Source, small, smollm2
from experiments.sequence.stacking.top import below, top
from nestlearn.models import add_continuum

__all__ = ["SIZES", "Plan", "Run", "run"]


@dataclass(frozen=True)
class Plan:
    """Tokens of the book and of the other text, attention's windows, tokens a write, how often a rate is multiplied."""

    source: Callable[[], Source]
    book: int
    other: int
    window: int
    longest: int
    period: int
    distances: tuple[int, ...]
    blocks: int | None = None
    times: float = 1.0
    variants: tuple[str, ...] = tuple(VARIANTS)


SIZES = {
    "quick": Plan(small, 2048, 1024, 256, 512, 32, (0, 512), 2, 30.0, ()),
    "full": Plan(smollm2, 16384, 4096, 2048, 8192, 256, (0, 2048, 6144)),
    "long": Plan(smollm2, 65536, 8192, 2048, 8192, 256, (0, 2048, 6144, 14336)),
}
"""That of the tests, that of the page, and the length that was asked for, four times as long."""

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1)
LENGTHS = (500, 2000, 8000)


class Run:
    """One run: what is known already lies in its folder, so that a run that was cut off goes on."""

    def __init__(self, plan: Plan, folder: Path, device: str) -> None:
        self.plan, self.folder = plan, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.source = plan.source().to(device)
        book = self.source.tokenize(self.source.book)[:, : plan.book]
        other = self.source.tokenize(self.source.other)[:, : plan.other]
        self.tokens = {"book": book, "other": other, "book with the longest window": book}
        self.windows = dict.fromkeys(self.tokens, plan.window) | {"book with the longest window": plan.longest}

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, from the folder if it is there."""
        path = self.folder / f"{name.replace(' ', '_').replace(',', '')}.pt"
        if not path.exists():
            torch.save(make(), path.with_suffix(".new"))
            path.with_suffix(".new").rename(path)
        return torch.load(path, weights_only=True)

    def top(self, text: str, blocks: int) -> Any:
        """The last blocks of the model above what lies below them, on one of the texts."""
        return top(self.source.model, self.below(text, blocks), blocks)

    def below(self, text: str, blocks: int) -> Tensor:
        """What the last blocks are given for one of the texts."""

        def make() -> Tensor:
            return below(self.source.model, self.tokens[text], self.windows[text], blocks)

        return torch.as_tensor(self.kept(f"below {text} {blocks}", make))

    def read(self, name: str, text: str, contender: Contender, rate: float) -> dict[str, Any]:
        """Losses of a text's tokens as a contender reads it, and CPU seconds."""
        blocks = self.plan.blocks or contender.blocks

        def make() -> dict[str, Any]:
            settings = {"periods": self.plan.period, "writer": contender.writer, **contender.settings}
            rated = rate * self.plan.times
            continuum = add_continuum(self.top(text, blocks), blocks=blocks, inner_lr=rated, **settings)
            start = time.process_time()
            losses = continuum.read(self.tokens[text], window=self.windows[text])[0].cpu()
            return {"losses": losses, "seconds": time.process_time() - start, "bytes": continuum.bytes}

        found: dict[str, Any] = self.kept(f"{text} {name} {rate:g}", make)
        return found

    def dynamic(self, rate: float, kind: type[torch.optim.Optimizer]) -> Tensor:
        """Losses of the book under dynamic evaluation by an optimizer of torch's."""
        blocks = self.plan.blocks or 4

        def make() -> Tensor:
            model = self.top("book", blocks)
            weights = [layer.mlp.down_proj.weight for layer in model.model.layers]
            rated = {"lr": rate * self.plan.times}
            sizes = {"period": self.plan.period, "window": self.plan.window}
            return dynamic(
                model, self.tokens["book"], lambda given: kind(given, **rated), weights=weights, **sizes
            ).cpu()

        return torch.as_tensor(self.kept(f"dynamic {kind.__name__} {rate:g}", make))


def run(size: str, folder: Path, workers: int, device: str = "cpu") -> Outcome:
    """Choose rates on the other text, read the book, and ask for facts. All in one process."""
    here = Run(SIZES[size], folder, device)
    plain = Contender((0.0,))
    tried = {
        name: {rate: here.read(name, "other", each, rate) for rate in each.rates} for name, each in CONTENDERS.items()
    }
    rates = {name: min(found, key=partial(_loss_at, found)) for name, found in tried.items()}
    frozen = {text: here.read("frozen", text, plain, 0.0) for text in here.tokens}
    share, length = _cache(frozen["other"]["losses"], here.tokens["other"][0])
    losses: dict[str, Tensor] = {f"frozen, window {here.plan.window}": frozen["book"]["losses"]}
    longest = "book with the longest window"
    losses[f"frozen, window {here.plan.longest}"] = frozen[longest]["losses"]
    losses["cache of words"] = cached(frozen["book"]["losses"], here.tokens["book"][0], share, length)
    losses["dynamic evaluation, SGD"] = here.dynamic(rates["gradient"], torch.optim.SGD)
    losses["dynamic evaluation, Adam"] = here.dynamic(rates["Adam"], torch.optim.Adam)
    for name, each in CONTENDERS.items():
        losses[f"continuum, {name}"] = here.read(name, "book", each, rates[name])["losses"]
    best = min(CONTENDERS, key=lambda name: _loss_at(tried[name], rates[name]))
    losses[f"continuum, {best}, window {here.plan.longest}"] = here.read(best, longest, CONTENDERS[best], rates[best])[
        "losses"
    ]
    losses[f"continuum, {best}, and cache of words"] = cached(
        losses[f"continuum, {best}"], here.tokens["book"][0], share, length
    )
    variants = {
        name: here.read(name, "other", VARIANTS[name], rate)
        for name in here.plan.variants
        for rate in VARIANTS[name].rates
    }
    asked = recall(here, CONTENDERS[best], rates[best] * here.plan.times)
    rows, figures = _book(losses)
    for name, control in (("gradient", "SGD"), ("Adam", "Adam")):
        more = losses[f"continuum, {name}"].double() - losses[f"dynamic evaluation, {control}"].double()
        figures[f"continuum, {name}/against dynamic evaluation"] = 100 * (float(more.mean().exp()) - 1)
    figures |= {f"{name}/rate": rate for name, rate in rates.items()} | asked.figures
    return Outcome((rows, _other(frozen["other"], tried, variants, (share, length)), *asked.tables), figures)


def _loss_at(found: Mapping[float, dict[str, Any]], rate: float) -> float:
    return _mean(found[rate]["losses"])


def _mean(losses: Tensor) -> float:
    return float(losses.double().mean())


def _cache(losses: Tensor, tokens: Tensor) -> tuple[float, int]:
    """The share and the length that are best."""
    grid = [(share, length) for share in SHARES for length in LENGTHS]
    return min(grid, key=lambda pair: _mean(cached(losses, tokens, *pair)))


def _book(losses: dict[str, Tensor]) -> tuple[str, dict[str, float]]:
    base = next(iter(losses.values())).double()
    rows, figures = [], {}
    for name, found in losses.items():
        more = found.double() - base[: len(found)]
        parts = [_percent(_mean(part)) for part in more.chunk(4)]
        figures[f"{name}/perplexity"] = float(found.double().mean().exp())
        figures[f"{name}/against frozen"] = 100 * (float(more.mean().exp()) - 1)
        rows.append([name, f"{figures[f'{name}/perplexity']:.2f}", _percent(_mean(more)), *parts])
    title = (
        f"Perplexity of {len(base) + 1:,} tokens, and how far it is from the frozen model's, in all and by quarters."
    )
    return f"{title}\n\n{markdown(['', 'perplexity', 'all', 'first', 'second', 'third', 'fourth'], rows)}", figures


def _percent(nats: float) -> str:
    return f"{100 * (torch.tensor(nats).exp().item() - 1):+.2f}%"


def _other(frozen: dict[str, Any], tried: Any, variants: Any, cache: tuple[float, int]) -> str:
    base, rows = frozen["losses"], []
    for name, found in tried.items():
        rows += [[name, f"{rate:g}", *_cells(read, frozen)] for rate, read in found.items()]
    rows += [[name, f"{VARIANTS[name].rates[0]:g}", *_cells(read, frozen)] for name, read in variants.items()]
    title = (
        f"On {len(base) + 1:,} tokens of the other text, where rates were chosen. The frozen model has "
        f"{base.double().mean().exp():.2f}; the cache of words was best with {cache[0]:g} and {cache[1]} tokens."
    )
    return f"{title}\n\n{markdown(['', 'rate', 'against frozen', 'state bytes'], rows)}"


def _cells(read: dict[str, Any], frozen: dict[str, Any]) -> list[str]:
    return [_percent(_mean(read["losses"]) - _mean(frozen["losses"])), f"{read['bytes']:,}"]
