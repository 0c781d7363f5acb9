"""Large element-wise lanes in one compiled kernel: every tensor is read once and written once a step.

What a rule computes is recorded as operations on tensors, and these are compiled: a compiler has to know nothing of the
objects that rules are made of.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from nestlearn.memory.rules import Context, Rule, always
from nestlearn.memory.state import flatten
from nestlearn.optim.adapter import Adapter
from nestlearn.optim.composed import Rules, with_average
from nestlearn.optim.due import Due
from nestlearn.optim.fused import FusedLane
from nestlearn.optim.lanes import Lane, as_real, memory_dtype, remember, step_weights
from nestlearn.optim.settings import Group
from nestlearn.rules import as_rule
from nestlearn.rules.kernels import Rates

__all__ = ["CompiledLanes", "Written", "compile_lanes"]

MOST_KERNELS = 8
"""For rules that cannot take their numbers as tensors: so many sets of numbers have a kernel of their own."""

CHUNK = 16
"""Lanes in one kernel. More save calls (a tenth of a millisecond each) and cost compilation time."""


class CompiledLanes:
    """Lanes of one rule and dtype, each of a single contiguous parameter, that one kernel writes.

    What a scheduler may change enters the kernel as tensors: lr, decay and all that depends on the time, and every
    number among the settings of the rule. So it is compiled once. (A rule of one's own that cannot take tensors for its
    settings is compiled anew when they change.)

    Args:
        lanes: what it writes.
        optimizer: whose lanes they are.
        rules: theirs.
    """

    def __init__(self, lanes: list[Lane], optimizer: Adapter, rules: Rules) -> None:
        self.ids = [id(lane.parameters[0]) for lane in lanes]
        self.lanes = lanes
        self.own_lr = lanes[0].own_lr
        self._element_rule = optimizer.element_rule
        self._settings = rules.settings
        self._structure = rules.structure
        self._tensors = self._takes_tensors()
        self._kernels: dict[str, Callable[..., object]] = {}

    @property
    def which(self) -> int:
        """Of the terms of a step."""
        return self.lanes[0].which

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that it writes."""
        return [lane.parameters[0] for lane in self.lanes]

    def follow(self, lanes: list[Lane], settings: Group) -> None:
        """Take over the lanes of this step and what the settings are now."""
        self.lanes, self._settings = lanes, settings

    def agrees(self, due: Due, large: Mapping[int, tuple[Lane, list[int]]]) -> bool:
        """Whether what it writes is still on the same terms, and remembers what it did."""
        which = {large[number][0].which for number in self.ids if number in large}
        return len(which) < 2 and all(due.terms[each].rules.structure == self._structure for each in which)

    def write(
        self,
        gradients: list[Tensor],
        observations: Mapping[str, Tensor],
        times: Sequence[int],
        rates: Rates,
    ) -> None:
        """One write of every parameter; element-wise rules observe nothing but gradients."""
        lines = [as_real(parameter.detach()).view(-1) for parameter in self.parameters]
        flat = [gradient.reshape(-1) for gradient in rates.downhill(gradients)]
        buffers = [lane.stack.take(lane.places) for lane in self.lanes]
        found = [self.lanes[0].rule.scalars(time) for time in times]
        # As tensors, these change from step to step without a new compilation.
        numbers = [torch.as_tensor(number, dtype=torch.float64) for number in (rates.lr, rates.retention)]
        table = [[time, *scalars.values()] for time, scalars in zip(times, found, strict=True)]
        each = torch.tensor(table, dtype=torch.float64).to(lines[0].device, non_blocking=True)
        settings = _as_tensors(self._settings) if self._tensors else self._settings
        self._run((lines, flat, buffers, numbers, each, settings), tuple(found[0]))

    def _run(self, arguments: tuple[Any, ...], names: tuple[str, ...]) -> None:
        """Call the kernel for these arguments; what of them is no tensor is a part of it."""
        leaves = tree_leaves(arguments)
        kinds = [(line.shape, line.dtype, line.device) for line in arguments[0]]
        key = repr((names, kinds, [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]))
        if key not in self._kernels:
            if len(self._kernels) == MOST_KERNELS:
                warnings.warn(
                    f"compile=True: a rule that takes its settings as numbers alone has had {MOST_KERNELS} sets of "
                    "them, further ones are not compiled",
                    stacklevel=2,
                )
                self._write(names, *arguments)
                return
            self._kernels[key] = torch.compile(_recorded(partial(self._write, names), arguments), dynamic=False)
        self._kernels[key](*(leaf for leaf in leaves if isinstance(leaf, Tensor)))

    def _write(
        self,
        names: Sequence[str],
        lines: list[Tensor],
        gradients: list[Tensor],
        buffers: list[dict[str, Tensor]],
        numbers: list[Tensor],
        each: Tensor,
        settings: Group,
    ) -> None:
        lr, retention = numbers
        # Made here, so that whatever the rule computes from its settings is recorded, and computed by the kernel.
        rule = self._make_rule(settings)
        for place, (line, gradient, held) in enumerate(zip(lines, gradients, buffers, strict=True)):
            time, *scalars = each[place].unbind(0)
            seen = {"weight": line.to(memory_dtype(line))}
            known = dict(zip(names, scalars, strict=True))
            context = Context(time=time, lr=lr, retention=retention, scalars=known, parameters=seen)
            update = remember(rule, gradient.to(memory_dtype(line)), held, context)
            step_weights([line], update, lr, retention)

    def _make_rule(self, settings: Group) -> Rule:
        return as_rule(with_average(self._element_rule(settings), settings["averaged_weights"]))

    def _takes_tensors(self) -> bool:
        """Whether the rule works on settings that are tensors; one that does not is compiled for their numbers."""

        def tried(line: Tensor, settings: Group) -> None:
            rule = self._make_rule(settings)
            buffers = flatten(rule.init({"weight": line}).get("weight", {}))
            remember(rule, line, buffers, Context(time=0, scalars=rule.scalars(0), parameters={"weight": line}))

        try:
            _recorded(tried, (torch.zeros(1), _as_tensors(self._settings)))
        except (RuntimeError, TypeError, ValueError):
            return False
        return True


def _recorded(function: Callable[..., None], arguments: tuple[Any, ...]) -> Callable[..., object]:
    """What a function does to the tensors among its arguments, as a function of these alone."""
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second to load

    leaves, form = tree_flatten(arguments)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def of_tensors(*given: Tensor) -> None:
        held = dict(zip(places, given, strict=True))
        function(*tree_unflatten([held.get(place, leaf) for place, leaf in enumerate(leaves)], form))

    # The tensors stand for any of their kind: nothing is computed, and what asks for a number is refused.
    traced = make_fx(of_tensors, tracing_mode="fake", _allow_non_fake_inputs=True)
    recorded: Callable[..., object] = traced(*(leaves[place] for place in places))
    return recorded


Written = list[tuple[Lane | FusedLane | CompiledLanes, list[int]]]
"""Lanes, and which parameters of a step each of them writes."""


def compile_lanes(optimizer: Adapter, due: Due, written: Written, made: list[CompiledLanes]) -> Written:
    """The lanes of a step with those put together that one kernel writes.

    A kernel is made for the large lanes of the first step. One that is not needed whole, as some of its parameters
    have no gradient, rests: those that have one are written by their own lanes, with the same result.

    Args:
        optimizer: whose lanes they are.
        due: what is written.
        written: lanes, and which parameters of the step each of them writes.
        made: the kernels so far; new ones are appended.
    """
    large = {id(lane.parameters[0]): (lane, order) for lane, order in written if _compilable(lane)}
    present = set(due.members)
    made[:] = [kernel for kernel in made if present.issuperset(kernel.ids) and kernel.agrees(due, large)]
    covered = {number for kernel in made for number in kernel.ids}
    kinds: dict[tuple[int, bool, torch.dtype, torch.device], list[Lane]] = {}
    for number, (lane, _) in large.items():
        if number not in covered:
            first = lane.parameters[0]
            kinds.setdefault((lane.which, lane.own_lr, first.dtype, first.device), []).append(lane)
    for alike in kinds.values():
        rules = due.terms[alike[0].which].rules
        chunks = [alike[start : start + CHUNK] for start in range(0, len(alike), CHUNK)]
        made += [CompiledLanes(chunk, optimizer, rules) for chunk in chunks]
    found: Written = [each for each in written if not _compilable(each[0])]
    for kernel in made:
        pairs = [large[number] for number in kernel.ids if number in large]
        if len(pairs) == len(kernel.ids):
            kernel.follow([lane for lane, _ in pairs], due.terms[pairs[0][0].which].rules.settings)
            found.append((kernel, [order[0] for _, order in pairs]))
        else:
            found += pairs
    return found


def _compilable(lane: Lane | FusedLane | CompiledLanes) -> TypeGuard[Lane]:
    # What a rule does at some times only, one kernel cannot do: the time is a tensor there.
    if not isinstance(lane, Lane) or lane.schedule is not always:
        return False
    return lane.alone and lane.parameters[0].is_contiguous()


def _as_tensors(settings: Group) -> Group:
    """Settings with their numbers as 0-D tensors, which a kernel reads at each call."""
    return {name: _as_tensor(value) for name, value in settings.items()}


def _as_tensor(value: object) -> object:
    if isinstance(value, dict):
        return _as_tensors(value)
    if isinstance(value, tuple | list):
        return tuple(_as_tensor(item) for item in value)
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else value
