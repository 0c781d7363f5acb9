"""The figures of all runs, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import mean

from experiments.harness import markdown
from experiments.sequence.formal_languages.contenders import CONTENDERS
from experiments.sequence.formal_languages.languages import LANGUAGES
from experiments.sequence.formal_languages.training import Result, bins

__all__ = ["details", "figures", "overview", "tuning_loss", "tuning_table"]


def figures(results: Iterable[Result]) -> dict[str, float]:
    """``CONTENDER/LANGUAGE/binN``, the mean over seeds, ``.../binN/least``, and ``.../loss``."""
    found = {}
    for (name, language), runs in _grouped(results).items():
        for number, rights in enumerate(_bins(runs)):
            found[f"{name}/{language}/bin{number}"] = mean(rights)
            found[f"{name}/{language}/bin{number}/least"] = min(rights)
        found[f"{name}/{language}/loss"] = mean(run["loss"] for run in runs)
    return found


def overview(results: list[Result]) -> str:
    """A row a contender, a column a language, a number a bin."""
    groups = _grouped(results)
    rows = []
    for name in dict.fromkeys(run["contender"] for run in results):
        cells = [
            " / ".join(f"{mean(rights):.1f}" for rights in _bins(groups.get((name, language), [])))
            for language in LANGUAGES
        ]
        size = sum(parameter.numel() for parameter in CONTENDERS[name].build().parameters())
        rows.append([name, f"{size:,}", *cells])
    lengths = bins(results[0]["longest"])
    judged = ", ".join(f"{shortest}-{longest}" for shortest, longest in lengths[: len(results[0]["right"])])
    title = (
        f"Percent of strings right at every position, of lengths {judged}; trained on {lengths[0][0]}-{lengths[0][1]} "
        f"for at most {results[0]['steps']} steps; mean over {len({run['seed'] for run in results})} seeds."
    )
    return f"{title}\n\n{markdown(['contender', 'parameters', *LANGUAGES], rows)}"


def tuning_loss(tried: Iterable[Result], name: str, rate: float) -> float:
    """The geometric mean over languages of the loss on held-out strings of bin 0."""
    return math.exp(mean(math.log(run["loss"]) for run in tried if (run["contender"], run["lr"]) == (name, rate)))


def tuning_table(tried: list[Result]) -> str:
    """What every learning rate gave."""
    rows = [
        [name, ", ".join(f"{rate:g}: {tuning_loss(tried, name, rate):.2e}" for rate in CONTENDERS[name].rates)]
        for name in dict.fromkeys(run["contender"] for run in tried)
    ]
    languages = " and ".join(dict.fromkeys(run["language"] for run in tried))
    title = f"Tuning, {tried[0]['steps']} steps with another seed on {languages}."
    return f"{title}\n\n{markdown(['tuned', 'lr: held-out loss in bin 0, geometric mean over the languages'], rows)}"


def details(results: Iterable[Result]) -> str:
    """A row for each contender and language, with every seed."""
    rows = []
    for (name, language), runs in _grouped(results).items():
        steps = ", ".join(str(run["trained"]) for run in runs)
        loss = ", ".join(f"{run['loss']:.1e}" for run in runs)
        bins = (", ".join(f"{right:.1f}" for right in rights) for rights in _bins(runs))
        rows.append([name, language, f"{runs[0]['lr']:g}", steps, loss, *bins])
    count = len(rows[0]) - 5
    head = ["contender", "language", "lr", "steps", "held-out loss in bin 0", *(f"bin {n}" for n in range(count))]
    return f"Every seed.\n\n{markdown(head, rows)}"


def _grouped(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result["contender"], result["language"]), []).append(result)
    return groups


def _bins(runs: list[Result]) -> list[tuple[float, ...]]:
    """Of each bin what every seed got right."""
    return list(zip(*(run["right"] for run in runs), strict=True))
