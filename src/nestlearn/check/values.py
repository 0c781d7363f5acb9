"""Checks of values, shapes and layouts: what a gradient or a parameter may look like."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn.check.compare import same
from nestlearn.check.outcome import claim
from nestlearn.check.subject import Subject
from nestlearn.check.training import Run, agree
from nestlearn.errors import NotApplicable

__all__ = ["CHECKS"]


def nonfinite(subject: Subject) -> None:
    """A gradient with a NaN, and one with an infinite entry, destroys neither weights nor memories."""
    for value in (torch.nan, torch.inf):
        run = Run(subject).steps(range(2))

        def edit(run: Run = run, value: float = value) -> None:
            gradient: Any = run.parameters()[0].grad
            gradient.view(-1)[0] = value

        with contextlib.suppress(Exception):  # told, instead of written
            run.step(2, edit=edit)
        claim(_finite(run.weights()), f"a gradient with one entry {value} makes weights NaN or infinite")
        run.steps(range(3, 6))
        claim(_finite(run.weights()), f"steps after a gradient with one entry {value} make weights NaN or infinite")


def scaled_loss(subject: Subject) -> None:
    """GradScaler leaves out a batch whose gradients are infinite; all else is as without it."""
    if subject.closure:
        raise NotApplicable("GradScaler takes no closure")
    run = Run(subject)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for index, broken in ((0, False), (1, False), (9, True), (2, False), (3, False)):
        run.optimizer.zero_grad()
        scaler.scale(run.loss(index)).backward()
        if broken:
            gradient: Any = run.parameters()[0].grad
            gradient.view(-1)[0] = torch.inf
        before = run.weights()
        torch.default_generator.manual_seed(index)
        scaler.step(run.optimizer)
        scaler.update()
        claim(not broken or same(before, run.weights()), "the broken batch was written")
    agree(subject, run.weights(), Run(subject).steps().weights(), "weights with and without GradScaler")


def every_shape(subject: Subject) -> None:
    """Convolutions, norms, thin matrices and numbers without dimensions are trained together."""
    module = _Mixed().to(subject.dtype)
    optimizer = subject.build(module)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    _fit(subject, module, optimizer, torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(0)).to(subject.dtype))
    for name, old in zip(dict(module.named_parameters()), before, strict=True):
        new = module.get_parameter(name)
        claim(_finite([new]), f"{name} {list(old.shape)} is NaN or infinite")
        claim(not torch.equal(old, new), f"{name} {list(old.shape)} did not move")


class _Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.default_generator.manual_seed(0)
        self.convolution = nn.Conv1d(2, 3, 3)
        self.norm = nn.LayerNorm(4)
        self.thin = nn.Linear(12, 1)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.convolution(inputs).tanh())
        out: Tensor = self.thin(hidden.flatten(1)) * self.scale
        return out


def _fit(subject: Subject, module: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, steps: int = 3) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (module(inputs) - 1).abs().square().mean()
        loss.backward(retain_graph=subject.graph)
        return loss

    for _ in range(steps):
        if subject.closure:
            optimizer.step(closure)  # type: ignore[arg-type]
        else:
            closure()
            optimizer.step()


def empty_parameter(subject: Subject) -> None:
    """A parameter without entries is no obstacle, and changes nothing for the others."""
    module = subject.network()
    shape = (0, 3) if subject.matrices else (0,)
    extra = nn.Parameter(torch.zeros(shape, dtype=subject.dtype))
    run = Run(subject, module, [*module.parameters(), extra])
    for index in range(4):
        run.step(index, edit=lambda: setattr(extra, "grad", torch.zeros_like(extra)))
    agree(subject, run.weights(), Run(subject).steps().weights(), "weights with and without it")


def parameter_layout(subject: Subject) -> None:
    """A parameter that is stored transposed trains as one that is not."""
    module = subject.network()
    for layer in module:
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    agree(subject, Run(subject, module).steps().weights(), Run(subject).steps().weights(), "weights in the two layouts")


def gradient_layout(subject: Subject) -> None:
    """A gradient that is stored transposed, or is one number in all places, counts as any other."""
    run, plain = Run(subject), Run(subject)

    def transposed() -> None:
        for parameter in run.parameters():
            if parameter.grad is not None and parameter.dim() == 2:
                parameter.grad = parameter.grad.t().contiguous().t()

    def spread(target: Run, expand: bool) -> None:
        for parameter in target.parameters():
            value = torch.full_like(parameter, 0.25)
            parameter.grad = torch.tensor(0.25, dtype=value.dtype).expand(value.shape) if expand else value

    for index in range(3):
        run.step(index, edit=transposed)
        plain.step(index)
    run.step(3, edit=lambda: spread(run, True))
    plain.step(3, edit=lambda: spread(plain, False))
    agree(subject, run.weights(), plain.weights(), "weights of the two layouts")


def double_precision(subject: Subject) -> None:
    """float64 parameters stay so, and learn."""
    _learns(subject, torch.float64)


def half_precision(subject: Subject) -> None:
    """bfloat16 parameters stay so, and learn."""
    _learns(subject, torch.bfloat16)


def _learns(subject: Subject, dtype: torch.dtype) -> None:
    more: dict[str, Any] = {}
    if subject.takes("lr"):  # a small one is lost in rounding
        more["lr"] = max(0.02, float(Run(subject).optimizer.param_groups[0]["lr"]))
    run = Run(subject, subject.network(dtype), **more)
    first = float(run.loss(0).detach())
    run.steps([0] * 30)
    claim(all(each.dtype == dtype for each in run.weights()), "the parameters have another dtype")
    last = float(run.loss(0).detach())
    claim(last < first, f"the loss went from {first:.4f} to {last:.4f}")


class _Bag(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.value.flatten() * inputs


def complex_numbers(subject: Subject) -> None:
    """Complex parameters are trained, or refused with an error."""
    shape = (2, 3) if subject.matrices else (6,)
    dtype = torch.complex128 if subject.dtype == torch.float64 else torch.complex64
    module = _Bag(torch.zeros(shape, dtype=dtype))
    inputs = torch.ones(6, dtype=dtype) * 1j
    try:
        optimizer = subject.build(module)
        _fit(subject, module, optimizer, inputs, 10)
    except Exception:  # noqa: BLE001 - libraries have errors of their own
        return
    claim(_finite([module.value]), "the parameters are NaN or infinite")
    imaginary = module.value.detach().imag
    claim(bool((imaginary < 0).all()), "the imaginary parts did not go the right way")


def sparse_gradients(subject: Subject) -> None:
    """Sparse gradients are used, or refused with an error."""
    module = nn.Embedding(5, 3, sparse=True, dtype=subject.dtype)
    before = module.weight.detach().clone()
    rows = torch.tensor([0, 2])
    try:
        optimizer = subject.build(module)
        _fit(subject, module, optimizer, rows)
    except Exception:  # noqa: BLE001 - libraries have errors of their own
        return
    claim(not torch.equal(before[rows], module.weight[rows]), "rows with a gradient did not move")
    claim(_finite([module.weight]), "the weights are NaN or infinite")


def _finite(tensors: list[Any]) -> bool:
    return all(bool(torch.isfinite(each.detach()).all()) for each in tensors)


def apart_from_others(subject: Subject) -> None:
    """Two optimizers of two models, stepping in turn, do not disturb each other."""
    one, two = Run(subject), Run(subject)
    for index in range(4):
        one.step(index)
        two.step(20 + index)
    claim(same(one.weights(), Run(subject).steps().weights()), "weights are others than without the second optimizer")


CHECKS = (
    *(nonfinite, scaled_loss, every_shape, empty_parameter, parameter_layout, gradient_layout, double_precision),
    *(half_precision, complex_numbers, sparse_gradients, apart_from_others),
)
