"""The one ``torch.optim`` adapter: every optimizer here is a rule for the weights, and the weights are the first
memory.

The adapter knows nothing of momentum or Adam. It sorts parameters into lanes, hands gradients to rules, applies

    W <- (1 - lr * weight_decay) W - lr * update                                      (M3: decoupled decay is retention)

and keeps what rules remember in ``state[parameter]`` as plain tensors. Subclasses say which rule a matrix gets and
which rule everything else gets.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from nestlearn.memory.rules import Rule
from nestlearn.optim import checks
from nestlearn.optim.compiled import CompiledLanes, compile_lanes
from nestlearn.optim.lanes import Entry, Lane, as_real, flatten, make_lanes, matrix_shape, memory_dtype

__all__ = ["Common", "Optimizer", "Params"]

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Observations = dict[str, dict[Tensor, Tensor]]
Elementwise = Iterable[Tensor | nn.Module | str] | Callable[[str, Tensor], bool]


class Common(TypedDict, total=False):
    """Keywords that every optimizer takes.

    Keys:
        weight_decay: decoupled, as in AdamW: weights shrink by ``lr * weight_decay`` a step (default 0).
        maximize: climb instead of descend (default False).
        period: C of C4. Gradients of ``period`` steps are summed and written together (default 1).
        elementwise: matrices (embeddings, heads) that the element-wise rule should have, not the matrix rule:
            parameters, modules, or shell patterns of parameter names; or a function (name, parameter) -> bool.
        elementwise_lr: learning rate of the element-wise rule; None (default) means ``lr``.
        nonfinite: "raise" (default) stops with FloatingPointError at NaN or infinite gradients, before anything is
            written; "ignore" skips the check, which costs one read of the gradients and, on an accelerator, one
            synchronisation.
        compile: torch.compile the element-wise rules (default False).
    """

    weight_decay: float
    maximize: bool
    period: int
    elementwise: Elementwise | None
    elementwise_lr: float | None
    nonfinite: str
    compile: bool


class Optimizer(torch.optim.Optimizer):
    """Base of every optimizer in ``nestlearn.optim``; see ``Common`` for the keywords they share.

    Subclasses implement ``matrix_rule`` and ``element_rule`` from the settings of a parameter group.
    """

    smallest_side = 2
    """A parameter counts as a matrix when both sides have at least this many entries."""

    reads_weights = False
    """Whether the matrix rule looks at the weights themselves."""

    # Both are caches: what they hold is made anew from the groups and the state when it is missing.
    _plans: dict[int, tuple[list[int], Any, list[Any]]]
    _made: list[tuple[dict[str, Any], tuple[Rule | None, Rule]]]

    def __init__(self, params: Params, lr: float | Tensor, settings: dict[str, Any], **common: Unpack[Common]) -> None:
        unknown = set(common) - set(Common.__annotations__)
        if unknown:
            raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        elementwise = common.pop("elementwise", None)
        self._compile = common.pop("compile", False)
        defaults = {
            "lr": lr,
            "weight_decay": 0.0,
            "maximize": False,
            "period": 1,
            "elementwise_lr": None,
            "nonfinite": "raise",
            **settings,
            **common,
        }
        self._elementwise: list[Tensor] = []
        self._wanted = elementwise if elementwise is None or callable(elementwise) else list(elementwise)
        self._forget_plans()
        super().__init__(params, defaults)
        checks.all_selected(self, self._wanted)

    def matrix_rule(self, group: dict[str, Any]) -> Rule | None:
        """The rule for matrices; None gives them the element-wise rule."""
        return None

    def element_rule(self, group: dict[str, Any]) -> Rule:
        """The rule for everything else; it must act on every element alone."""
        raise NotImplementedError

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for settings of a group that this optimizer cannot work with."""

    @property
    def needs_graph(self) -> bool:
        """Whether ``step`` needs a closure that returns the loss with its graph, as measuring curvature does."""
        return False

    def observe(self, loss: Any) -> Observations:
        """Tensors that rules need besides gradients, measured before the step: name -> parameter -> tensor."""
        return {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One optimizer step; ``closure`` re-evaluates the model and returns the loss, as in ``torch.optim``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        checks.gradients(self)
        observations = self.observe(loss)
        for index, group in enumerate(self.param_groups):
            self._advance(index, group, observations)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; settings that it does not name take the optimizer's defaults."""
        before = len(self.param_groups)
        super().add_param_group(param_group)
        try:
            checks.group(self, self.param_groups[-1])
            self._mark_elementwise(self.param_groups[-1])
        except Exception:
            del self.param_groups[before:]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; memories keep the precision they were saved with.

        Raises:
            ValueError: if the state does not fit this optimizer and its parameters. Nothing has changed then.
        """
        seen: dict[str, Any] = {}

        def look(_: Any, given: dict[str, Any]) -> None:
            checks.checkpoint(self, given)
            seen.update(given)

        # Registered last, this hook sees the dictionary that earlier hooks made of the given one.
        handle = self.register_load_state_dict_pre_hook(look)
        old_state, old_groups = self.state, self.param_groups
        try:
            super().load_state_dict(state_dict)
            self._restore_precision(seen)
            for group in self.param_groups:
                checks.group(self, group)
            checks.state(self)
        except Exception:
            super().__setstate__({"state": old_state, "param_groups": old_groups})
            raise
        finally:
            handle.remove()
            self._forget_plans()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_elementwise": self._elementwise, "_wanted": None, "_compile": self._compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget_plans()

    @property
    def surprise(self) -> dict[str, Tensor]:
        """The latest surprise of each memory that records it, averaged over parameters: memory name -> 0-D tensor."""
        found: dict[str, list[Tensor]] = {}
        for values in self.state.values():
            for name, tensor in values.items():
                if name.rpartition(".")[2] == "surprise":
                    found.setdefault(name.rpartition(".")[0], []).append(tensor.mean())
        return {name: torch.stack(tensors).mean() for name, tensors in found.items()}

    def fresh_state(
        self, parameter: Tensor, group: dict[str, Any], device: torch.device | str | None = None
    ) -> dict[str, Tensor]:
        """What ``state[parameter]`` holds before the first write; on device "meta" only its names and shapes."""
        entry = self._entry(group, parameter)
        real = as_real(parameter.detach())
        shape = tuple(real.shape) if entry.flat else matrix_shape(real)
        like = torch.zeros(shape, dtype=memory_dtype(real), device=device or real.device)
        generator = None
        if like.device.type != "meta":
            # The same draw for every parameter of a shape: their order and grouping then do not matter.
            generator = torch.Generator(like.device).manual_seed(group.get("seed", 0))
        made = entry.rule.init({"weight": like}, generator)
        if set(made) - {"weight"}:
            raise TypeError(
                f"{type(self).__name__}: a rule for weights keeps what it remembers under the parameter's name, "
                f"{{'weight': {{...}}}}; init of {type(entry.rule).__name__} returned the keys {sorted(made)}"
            )
        state = flatten(made.get("weight", {}))
        if group["period"] > 1:
            state["pending"] = torch.zeros(real.shape, dtype=like.dtype, device=like.device)
        return {"step": torch.zeros((), dtype=torch.float32), **state}

    def initialised(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """``state[parameter]``, made if there is none yet."""
        if not self.state[parameter]:
            self.state[parameter] = self.fresh_state(parameter, group)
        return self.state[parameter]

    def entry(self, parameter: Tensor, group: dict[str, Any]) -> Entry:
        """The rule that writes a parameter, and how: what a description of the optimizer is read from."""
        return self._entry(group, parameter)

    def _advance(self, index: int, group: dict[str, Any], observations: Observations) -> None:
        """Step the parameters of one group that have a gradient."""
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            self.initialised(parameter, group)
        torch._foreach_add_([self.state[parameter]["step"] for parameter in parameters], 1)
        period = group["period"]
        if period > 1:
            for parameter in parameters:
                self.state[parameter]["pending"].add_(as_real(parameter.grad))
            parameters = [parameter for parameter in parameters if int(self.state[parameter]["step"]) % period == 0]
            if not parameters:
                return
        for lane in self._lanes(index, group, parameters):
            self._write(lane, group, observations)
        if period > 1:
            torch._foreach_zero_([self.state[parameter]["pending"] for parameter in parameters])

    def _write(self, lane: Lane | CompiledLanes, group: dict[str, Any], observations: Observations) -> None:
        parameters = lane.parameters
        period = group["period"]
        if period > 1:
            gradients = [self.state[parameter]["pending"] for parameter in parameters]
        else:
            gradients = [as_real(parameter.grad) for parameter in parameters]  # type: ignore[arg-type]
        if group["maximize"]:
            gradients = list(torch._foreach_neg(gradients))
        lr = group["lr"] if lane.own_lr or group["elementwise_lr"] is None else group["elementwise_lr"]
        lr = lr.reshape(()) if isinstance(lr, Tensor) else lr
        retention = 1 - lr * group["weight_decay"] if group["weight_decay"] else 1.0
        seen = {
            name: torch.stack([values[parameter] for parameter in parameters])
            for name, values in observations.items()
            if parameters[0] in values
        }
        time = int(self.state[parameters[0]]["step"]) // period - 1
        lane.write(gradients, seen, time, lr, retention)

    def _lanes(self, index: int, group: dict[str, Any], parameters: list[Tensor]) -> list[Any]:
        """The lanes of these parameters: those of the last step if nothing has changed since."""
        rules = self._rules(group)
        ids = [id(parameter) for parameter in parameters]
        plan = self._plans.get(index)
        if plan is not None and plan[0] == ids and plan[1] is rules and all(lane.bound(self.state) for lane in plan[2]):
            return plan[2]
        entries = [self._entry(group, parameter) for parameter in parameters]
        lanes: list[Any] = make_lanes(entries, self.state, reads_weights=self.reads_weights)
        if self._compile:
            lanes = compile_lanes(lanes)
        self._plans[index] = (ids, rules, lanes)
        return lanes

    def _entry(self, group: dict[str, Any], parameter: Tensor) -> Entry:
        matrix_rule, element_rule = self._rules(group)
        real = not parameter.is_complex()
        matrix = real and parameter.ndim > 1 and min(matrix_shape(parameter)) >= self.smallest_side
        own = matrix and id(parameter) not in self._elementwise_ids
        if own and matrix_rule is not None:
            return Entry(parameter, matrix_rule, False, True)
        return Entry(parameter, element_rule, True, own or not real)

    def _rules(self, group: dict[str, Any]) -> tuple[Rule | None, Rule]:
        """(matrix rule, element rule), made anew only when a setting has changed; lr and decay are not theirs."""
        settings = {name: value for name, value in group.items() if name not in _NOT_THE_RULES}
        for known, rules in self._made:
            if known == settings:
                return rules
        rules = (self.matrix_rule(group), self.element_rule(group))
        self._made = [*self._made[-63:], (settings, rules)]
        return rules

    def _mark_elementwise(self, group: dict[str, Any]) -> None:
        self._elementwise += checks.select(self, group, self._wanted)
        self._elementwise_ids = {id(parameter) for parameter in self._elementwise}

    def _restore_precision(self, loaded: dict[str, Any]) -> None:
        """torch casts a loaded state to the parameter's dtype: put the memories back as they were saved."""
        saved_ids = [number for group in loaded["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(saved_ids, parameters, strict=True):
            for name, tensor in loaded["state"].get(number, {}).items():
                if isinstance(tensor, Tensor):
                    device = tensor.device if name in ("step", "pending_rows") else parameter.device
                    self.state[parameter][name] = tensor.detach().to(device, copy=True)

    def _forget_plans(self) -> None:
        self._plans = {}
        self._made = []
        self._elementwise_ids = {id(parameter) for parameter in self._elementwise}


_NOT_THE_RULES = {
    "params",
    "param_names",
    "lr",
    "weight_decay",
    "elementwise_lr",
    "maximize",
    "nonfinite",
    "initial_lr",
}
