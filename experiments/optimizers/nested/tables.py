"""The tables and the figures of the comparison; every contender has its row, the losing ones too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

from experiments.harness import Outcome, markdown
from experiments.optimizers.nested.judge import Ratio, corrected, over_tasks, ratio
from experiments.optimizers.nested.ladder import Arrival
from experiments.optimizers.nested.plan import Plan, Values
from experiments.optimizers.nested.search import Tuning
from experiments.optimizers.nested.work import Found
from nestlearn.training.statistics import figures as figures_of
from nestlearn.training.statistics import interval, paired

__all__ = ["outcome", "searched"]


def outcome(plan: Plan, found: Found) -> Outcome:
    """All tables, the claim first, and the figures that ``expected.json`` may speak of."""
    judged = _Judged(plan, found)
    tasks = [_task(judged, name) for name in plan.places]
    judged.figures["hours"] = found.hours
    hours = f"All runs together trained for {found.hours:.2f} core-hours."
    told = [*_primary(judged), *_parts(judged), *tasks, f"{searched(plan, found.tuned)}\n\n{hours}"]
    return Outcome(tuple(told), judged.figures)


@dataclass
class _Judged:
    """The plan, what came of it, the ratios on every task, and the figures told so far."""

    plan: Plan
    found: Found
    figures: dict[str, float] = field(default_factory=dict)

    def steps(self, name: str, label: str) -> Ratio:
        """Steps of a contender on a task over those of the reference."""
        return ratio(self.found.arrivals[name][label])

    def seconds(self, name: str, label: str) -> Ratio | None:
        """The same in seconds; None for what was not timed."""
        times = self.found.times[name].get(label.partition(" ")[0])
        return None if times is None else self.steps(name, label).times(times.ratio)

    def note(self, path: str, one: Ratio) -> None:
        """Take the figures of a ratio down."""
        self.figures |= {f"{path}/steps": one.mean, f"{path}/never": one.never, f"{path}/above": float(one.above_one)}
        if one.holm is not None:
            self.figures[f"{path}/holm"] = one.holm
        # What cannot be claimed is as good as by chance.
        self.figures[f"{path}/p"] = 1.0 if one.p is None else one.p


def _primary(judged: _Judged) -> list[str]:
    """The one comparison that was named beforehand, on every task and over the unseen ones."""
    plan, found, label = judged.plan, judged.found, judged.plan.primary
    body = []
    for name in plan.places:
        steps, seconds = judged.steps(name, label), judged.seconds(name, label)
        judged.note(f"{name}/primary", steps)
        harder = ratio(found.harder[name]) if name in found.harder else None
        if harder:
            judged.note(f"{name}/harder", harder)
        if seconds:
            judged.figures[f"{name}/primary/seconds"] = seconds.mean
        body.append([name, _kind(plan, name), *map(_cells, (steps, harder, seconds))])
    counted = [name for name, place in plan.unseen.items() if place.counted]
    overall = over_tasks([judged.steps(name, label) for name in counted])
    judged.note("primary", overall)
    hard = over_tasks([ratio(found.harder[name]) for name in counted])
    judged.note("harder", hard)
    body.append(["**unseen, all**", "", _cells(overall), _cells(hard), ""])
    head = ["task", "", f"steps / {plan.against}", f"steps / {plan.against}, lr retuned there", "seconds"]
    title = f"**{label} against {plan.against}**, {len(plan.judge.seeds)} seeds: steps to its final validation loss"
    return [f"{title} (geometric mean, 95% interval, p).\n\n{markdown(head, body)}"]


def _kind(plan: Plan, name: str) -> str:
    """What a task is to the claim."""
    if name in plan.searched:
        return "searched"
    return "unseen" if plan.unseen[name].counted else "unseen, not counted"


def _parts(judged: _Judged) -> list[str]:
    """Every part off alone: steps with the part over steps without it."""
    plan, arrivals = judged.plan, judged.found.arrivals
    labels = [entrant.name for entrant in plan.entrants() if entrant.part_of == plan.primary]
    if not labels:
        return []
    names = [name for name, place in plan.places.items() if not place.pair]
    each = {label: [_against(arrivals[name], plan.primary, label) for name in names] for label in labels}
    overall = corrected({label: over_tasks(ratios) for label, ratios in each.items()})
    for label, one in overall.items():
        judged.note(f"parts/{label}", one)
    body = [[label, *map(_cells, each[label]), _cells(one), _p(one.holm)] for label, one in overall.items()]
    title = f"**Parts**: steps of {plan.primary} over those of the same rule without the part, both tuned alike"
    return [f"{title}.\n\n{markdown(['without', *names, 'all of these', 'p (Holm)'], body)}"]


def _against(arrivals: Mapping[str, Sequence[Arrival]], label: str, other: str) -> Ratio:
    """The steps of one contender over those of another that has not run more seeds."""
    return ratio(arrivals[label][: len(arrivals[other])], arrivals[other])


def _task(judged: _Judged, name: str) -> str:
    """Every contender on one task, soonest at the reference's loss first."""
    plan, found = judged.plan, judged.found
    place, against = plan.places[name], found.horizon[name][plan.against]
    rows = []
    for label, runs in found.horizon[name].items():
        arrivals = found.arrivals[name].get(label)  # none of the references, which are what others arrive at
        one = ratio(arrivals) if arrivals else None
        times = found.times[name].get(label)
        if one:
            judged.note(f"{name}/{label}", one)
        test = figures_of(runs, "test")
        loss = difference = "diverged"
        if test and not any(run.reason for run in against):
            values = test["loss"].values
            judged.figures[f"{name}/{label}/loss"] = mean(values)
            apart = paired(values, [run.test["loss"] for run in against[: len(values)]])
            difference = "" if label == plan.against else f"{apart.mean:+.4f} ({_p(apart.p_alone)})"
            ends = interval(values)
            loss = f"{mean(values):.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")
        same = "1" if label == plan.against else ""
        cells = [label, _cells(one) or same, _seconds(judged, name, label), loss, difference]
        cells += [f"{times.step_ms:.1f}", f"{times.state_bytes / 1024:.0f}"] if times else ["", ""]
        rows.append((1.0 if one is None else one.mean, [*cells, _setting(found.values[name][label])]))
    size = ", ".join(f"{key} {value}" for key, value in place.size.items() if key != "sha256")
    title = f"**{name}**, {_kind(plan, name)}, {place.steps} steps"
    head = ["contender", "steps", "seconds", "test loss at the horizon", f"vs {plan.against} (p)", "ms/step"]
    head += ["state KiB", "settings"]
    return f"{title}{', ' + size if size else ''}.\n\n{markdown(head, [cells for _, cells in sorted(rows)])}"


def _seconds(judged: _Judged, name: str, label: str) -> str:
    if label not in judged.found.arrivals[name]:
        return "1" if label == judged.plan.against else ""
    one = judged.seconds(name, label)
    return "" if one is None else f"{_bounded(one)}"


def searched(plan: Plan, tuned: Mapping[str, Tuning]) -> str:
    """What the search chose, with the validation loss on its seeds, and where the best value was the last one tried."""
    body = []
    for label, one in tuned.items():
        for name in one.tried:
            at = ", ".join(f"{axis} at the {end} edge" for axis, end in one.edges(name).items())
            losses = ", ".join(f"{one.loss(each, name):.4f}" for each in ([name] if name else plan.searched))
            body.append([label, name or "average", len(one.tried[name]), losses, _setting(one.chosen(name)), at])
    head = ["contender", "best on", "trials", "validation loss", "settings", "edges"]
    seeds = ", ".join(map(str, plan.search.rungs[-1].seeds))
    return f"**The search**, validation split, seeds {seeds}.\n\n{markdown(head, body)}"


def _setting(values: Values) -> str:
    told = ((name, str(value) if isinstance(value, bool) else f"{value:g}") for name, value in values.items())
    return ", ".join(f"{name} {value}" for name, value in told)


def _bounded(one: Ratio) -> str:
    """The mean with its interval, and how many seeds are but bounds."""
    mark = ">" if one.never else "<" if one.early else ""
    ends = f" [{one.interval[0]:.3f}, {one.interval[1]:.3f}]" if one.interval else ""
    seeds = len(one.logs)
    never = f", {one.never} of {seeds} never" if one.never else ""
    return f"{mark}{one.mean:.3f}{ends}{never}"


def _cells(one: Ratio | None) -> str:
    """The same with p."""
    if one is None:
        return ""
    return _bounded(one) + ("" if one.p is None else f" ({_p(one.p)})")


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
