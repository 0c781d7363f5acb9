"""Momentum as an MLP that is trained online (O5, O6, [S] 5.3)."""

from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from nestlearn.errors import choice
from nestlearn.memory.boxes import average_box, sum_box
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.objectives import Objective, Quadratic, dot_product, hypergradient, l2
from nestlearn.memory.rules import Rule
from nestlearn.ops.matrix import newton_schulz
from nestlearn.optim import curvature
from nestlearn.optim.adam import adam_rule
from nestlearn.optim.checks import one_process
from nestlearn.optim.lanes import matrix_shape, memory_dtype, unflatten
from nestlearn.optim.muon import update_scale
from nestlearn.optim.optimizer import Common, Params
from nestlearn.optim.rows import RowMemory, as_rows, from_rows, unit
from nestlearn.optim.targeted import TargetedOptimizer
from nestlearn.targets import Target

__all__ = ["DeepMomentum"]

OBJECTIVES = ("dot_product", "hypergradient", "l2", "quadratic")


class DeepMomentum(TargetedOptimizer):
    """Momentum as a memory with weights: an MLP from rows of the gradient to rows of a target P (O5, [S] 5.3, [NL] 50).

        theta <- retention theta - inner_lr grad_theta L(M(u), P)        the memory, written first
        W     <- W - lr readout(M(u)),   M(u) = skip + W_outer s(W_inner u) / sqrt(hidden)

    W_outer starts at zero, so the memory begins as its skip path: the normalised gradient, or with ``skip_retention``
    its running average, a linear momentum that the MLP then corrects. Keys and values are rows along the longer side
    of the matrix, scaled together to unit length. Signs: P and M point uphill and the step subtracts ([S] has both
    reversed).

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate, in units that suit AdamW (with objective "quadratic": the share of a Newton step).
        inner_lr: zeta, learning rate of the memory; up to about 4 is stable for "l2".
        retention: alpha, the share of the memory's weights kept by a write. "dot_product" and "hypergradient" are
            bounded by it alone, so it must be below one with them.
        hidden: hidden units of the MLP.
        objective: "l2"; "dot_product"; "hypergradient", where the answer to the last gradient is judged by this one
            and the target is not used (O17); "quadratic", where it is judged by the quadratic model of the loss, with
            one Hessian product a step, which needs ``step(closure)`` with a graph-keeping closure (O16).
        target: P, one of ``nl.targets.TARGETS`` or an instance.
        target_period: P is computed, and the memory written, every so many writes; in between it is only asked.
        levels: 1 writes the MLP by gradient descent; 2 by another MLP memory for each of its two matrices, and so on
            without limit (O6).
        skip_retention: retention of the linear momentum on the skip path; 0 leaves the plain gradient.
        readout: "newton_schulz", or "identity" for the memory's answer itself.
        memory: "mlp" (or True), "matrix" for a linear memory, or False for the control: the same read-out of the skip
            path alone, which is the plain gradient when ``skip_retention`` is 0.
        seed: of the MLP's first weights.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        inner_lr: float = 0.1,
        retention: float = 0.999,
        hidden: int = 64,
        objective: str = "l2",
        target: str | Target = "second_moment",
        target_period: int = 1,
        levels: int = 1,
        skip_retention: float = 0.8,
        readout: str = "newton_schulz",
        memory: bool | str = True,
        seed: int = 0,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "inner_lr": inner_lr,
            "retention": retention,
            "hidden": hidden,
            "objective": objective,
            "target": target,
            "target_period": target_period,
            "levels": levels,
            "skip_retention": skip_retention,
            "readout": readout,
            "memory": memory,
            "seed": seed,
        }
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        choice("objective", group["objective"], OBJECTIVES)
        choice("readout", group["readout"], ("identity", "newton_schulz"))
        if not isinstance(group["memory"], bool):
            choice("memory", group["memory"], ("mlp", "matrix"))
        if group["objective"] == "quadratic" and group["period"] > 1:
            raise ValueError(
                "objective 'quadratic' measures curvature at the answer to each gradient, and with a period above 1 "
                "the memory is asked about their sum: use period=1"
            )
        if group["objective"] in ("dot_product", "hypergradient") and group["retention"] >= 1:
            raise ValueError(f"objective {group['objective']!r} has no minimum: retention must be below 1, got 1")

    @property
    def needs_graph(self) -> bool:
        quadratic = any(group["objective"] == "quadratic" and group["memory"] for group in self.param_groups)
        return quadratic or super().needs_graph

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return adam_rule((0.9, 0.999), 1e-8)

    def matrix_rule(self, group: dict[str, Any]) -> Rule:
        if not group["memory"]:
            return Consult(
                memories=lambda shape: _skip_memories(group),
                combine=lambda scene: _read_out(_skip(scene, group), scene, group),
                update_is=_update_words(group, self.target(group)),
            )
        return Consult(
            memories=lambda shape: _memories(shape, group, self.target(group)),
            combine=lambda scene: _read_out(_skip(scene, group) + scene.answers["momentum"], scene, group),
            update_is=_update_words(group, self.target(group)),
        )

    def observe(self, loss: Any) -> dict[str, dict[Tensor, Tensor]]:
        found = super().observe(loss)
        quadratic = [g for g in self.param_groups if g["objective"] == "quadratic" and g["memory"]]
        if quadratic:
            one_process(self, "curvature", "Train in one process, or take another objective, such as 'l2'.")
            idle = loss is None and all(float(group["lr"]) == 0 for group in self.param_groups)
            found["curvature_product"] = self._curvature_products(quadratic, loss, idle)
        return found

    def _curvature_products(self, groups: list[dict[str, Any]], loss: Any, idle: bool) -> dict[Tensor, Tensor]:
        """H d for the answer d that each memory gives to this gradient before it is written; one product for all."""
        answers: dict[Tensor, Tensor] = {}
        signs: list[int] = []
        for group in groups:
            for parameter in group["params"]:
                if parameter.grad is None or not self._due(parameter, group):
                    continue
                gradient = parameter.grad.reshape(matrix_shape(parameter)).to(memory_dtype(parameter))
                gradient = -gradient if group["maximize"] else gradient
                held = self.state[parameter]
                held = held if "step" in held else self.fresh_state(parameter, group)
                own = {name: leaf for name, leaf in held.items() if str(name).startswith("momentum.")}
                state = unflatten(own)["momentum"]
                memory = _row_memory(group).consulted("momentum", gradient.shape, key=_key, value=_key).memory
                rows = memory.read(state, unit(as_rows(gradient)))
                signs.append(-1 if group["maximize"] else 1)
                answers[parameter] = from_rows(rows, gradient.shape).reshape(parameter.shape).to(parameter.dtype)
        if not answers:
            return {}
        if idle:
            products = [torch.zeros_like(parameter) for parameter in answers]
        else:
            products = curvature.hessian_product(loss, list(answers), list(answers.values()))
        return {
            parameter: sign * product.reshape(matrix_shape(parameter)).to(memory_dtype(parameter))
            for parameter, product, sign in zip(answers, products, signs, strict=True)
        }


@dataclass(frozen=True)
class _MeasuredQuadratic(Quadratic):
    """O16 when H d was measured beforehand: the value holds (-u, H d) side by side."""

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        slope, product = value.chunk(2, -1)
        return answer * slope + 0.5 * answer * product

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        slope, product = value.chunk(2, -1)
        return slope + product


_OBJECTIVES: dict[str, Objective] = {
    "dot_product": dot_product,
    "hypergradient": hypergradient,
    "l2": l2,
    "quadratic": _MeasuredQuadratic(),
}


def _row_memory(group: dict[str, Any]) -> RowMemory:
    return RowMemory(
        model="mlp" if group["memory"] is True else group["memory"],
        hidden=group["hidden"],
        inner_lr=group["inner_lr"],
        retention=group["retention"],
        objective=_OBJECTIVES[group["objective"]],
        levels=group["levels"],
        every=group["target_period"],
        residual=group["objective"] == "quadratic",
    )


def _memories(shape: torch.Size, group: dict[str, Any], target: Target) -> tuple[Consulted, ...]:
    """What the weights' rule consults, in order: target, skip path, last gradient, deep memory."""
    deep, kind = _row_memory(group), group["objective"]
    if kind == "quadratic":
        return (deep.consulted("momentum", shape, key=_key, value=_quadratic_value, value_is="rows of -u, H M(u)"),)
    found = target.memories(shape) if kind in ("l2", "dot_product") else ()
    delayed = kind == "hypergradient" or target.delayed
    found = (*found, *_skip_memories(group, fresh=not delayed))
    if delayed:
        found = (*found, sum_box("previous", 0.0, fresh=False))
    key = _previous_key if delayed else _key

    def value(scene: Scene) -> Tensor:
        if kind == "hypergradient":
            return -_key(scene)  # the answer is subtracted from the weights
        wanted = unit(as_rows(target(scene)))
        if kind == "dot_product":
            return wanted
        # What the MLP has to add to the skip path as it was when the key was seen.
        return wanted - (_past_skip(scene, group) if delayed else _skip(scene, group))

    key_is, query_is = ("rows of previous", "rows of u") if delayed else ("rows of u", "")
    words = {"key_is": key_is, "value_is": _value_words(group, target), "query_is": query_is}
    return (*found, deep.consulted("momentum", shape, key=key, value=value, query=_key, **words))


def _value_words(group: dict[str, Any], target: Target) -> str:
    if group["objective"] == "hypergradient":
        return "rows of -u"
    wanted = f"rows of {target.value_is}"
    # A value that comes late is compared with the skip path as it was when the key was seen.
    return wanted if group["objective"] == "dot_product" else f"{wanted} - {_skip_words(group, target.delayed)}"


def _skip_words(group: dict[str, Any], delayed: bool) -> str:
    with_box, without = ("past_skip", "previous") if delayed else ("skip", "u")
    return with_box if group["skip_retention"] and group["objective"] != "quadratic" else without


def _update_words(group: dict[str, Any], target: Target) -> str:
    """The update in words; the skip path includes this gradient."""
    late = group["objective"] == "hypergradient" or target.delayed
    skip = "past_skip with u" if late and group["memory"] and group["skip_retention"] else _skip_words(group, False)
    quadratic = group["memory"] and group["objective"] == "quadratic"
    answer = "momentum" if quadratic else f"{skip} + momentum" if group["memory"] else skip
    if group["readout"] == "newton_schulz":
        return f"0.2 sqrt(max(out, in)) NS({answer})"
    return answer if quadratic else f"0.2 sqrt(d) ({answer})"


def _skip_memories(group: dict[str, Any], *, fresh: bool = True) -> tuple[Consulted, ...]:
    linear = group["skip_retention"] and group["objective"] != "quadratic"
    name = "skip" if fresh else "past_skip"
    return (average_box(name, group["skip_retention"], fresh=fresh),) if linear else ()


def _key(scene: Scene) -> Tensor:
    return scene.once("key", lambda scene: unit(as_rows(scene.gradient)))


def _previous_key(scene: Scene) -> Tensor:
    return unit(as_rows(scene.answers["previous"]))


def _skip(scene: Scene, group: dict[str, Any]) -> Tensor:
    """What a memory that knows nothing answers; a residual memory has it in its own answer."""
    if group["objective"] == "quadratic" and group["memory"]:
        return torch.zeros_like(as_rows(scene.gradient))
    if "skip" in scene.answers:
        return scene.once("skip", lambda scene: unit(as_rows(scene.answers["skip"])))
    if "past_skip" in scene.answers:
        share = group["skip_retention"]
        return unit(as_rows(torch.lerp(scene.gradient, scene.answers["past_skip"], share)))
    return _key(scene)


def _past_skip(scene: Scene, group: dict[str, Any]) -> Tensor:
    """The skip path before this gradient."""
    return unit(as_rows(scene.answers["past_skip"])) if "past_skip" in scene.answers else _previous_key(scene)


def _quadratic_value(scene: Scene) -> Tensor:
    """(-u, H d), u of unit length as the key is."""
    return torch.cat([-_key(scene), as_rows(scene.observations["curvature_product"])], -1)


def _read_out(rows: Tensor, scene: Scene, group: dict[str, Any]) -> Tensor:
    answer = from_rows(rows, scene.gradient.shape)
    if group["objective"] == "quadratic" and group["memory"]:
        # The memory was asked about a gradient of unit length: give its answer the gradient's own length.
        rows_of_gradient = as_rows(scene.gradient)
        answer = answer * (torch.linalg.matrix_norm(rows_of_gradient, keepdim=True) / rows.shape[-2] ** 0.5)
        return answer if group["readout"] == "identity" else newton_schulz(answer) * update_scale(answer.shape, "rms")
    if group["readout"] == "newton_schulz":
        return newton_schulz(answer).mul_(update_scale(answer.shape, "rms"))
    # Rows of unit length have entries of mean square 1 / d; Adam's updates have about 0.2 squared.
    return answer * (0.2 * rows.shape[-1] ** 0.5)
