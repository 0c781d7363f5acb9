"""Parameter groups: completed when they come, watched since anybody may change the list of them."""

from collections.abc import Callable, Mapping

from nestlearn.optim import checks
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.composed import plain
from nestlearn.optim.elementwise import Choice
from nestlearn.optim.layers import LAYERS
from nestlearn.optim.settings import Group, Settings
from nestlearn.rules.blocks import WHOLE
from nestlearn.rules.data import schedule_from_data

__all__ = ["clock", "complete", "finish", "own"]


def finish(optimizer: Adapter, group: Settings, choice: Choice) -> None:
    """Check a group that has just been added, complete it, and have everything watched that its rule looks at."""
    for name, value in group.items():
        dict.__setitem__(group, name, plain(value))
    checks.settings(optimizer, group)
    complete(optimizer, group, optimizer.defaults.__getitem__)
    _check_schedules(optimizer, group)
    choice.add(group)
    _check_blocks(optimizer, group)
    if optimizer.layers is not None:
        optimizer.layers.follow()
    elif set(LAYERS) & set(optimizer.reads(group)):
        raise TypeError(
            f"{type(optimizer).__name__} reads the inputs of layers: pass model=, the module whose parameters it trains"
        )


def _check_schedules(optimizer: Adapter, group: Settings) -> None:
    """Raise ValueError for a schedule that leaves the range of its setting: the rules can be made at both its ends."""
    for name, value in group.items():
        if name != "rule" and isinstance(value, Mapping):
            for number in schedule_from_data(value).span:
                given = {**optimizer.rule_settings(group), name: number}
                optimizer.matrix_rule(given)
                optimizer.element_rule(given)


def _check_blocks(optimizer: Adapter, group: Settings) -> None:
    """Raise ValueError for a matrix that cannot be cut as its rule says."""
    rules = optimizer.rules(group)
    for parameter in group["params"] if rules.cut != WHOLE else ():
        try:
            optimizer.entry_of(parameter, rules)
        except ValueError as error:
            raise ValueError(f"{type(optimizer).__name__}: {checks.describe(optimizer, parameter)}: {error}") from error


def own(optimizer: Adapter, choice: Choice) -> None:
    """Notice groups that somebody has put in the place of ours or taken away, and replaced parameters."""
    for index, group in enumerate(optimizer.param_groups):
        if not isinstance(group, Settings):
            group = Settings.of(group, optimizer.defaults)
            group = optimizer.param_groups[index] = complete(optimizer, group, optimizer.defaults.__getitem__)
        if not group["elementwise_base"]:  # made with lr 0: the first rate that is another is what counts
            group["elementwise_base"] = float(group["lr"])
    choice.follow(optimizer.param_groups)


def complete(optimizer: Adapter, group: Settings, default: Callable[[str], object]) -> Settings:
    """A group with all settings; those that it lacks come from ``default``."""
    for name in optimizer.declared:
        if name not in group:
            group[name] = default(name)
    if group["elementwise_base"] is None:
        # Where a scheduler has moved lr since, it says in initial_lr where it began.
        group["elementwise_base"] = float(group.get("initial_lr", group["lr"]))
    return group


def clock(optimizer: Adapter, group: Group) -> tuple[int, float]:
    """What schedules of a group look at: its writes so far, and lr as a share of the one that it began with."""
    writes = max((optimizer.taken(parameter) for parameter in group["params"]), default=0) // group["period"]
    first = float(group.get("initial_lr", group["elementwise_base"]) or 0.0)
    return writes, float(group["lr"]) / first if first else 1.0
