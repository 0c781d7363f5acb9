"""Measurements of curvature: products with the Hessian (O16), and its diagonal for the targets that need it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nestlearn.memory.nesting import Consult, Scene
from nestlearn.memory.state import unflatten
from nestlearn.optim.adapter import Adapter, Observations
from nestlearn.optim.lanes import matrix_shape, memory_dtype
from nestlearn.optim.ranks import agree, averaged, place
from nestlearn.optim.settings import Group
from nestlearn.optim.sharded import any_sharded
from nestlearn.rules import Link
from nestlearn.rules.shape import from_rows
from nestlearn.targets import GaussNewton, Target

__all__ = ["HOW", "differentiable_twice", "hessian_product", "observe"]

HOW = (
    "Curvature needs the loss with its graph. Call optimizer.step(closure) with\n"
    "    def closure():\n"
    "        optimizer.zero_grad()\n"
    "        loss = ...\n"
    "        loss.backward(retain_graph=True)\n"
    "        return loss"
)


@contextmanager
def differentiable_twice(wanted: bool) -> Iterator[None]:
    """A block in which attention has second slopes: torch's fused kernels of it have none, its plain form has."""
    if not wanted:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield


def observe(optimizer: Adapter, loss: object) -> Observations:
    """The curvature that rules look at and that is due: observation name -> parameter -> [out, in].

    A step that cannot move anything (all learning rates zero), with which distributed checkpoints make states, gets
    zeros instead of an error when there is no graph.
    """
    found: Observations = {}
    wanted: dict[Target, list[Tensor]] = {}
    asked: dict[Tensor, tuple[Tensor, int]] = {}
    for group in optimizer.param_groups:
        links = [
            link for link in optimizer.links(group) if link.observed is not None or "curvature_product" in link.reads
        ]
        if links and any_sharded(group["params"]):
            raise RuntimeError(
                f"{type(optimizer).__name__} observes curvature, which needs whole parameters: these are sharded. Use "
                "DistributedDataParallel, or a target or an objective without it."
            )
        for link in links:
            due = [parameter for parameter in group["params"] if _due(optimizer, parameter, group, link)]
            if link.observed is not None:
                wanted.setdefault(link.observed, []).extend(due)
            else:
                asked.update({parameter: _answer(optimizer, parameter, group, link) for parameter in due})
    if wanted or asked:
        agree(type(optimizer).__name__, [*(each for some in wanted.values() for each in some), *asked])
    idle = loss is None and all(float(group["lr"]) == 0 for group in optimizer.param_groups)
    for target, parameters in wanted.items():
        if parameters:
            diagonals = _diagonals(optimizer, target, parameters, loss, idle)
            found.setdefault(str(target.observation), {}).update(_as_matrices(optimizer, parameters, diagonals))
    if asked:
        answers, signs = [answer for answer, _ in asked.values()], [sign for _, sign in asked.values()]
        if idle:
            products = [torch.zeros_like(answer) for answer in answers]
        else:
            products = hessian_product(loss, list(asked), answers)
        signed = [sign * product for sign, product in zip(signs, averaged(products), strict=True)]
        found["curvature_product"] = _as_matrices(optimizer, list(asked), signed)
    return found


def _due(optimizer: Adapter, parameter: Tensor, group: Group, link: Link) -> bool:
    """Whether the coming step writes a matrix with a measurement."""
    if parameter.grad is None or optimizer.entry(parameter, group).flat:
        return False
    writes, rest = divmod(optimizer.taken(parameter) + 1, group["period"])
    return rest == 0 and any((writes - 1) % every == 0 for every in link.reads.values())


def _answer(optimizer: Adapter, parameter: Tensor, group: Group, link: Link) -> tuple[Tensor, int]:
    """What the memory of O16 answers to this gradient before it is written, and the sign that loss and u differ by."""
    assert parameter.grad is not None, "what has no gradient is not due"
    gradient = _as_matrix(optimizer, parameter, parameter.grad)
    sign = -1 if group["maximize"] else 1
    held = optimizer.state[parameter]
    held = held if "step" in held else optimizer.fresh_state(parameter, group)
    state = unflatten({name: leaf for name, leaf in held.items() if str(name).startswith(f"{link.label}.")})
    rule = optimizer.entry(parameter, group).rule
    assert isinstance(rule, Consult), "a rule with this link consults its memory"
    (member,) = (each for each in rule.memories(gradient.shape) if each.name == link.label)
    rows = member.memory.read(state[link.label], member.key(Scene(sign * gradient)))
    answer = optimizer.entry(parameter, group).cut.together(from_rows(rows, gradient.shape))
    return answer.reshape(parameter.shape).to(parameter.dtype), sign


def _as_matrices(optimizer: Adapter, parameters: list[Tensor], found: list[Tensor]) -> dict[Tensor, Tensor]:
    return {
        parameter: _as_matrix(optimizer, parameter, each) for parameter, each in zip(parameters, found, strict=True)
    }


def _as_matrix(optimizer: Adapter, parameter: Tensor, tensor: Tensor) -> Tensor:
    """Something that is shaped like a parameter as the rule for matrices sees it: [out, in]."""
    matrix = tensor.reshape(matrix_shape(parameter)).to(memory_dtype(parameter))
    turned = optimizer.layers is not None and optimizer.layers.turned(parameter)
    return matrix.mT if turned else matrix


def _diagonals(optimizer: Adapter, target: Target, parameters: list[Tensor], loss: object, idle: bool) -> list[Tensor]:
    if idle:
        return [torch.zeros_like(parameter) for parameter in parameters]
    if isinstance(target, GaussNewton):
        return _gauss_newton(target, parameters)
    signs = _signs(optimizer, parameters)
    products = averaged(hessian_product(loss, parameters, signs))
    return [z * h for z, h in zip(signs, products, strict=True)]


def hessian_product(loss: object, parameters: list[Tensor], vectors: list[Tensor]) -> list[Tensor]:
    """H v for the Hessian of ``loss``: one differentiation of <gradient, v>.

    Raises:
        RuntimeError: if ``loss`` is missing or its graph is gone; the message says how to keep it.
    """
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        got = "no closure was given" if loss is None else f"the closure returned {type(loss).__name__} without a graph"
        raise RuntimeError(f"{got}. {HOW}")
    with torch.enable_grad():
        try:
            slopes = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        except RuntimeError as error:
            if "second time" not in str(error):
                raise
            raise RuntimeError(f"the closure's backward freed its graph (it lacks retain_graph=True). {HOW}") from error
        inner = sum((slope * vector).sum() for slope, vector in zip(slopes, vectors, strict=True))
        if not isinstance(inner, Tensor) or not inner.requires_grad:
            return [torch.zeros_like(parameter) for parameter in parameters]
        return list(torch.autograd.grad(inner, parameters, materialize_grads=True))


def _gauss_newton(target: GaussNewton, parameters: list[Tensor]) -> list[Tensor]:
    with torch.enable_grad():
        loss = target.sampled_loss()  # type: ignore[misc]
        slopes = averaged(torch.autograd.grad(loss, parameters, materialize_grads=True))
    return [target.batch_size * place()[1] * slope.square() for slope in slopes]


def _signs(optimizer: Adapter, parameters: list[Tensor]) -> list[Tensor]:
    """Random signs, drawn from the step counts and so from the optimizer's state: a resumed run draws the same."""
    signs = []
    for number, parameter in enumerate(parameters):
        generator = torch.Generator(parameter.device).manual_seed((optimizer.taken(parameter) << 20) + number)
        draw = torch.randint(0, 2, parameter.shape, generator=generator, device=parameter.device)
        signs.append(draw.to(parameter.dtype) * 2 - 1)
    return signs
