"""The one ``torch.optim`` adapter: every optimizer here is a rule for the weights, and the weights are the first
memory.

The adapter knows nothing of momentum or Adam. It sorts parameters into lanes, hands gradients to rules, applies

    W <- (1 - lr * weight_decay) W - lr * update                                      (M3: decoupled decay is retention)

and keeps what rules remember in ``state[parameter]`` as plain tensors. Subclasses say which rule a matrix gets and
which rule everything else gets.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar, Unpack, overload

import torch
from torch import Tensor, nn

from nestlearn.memory.rules import Rule
from nestlearn.memory.times import Scalar
from nestlearn.optim import checks, curvature, groups, states
from nestlearn.optim.adapter import Observations
from nestlearn.optim.advance import advance
from nestlearn.optim.averages import Averaging, refuse_averages
from nestlearn.optim.composed import Rules, check_places, default_settings, number_now, overridden, parted
from nestlearn.optim.elementwise import Choice
from nestlearn.optim.lanes import Entry, matrix_shape
from nestlearn.optim.layers import Layers
from nestlearn.optim.made import Made, snapshot
from nestlearn.optim.nonfinite import LetIn, check_gradients
from nestlearn.optim.owners import Owners
from nestlearn.optim.parts import Parts
from nestlearn.optim.paths import paths
from nestlearn.optim.persistence import Checkpoint, check_checkpoint, check_state, restore
from nestlearn.optim.plan import Plan
from nestlearn.optim.settings import COMMON, Common, Group, Settings, default_of, refuse_unknown
from nestlearn.optim.sharded import any_sharded
from nestlearn.rules import Link, adam, gradient

__all__ = ["Common", "Optimizer", "Params"]

Params = Iterable[Tensor] | Iterable[Group] | Iterable[tuple[str, Tensor]]

Loss = TypeVar("Loss")
"""What a closure returns: a number, or a tensor with its graph where curvature is measured."""


class Optimizer(Averaging, torch.optim.Optimizer):
    """Any rule as a ``torch.optim`` optimizer: one for matrices, one for everything else.

    Args:
        params: parameters, named parameters or groups of them. A group may have settings of its own: those below, and
            those of the rules by their paths, ``"matrix.average.retention"`` say, or by the end of one that no other
            path has.
        lr: learning rate.
        settings: of subclasses, which make their rules from them: see ``matrix_rule``.
        matrix: the rule for matrices; None gives them the other one.
        element: the rule for everything else, which acts on every entry alone. None is Adam beside a rule for matrices,
            and gradient descent without one.
        model: the module whose layers are watched; rules that look at layers need it.
        **common: see ``Common``.

    Example:
        >>> import nestlearn as nl
        >>> model = torch.nn.Linear(4, 3)
        >>> rule = nl.rules.chain(nl.rules.average(0.7, nesterov=True), nl.rules.orthogonal())
        >>> optimizer = Optimizer(model.parameters(), lr=0.02, matrix=rule)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()
        >>> sorted(optimizer.state[model.weight])
        ['average.model.value', 'step']

    Named optimizers are subclasses that implement ``matrix_rule`` and ``element_rule`` from the settings of a group.
    """

    smallest_side: int | None = None
    """A parameter counts as a matrix when both sides have at least this many entries; None asks the rule."""

    # The checkpoint that is being loaded.
    _loading: Checkpoint | None = None

    # All follow from the groups, the parameters and the state, and may be forgotten at any time.
    _plan: Plan
    _made: Made
    _parts: Parts

    # Stays for as long as memories do: what was handed out as groups came would be handed out otherwise at once.
    _owners: Owners

    def __init__(
        self,
        params: Params,
        lr: float | Tensor,
        settings: Group | None = None,
        *,
        matrix: Link | None = None,
        element: Link | None = None,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        who = type(self).__name__
        check_places(who, matrix, element)
        if model is not None and not isinstance(model, nn.Module):
            raise TypeError(f"{who}: model= takes the torch.nn.Module to watch, got {type(model).__name__}")
        if settings is None:
            element = element or (gradient() if matrix is None else adam())
            settings = default_settings(matrix, element)
        self._matrix, self._element = matrix, element
        self.layers = None if model is None else Layers(self, model, common.get("unreadable", "raise"))
        common.pop("unreadable", None)
        known = {*settings, *Common.__annotations__, "lr"}
        refuse_unknown(type(self).__name__, set(common) - known, known)
        self.compiles = common.pop("compile", False)
        self._choice = Choice(type(self).__name__, common.pop("elementwise", None))
        self._let_in = LetIn()
        self._owners = Owners()
        self._forget()
        defaults = {"lr": lr, **COMMON, "elementwise_base": None, **settings, **common}
        if not any(name.rpartition(".")[-1] in ("retention", "betas") for name in settings):
            # torch's cyclic schedulers want a momentum to write; where nothing is remembered, nobody reads it.
            defaults["momentum"] = 0.0
        # torch adds names of its own to ``defaults`` later.
        self.declared = tuple(defaults)
        super().__init__(params, Settings(defaults))
        self._choice.check(self.param_groups)
        checks.whole_matrices(self)
        if self.layers is not None:
            self.layers.watch()

    @property
    def model(self) -> nn.Module | None:
        """The module whose layers are watched."""
        return None if self.layers is None else self.layers.model

    def matrix_rule(self, group: Group) -> Link | Rule | None:
        """The rule for matrices; None gives them the element-wise rule."""
        return overridden(self._matrix, "matrix", group)

    def element_rule(self, group: Group) -> Link | Rule:
        """The rule for everything else; it must act on every element alone."""
        rule = overridden(self._element, "element", group)
        if rule is None:
            raise NotImplementedError(f"{type(self).__name__} has settings and no element_rule that uses them")
        return rule

    def check_group(self, group: Group) -> None:
        """Raise ValueError for settings of a group that this optimizer cannot work with."""

    @property
    def needs_graph(self) -> bool:
        """Whether ``step`` needs a closure that returns the loss with its graph, as measuring curvature does."""
        links = [link for group in self.param_groups for link in self.links(group)]
        return any("curvature_product" in link.reads or (link.observed and link.observed.needs_graph) for link in links)

    def observe(self, loss: object) -> Observations:
        """Tensors that rules need besides gradients, measured before the step: name -> parameter -> tensor."""
        found = {} if self.layers is None else self.layers.observe()
        return {**found, **curvature.observe(self, loss)}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], Loss] | None = None) -> Loss | None:
        """One optimizer step; ``closure`` re-evaluates the model and returns the loss, as in ``torch.optim``."""
        refuse_averages(self)
        loss = None
        # Over the measurements too: what is checkpointed runs again there, and has to be what it was.
        with curvature.differentiable_twice(closure is not None and self.needs_graph):
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            groups.own(self, self._choice)
            self._made.begin()
            try:
                check_gradients(self, self._let_in)
                self._write(self.observe(loss))
            finally:
                self._made.end()
        if self.layers is not None:
            self.layers.drop()
        return loss

    def _write(self, observations: Observations) -> None:
        """Let the rules write, with plain tensors in the place of what is sharded."""
        if not any_sharded(chain.from_iterable(group["params"] for group in self.param_groups)):
            advance(self, self._plan, observations)
            return
        parts = self._parts.begin()
        try:
            advance(parts, self._plan, parts.seen(observations))
        finally:
            parts.end()

    def zero_grad(self, set_to_none: bool = True) -> None:
        if self.layers is not None:
            self.layers.drop()
        super().zero_grad(set_to_none)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; settings that it does not name take the optimizer's defaults.

        A partition makes a group of each of its parts.
        """
        before = len(self.param_groups)
        try:
            for given in parted(type(self).__name__, param_group, self._matrix, self._element, self.model):
                settings = Settings.of(given, self.defaults) if isinstance(given, dict) else given
                super().add_param_group(settings)
                groups.finish(self, settings, self._choice)
        except Exception:
            del self.param_groups[before:]
            self._choice.forget(before)
            raise

    def state_dict(self) -> Checkpoint:
        """As torch has it. Where matrices are sharded all ranks take part, and have a share of each memory."""
        shown = self._parts.shown()
        if shown is self.state:
            return super().state_dict()
        kept, self.state = self.state, defaultdict(dict, shown)
        try:
            return super().state_dict()
        finally:
            self.state = kept

    def load_state_dict(self, state_dict: Checkpoint) -> None:
        """Load a state; memories keep the precision they were saved with.

        Raises:
            ValueError: if the state does not fit this optimizer and its parameters. Nothing has changed then.
        """

        def look(_: object, given: Checkpoint) -> None:
            check_checkpoint(self, given)
            self._loading = given

        # Registered last, this hook sees the dictionary that earlier hooks made of the given one.
        handle = self.register_load_state_dict_pre_hook(look)
        old_state, old_groups = self.state, self.param_groups
        try:
            super().load_state_dict(state_dict)
        except BaseException:
            self.state, self.param_groups = old_state, old_groups
            raise
        finally:
            handle.remove()
            self._loading = None
            self._forget()

    def __getstate__(self) -> dict[str, Any]:
        groups.own(self, self._choice)
        watched = None if self.layers is None else (self.layers.model, self.layers.unreadable)
        rules = {"_matrix": self._matrix, "_element": self._element, "_watched": watched}
        own = {"compiles": self.compiles, "declared": self.declared, "_chosen": self._choice.saved()}
        return {**super().__getstate__(), **own, **rules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_choice" not in self.__dict__:  # a copy or an unpickled optimizer, not a loaded state
            if "_chosen" not in self.__dict__:
                raise ValueError(
                    f"this {type(self).__name__} was pickled by an earlier version of nestlearn: make a new one, and "
                    "load a state_dict"
                )
            self._choice = Choice.restored(type(self).__name__, self.__dict__.pop("_chosen"), self.param_groups)
            self._let_in = LetIn()
            self._owners = Owners()
            watched = self.__dict__.pop("_watched")
            self.layers = None if watched is None else Layers(self, *watched)
            self._forget()
        for index, group in enumerate(self.param_groups):
            if not isinstance(group, Settings):  # loaded: a setting that the checkpoint does not know has its default
                group = Settings.of(group, self.defaults)
                self.param_groups[index] = groups.complete(self, group, partial(default_of, self))
        if self._loading is not None:  # before the hooks that torch calls after a load
            restore(self, self._loading)
            for group in self.param_groups:
                checks.settings(self, group)
            check_state(self)
        self._forget()
        if self.layers is not None:
            self.layers.watch()

    @property
    def surprise(self) -> dict[str, Tensor]:
        """The latest surprise of each memory that records it, averaged over parameters: memory name -> 0-D tensor.

        Where ranks share matrices out, over those that this rank owns.
        """
        return {name: torch.stack(tensors).mean() for name, tensors in states.surprises(self).items()}

    def fresh_state(
        self, parameter: Tensor, group: Group, device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        """What ``state[parameter]`` holds before the first write; on device "meta" only its names and shapes."""
        return states.fresh(self, parameter, group, device)

    def taken(self, parameter: Tensor) -> int:
        """How many steps a parameter has taken."""
        state = self.state.get(parameter)
        return int(state["step"]) if state and "step" in state else 0

    def entry(self, parameter: Tensor, group: Group) -> Entry:
        """The rule that writes a parameter, and how: what a description of the optimizer is read from."""
        return self.entry_of(parameter, self.rules(group))

    def entry_of(self, parameter: Tensor, rules: Rules) -> Entry:
        """The same when the rules of its group are known."""
        smallest = rules.smallest_side if self.smallest_side is None else self.smallest_side
        cut = rules.cut
        if self.layers is not None and self.layers.turned(parameter):
            cut = cut._replace(turned=True)
        matrix = parameter.ndim > 1 and min(cut.shape(matrix_shape(parameter))) >= smallest
        own = matrix and parameter not in self._choice
        if own and rules.for_matrices is not None and not parameter.is_complex():
            return Entry(parameter, rules.for_matrices, False, True, cut)
        return Entry(parameter, rules.for_entries, True, own and rules.for_matrices is None)

    def is_elementwise(self, parameter: Tensor) -> bool:
        """Whether a parameter follows the element-wise rule by choice."""
        return parameter in self._choice

    def give_elementwise(self, parameters: Sequence[Tensor]) -> None:
        """Have these follow the element-wise rule, as if they had been named in ``elementwise``."""
        self._choice.send(self.param_groups, parameters)

    def spread(self, wholes: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The part on this rank of tensors as large as a parameter, as a memory of it is: (parameter, tensor)."""
        return self._parts.spread(wholes)

    def rate(self, group: Group, *, own: bool) -> Scalar:
        """The learning rate in force: the named rule's own, or that of the element-wise rule, in proportion to it."""
        lr, other, base = group["lr"], group["elementwise_lr"], group["elementwise_base"]
        named: Scalar = lr.reshape(()) if isinstance(lr, Tensor) else lr
        if own or other is None:
            return named
        found: Scalar = other * (named / base) if base else other * 0.0
        return found

    def rule_settings(self, group: Group) -> Group:
        """The settings of a group that its rules are made from; lr and decay are not theirs."""
        known = self._made.settings(group)
        if known is not None:
            return known
        found = {name: group[name] for name in self._made.names(self)}
        if any(type(value) is dict for value in found.values()):  # schedules
            writes, share = groups.clock(self, group)
            found = {name: number_now(value, writes, share) for name, value in found.items()}
        return {name: snapshot(value) for name, value in found.items()}

    def links(self, group: Group) -> tuple[Link, ...]:
        """Every link of the rule for matrices of a group."""
        return self.rules(group).links

    def reads(self, group: Group) -> Mapping[str, frozenset[int]]:
        """What the rule for matrices of a group looks at besides gradients, and every how many writes."""
        return self.rules(group).reads

    def rules(self, group: Group) -> Rules:
        """The rules of a group, made anew only when a setting has changed; in a step they stay what they are."""
        return self._made.rules(self, group)

    def __repr__(self) -> str:
        """As torch prints it, and which path writes which parameters."""
        written = "\n".join(f"    {line}" for line in paths(self))
        return f"{super().__repr__().removesuffix(')')}\nWritten\n{written}\n)"

    def _forget(self) -> None:
        self._plan = Plan()
        self._made = Made()
        self._parts = Parts(self, self._owners)
