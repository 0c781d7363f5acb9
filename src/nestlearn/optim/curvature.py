"""Measurements of curvature: products with the Hessian (O16), and its diagonal for the targets that need it."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nestlearn.optim.lanes import matrix_shape, memory_dtype
from nestlearn.targets import GaussNewton, Target

if TYPE_CHECKING:
    from nestlearn.optim.optimizer import Optimizer

__all__ = ["HOW", "hessian_product", "measure"]

HOW = (
    "Curvature needs the loss with its graph. Call optimizer.step(closure) with\n"
    "    def closure():\n"
    "        optimizer.zero_grad()\n"
    "        loss = ...\n"
    "        loss.backward(retain_graph=True)\n"
    "        return loss"
)

Observations = dict[str, dict[Tensor, Tensor]]


def measure(
    optimizer: "Optimizer", wanted: dict[Target, list[Tensor]], loss: Any, *, idle: bool = False
) -> Observations:
    """What each target needs for its parameters: observation name -> parameter -> [out, in].

    ``idle`` marks a step that cannot move anything (all learning rates zero), with which distributed checkpoints make
    states; it is given zeros instead of an error when there is no graph.
    """
    found: Observations = {}
    for target, parameters in wanted.items():
        if idle and loss is None:
            diagonals = [torch.zeros_like(parameter) for parameter in parameters]
        elif isinstance(target, GaussNewton):
            diagonals = _gauss_newton(target, parameters)
        else:
            signs = _signs(optimizer, parameters)
            diagonals = [z * h for z, h in zip(signs, hessian_product(loss, parameters, signs), strict=True)]
        place = found.setdefault(str(target.observation), {})
        for parameter, diagonal in zip(parameters, diagonals, strict=True):
            place[parameter] = diagonal.reshape(matrix_shape(parameter)).to(memory_dtype(parameter))
    return found


def hessian_product(loss: Any, parameters: list[Tensor], vectors: list[Tensor]) -> list[Tensor]:
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
        slopes = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return [target.batch_size * slope.square() for slope in slopes]


def _signs(optimizer: "Optimizer", parameters: list[Tensor]) -> list[Tensor]:
    """Random signs, drawn from the step counts and so from the optimizer's state: a resumed run draws the same."""
    signs = []
    for place, parameter in enumerate(parameters):
        generator = torch.Generator(parameter.device).manual_seed((optimizer.taken(parameter) << 20) + place)
        draw = torch.randint(0, 2, parameter.shape, generator=generator, device=parameter.device)
        signs.append(draw.to(parameter.dtype) * 2 - 1)
    return signs
