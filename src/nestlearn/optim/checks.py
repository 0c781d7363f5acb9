"""What an optimizer checks of what it is given: settings in their ranges, parameters and processes it can serve."""

from collections.abc import Mapping

from torch import Tensor

from nestlearn.errors import choice
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.settings import Group

__all__ = ["describe", "settings", "whole_matrices"]


def describe(optimizer: Adapter, parameter: Tensor) -> str:
    """A parameter in words: its name if the optimizer knows it, else its place, and its shape."""
    for number, candidate in enumerate(optimizer.param_groups):
        for place, other in enumerate(candidate["params"]):
            if other is parameter:
                names = candidate.get("param_names")
                name = names[place] if names and place < len(names) else f"{place} of group {number}"
                return f"parameter {name} with shape {tuple(parameter.shape)}"
    return f"parameter with shape {tuple(parameter.shape)}"


_AT_LEAST_ZERO = ("lr", "weight_decay", "elementwise_lr", "inner_lr", "eps", "rho", "damping", "slow_weight", "ridge")
_COUNTS = ("period", "hidden", "levels", "target_period", "slow_period", "steps", "refresh")


def settings(optimizer: Adapter, group: Group) -> None:
    """Raise ValueError for a setting of a parameter group that is out of its range; what others keep there is theirs.

    Every setting whose name ends in "retention" is the share of something that is kept.
    """
    who = type(optimizer).__name__
    for name in optimizer.defaults:
        value = group.get(name)
        if value is None or isinstance(value, Mapping):  # a schedule is checked by the rule that is made with it
            continue
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"{who}: Tensor {name} must be 1-element, got shape {tuple(value.shape)}")
        if name in _AT_LEAST_ZERO and not float(value) >= 0:
            label = "learning rate (lr)" if name == "lr" else name
            raise ValueError(f"{who}: Invalid {label}: expected at least 0, got {value}")
        if name.endswith("retention") and not 0 <= value <= 1:
            raise ValueError(f"{who}: {name} is the share that is kept, between 0 and 1; got {value}")
        if name in _COUNTS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{who}: {name} must be a whole number of at least 1, got {value!r}")
    choice("nonfinite", group["nonfinite"], ("raise", "ignore"))
    optimizer.check_group(dict(group))


def whole_matrices(optimizer: Adapter) -> None:
    """Raise ValueError if a rule for matrices is given shards in which FSDP1 hides them: they are vectors.

    Without an error a matrix rule would be the element-wise rule under its own name. Vectors that were named in
    ``elementwise`` are what somebody wanted.
    """
    flattened = [
        (group, parameter) for group in optimizer.param_groups for parameter in group["params"] if _flattened(parameter)
    ]
    # With ShardingStrategy.NO_SHARD and use_orig_params=True matrices stay what they are, and vectors were vectors.
    if any(parameter.ndim > 1 for _, parameter in flattened):
        return
    for group, parameter in flattened:
        if optimizer.rules(group).for_matrices is not None and not optimizer.is_elementwise(parameter):
            raise ValueError(
                f"{type(optimizer).__name__}: {describe(optimizer, parameter)} is a flat shard of "
                "FullyShardedDataParallel, which hides the matrices that this optimizer's rule is for. Use "
                "DistributedDataParallel, or ShardingStrategy.NO_SHARD with use_orig_params=True; Adam, Momentum and "
                "GradientDescent are element-wise and work on shards; or name the parameters in elementwise="
            )


def _flattened(parameter: Tensor) -> bool:
    """Whether FullyShardedDataParallel manages this parameter, itself flat or a part of a flat one."""
    return getattr(parameter, "_is_flat_param", False) or getattr(parameter, "_fsdp_flattened", False)
