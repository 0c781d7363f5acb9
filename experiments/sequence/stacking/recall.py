"""Facts that were read once: how often their ends are more likely than those of other facts, by distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from experiments.harness import Outcome, markdown
from experiments.sequence.stacking.contenders import Contender
from experiments.sequence.stacking.facts import facts_text, questions
from experiments.sequence.stacking.top import below, top
from nestlearn.models import Continuum, add_continuum
from nestlearn.models.stacking_calls import cache_name

if TYPE_CHECKING:
    from experiments.sequence.stacking import Run

__all__ = ["recall"]

CANDIDATES = 4
EAGER = 3.0  # times the rate that reads best


def recall(run: Run, contender: Contender, rate: float) -> Outcome:
    """Read the facts, then the book, and ask at each distance, in a window that holds neither."""
    blocks, distances = run.plan.blocks or contender.blocks, run.plan.distances
    asked = questions(CANDIDATES)
    tokens = [[run.source.tokenize(begin + end)[0] for end in ends] for begin, ends in asked]
    flat = [each for row in tokens for each in row]
    padded = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True)
    spans = [(start, len(each)) for row in tokens for start in (_shared(row),) for each in row]
    ground = run.kept("below questions", lambda: below(run.source.model, padded, padded.shape[1], blocks))
    facts = run.source.tokenize(facts_text())
    told = run.kept("below facts", lambda: below(run.source.model, facts, facts.shape[1], blocks))
    book = run.below("book", blocks)

    def ask(model: Any, continuum: Continuum) -> float:
        model.model.embed_tokens.kept, model.model.embed_tokens.at = ground, 0
        with continuum.paused(), torch.no_grad():
            return _right(_scores(model(padded, use_cache=False).logits, padded, spans))

    def curve(reads_facts: bool, inner_lr: float) -> list[float]:
        model = top(run.source.model, told, blocks)
        settings = {"periods": run.plan.period, "writer": contender.writer, **contender.settings}
        continuum = add_continuum(model, blocks=blocks, inner_lr=inner_lr, **settings)
        found, at = [], 0
        if reads_facts:
            continuum.read(facts, window=run.plan.window)
        for distance in distances:
            model.model.embed_tokens.kept, model.model.embed_tokens.at = book, at
            continuum.read(run.tokens["book"][:, at:distance], window=run.plan.window)
            at = distance
            found.append(ask(model, continuum))
        return found

    count = len(distances)
    rows: dict[str, list[float | None]] = {
        "frozen": [run.kept("recall frozen", lambda: curve(False, 0.0)[0])] * count,
        "continuum, facts read": run.kept("recall read", lambda: curve(True, rate)),
        f"the same at {EAGER:g} times the rate": run.kept("recall eager", lambda: curve(True, EAGER * rate)),
        "continuum, facts never read": run.kept("recall never", lambda: curve(False, rate)),
    }
    within: float = run.kept("recall window", lambda: _window(run, facts, padded, spans))
    rows["frozen, the facts in the window"] = [within, *([None] * (count - 1))]
    figures = {
        f"recall/{name}/{distance}": value
        for name, found in rows.items()
        for distance, value in zip(distances, found, strict=True)
        if value is not None
    }
    title = (
        f"Share of {len(asked)} questions of which the right end is the likeliest of {CANDIDATES}, by tokens of the "
        f"book read between the facts and the question. A guess is right in {1 / CANDIDATES:.2f}."
    )
    body = [[name, *("" if value is None else f"{value:.2f}" for value in found)] for name, found in rows.items()]
    return Outcome((f"{title}\n\n{markdown(['', *map(str, distances)], body)}",), figures)


def _shared(row: list[Tensor]) -> int:
    """How many first tokens all candidates have in common."""
    count = 0
    while all(count < len(each) and each[count] == row[0][count] for each in row):
        count += 1
    return count


def _scores(logits: Tensor, tokens: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """Log-likelihood of each end."""
    found = []
    for row, (start, stop) in enumerate(spans):
        words = logits[row, start - 1 : stop - 1].log_softmax(-1)
        found.append(words.gather(1, tokens[row, start:stop, None]).sum())
    return torch.stack(found)


def _right(scores: Tensor) -> float:
    """The share of questions whose first candidate is the likeliest."""
    return float((scores.view(-1, CANDIDATES).argmax(1) == 0).double().mean())


@torch.no_grad()
def _window(run: Run, facts: Tensor, padded: Tensor, spans: list[tuple[int, int]]) -> float:
    """The frozen model with the facts before each question."""
    found, name = [], cache_name(run.source.model.forward)
    for at in range(0, len(padded), 16):
        rows = padded[at : at + 16]
        cache = run.source.model(facts, use_cache=True)[name]
        cache.batch_repeat_interleave(len(rows))
        answer = run.source.model(rows, use_cache=True, **{name: cache})
        found.append(_scores(answer.logits, rows, spans[at : at + 16]))
    return _right(torch.cat(found))
