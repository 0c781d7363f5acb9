"""What a drop-in replacement of a torch optimizer has to do: named checks, each of which passes or says why not.

A check takes the key of a contender, builds what it needs anew and returns nothing; an exception is its failure. Each
runs in a process of its own (``isolation.py``). The contender has its default settings and its default learning rate.
"""

import copy
import io
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.optim.workloads import state_tensors
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.isolation import isolated
from benchmarks.peers.problems import Shapes, advance, batch, equal, network, seed_everything, weights

__all__ = ["CHECKS", "nonfinite_gradients", "run_checks"]


def _start(key: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[nn.Sequential, Any]:
    """A network and the contender over it."""
    seed_everything(1)
    model = network(seed, dtype)
    return model, CONTENDERS[key].build(model.parameters(), model)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise AssertionError(reason)


def _go_on(model: nn.Module, optimizer: Any) -> list[Tensor]:
    """The weights after some more steps, with the random generators in a known state."""
    seed_everything(2)
    advance(model, optimizer, range(3, 7))
    return weights(model)


def _require_equal(one: list[Tensor], two: list[Tensor], what: str) -> None:
    gap = max(float((a.float() - b.float()).abs().max()) for a, b in zip(one, two, strict=True))
    _require(equal(one, two), f"{what} by up to {gap:.0e}")


def needs_parameters_only(key: str) -> None:
    """Plain parameters and lr are enough: no model, no marks on parameter groups."""
    contender = replace(CONTENDERS[key], group={}, needs_model=False)
    model = network()
    advance(model, contender.build(model.parameters(), lr=1e-3), [0])


def is_optimizer(key: str) -> None:
    """Schedulers, Accelerate and others test for the class."""
    _require(isinstance(_start(key)[1], torch.optim.Optimizer), "no torch.optim.Optimizer")


def takes_names_and_groups(key: str) -> None:
    """Named parameters are accepted, and a group's own lr is used."""
    model = network()
    CONTENDERS[key].build(model.named_parameters(), model)
    groups = [{"params": [model[0].weight], "lr": 0.0}, {"params": [model[2].weight]}]
    before = weights(model)
    advance(model, CONTENDERS[key].build(groups, model), range(2))
    still, moved = (torch.equal(old, new) for old, new in zip(before, weights(model), strict=True))
    _require(still, "a group with lr=0 moved")
    _require(not moved, "the other group did not move")


def returns_the_loss_of_a_closure(key: str) -> None:
    model, optimizer = _start(key)
    inputs, targets = batch(0)

    def closure() -> Tensor:
        model.zero_grad()
        loss = F.mse_loss(model(inputs), targets)
        loss.backward()
        return loss

    expected = closure().item()
    answer = optimizer.step(closure)
    _require(isinstance(answer, Tensor), f"step(closure) returned {answer!r}")
    _require(answer.item() == expected, f"step(closure) returned {answer.item()}, the loss is {expected}")


def follows_a_scheduler(key: str) -> None:
    """lr 0 at the first step, the base lr at the second."""
    model, optimizer = _start(key)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))
    before = weights(model)
    advance(model, optimizer, [0])
    scheduler.step()
    _require(equal(before, weights(model)), "moved although the scheduler had set lr to 0")
    advance(model, optimizer, [1])
    _require(not equal(before, weights(model)), "did not move after the scheduler had raised lr")


def resumes_from_its_state(key: str) -> None:
    """A fresh optimizer over a copy of the network, given the state_dict, takes the same next steps."""
    model, optimizer = _start(key)
    advance(model, optimizer, range(3))
    fresh, other = _start(key, seed=9)
    fresh.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _require_equal(_go_on(model, optimizer), _go_on(fresh, other), "the next steps differ")


def saves_safely(key: str) -> None:
    """torch.save, torch.load(weights_only=True), load_state_dict; what was remembered comes back."""
    model, optimizer = _start(key)
    advance(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    _, other = _start(key)
    other.load_state_dict(loaded)
    kept, expected = (sum(tensor.numel() for tensor in state_tensors(each)) for each in (other, optimizer))
    _require(kept == expected, f"{kept} of {expected} remembered numbers came back")


def _save_and_finish(key: str, path: str) -> list[list[list[float]]]:
    """In one process: some steps, a checkpoint, the remaining steps."""
    model, optimizer = _start(key)
    advance(model, optimizer, range(3))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    return [tensor.tolist() for tensor in _go_on(model, optimizer)]


def _load_and_finish(key: str, path: str) -> list[list[list[float]]]:
    """In another process: weights and state from the checkpoint, the remaining steps."""
    saved = torch.load(path, weights_only=True)
    model, optimizer = _start(key, seed=9)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return [tensor.tolist() for tensor in _go_on(model, optimizer)]


def _another_process(key: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "checkpoint.pt")
        first, second = isolated(_save_and_finish, key, path), isolated(_load_and_finish, key, path)
    if first.problem or second.problem:
        return first.problem or second.problem
    return None if first.value == second.value else "the next steps differ"


def takes_any_shape(key: str) -> None:
    """Parameters of 0, 1, 2 and 4 dimensions move and stay finite."""
    seed_everything(1)
    model = Shapes()
    optimizer = CONTENDERS[key].build(model.parameters(), model)
    before = weights(model)
    images = torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(5))
    for _ in range(3):
        model.zero_grad()
        (model(images) - 1).square().mean().backward()
        optimizer.step()
    for old, new in zip(before, weights(model), strict=True):
        _require(bool(new.isfinite().all()), f"{new.ndim}-D: not finite")
        _require(not torch.equal(old, new), f"{new.ndim}-D: did not move")


def grows(key: str) -> None:
    """add_param_group after some steps: the new parameter moves."""
    model = network()
    contender = CONTENDERS[key]
    optimizer = contender.build([model[0].weight], model)
    advance(model, optimizer, range(2))
    before = weights(model)
    optimizer.add_param_group({"params": [model[2].weight], **contender.group})
    advance(model, optimizer, range(2))
    _require(not torch.equal(before[1], model[2].weight), "the added parameter did not move")


def leaves_parameters_without_gradient(key: str) -> None:
    model, optimizer = _start(key)
    model[2].weight.requires_grad_(False)
    before = weights(model)
    advance(model, optimizer, range(3))
    moved, still = (torch.equal(old, new) for old, new in zip(before, weights(model), strict=True))
    _require(still, "a parameter without gradient moved")
    _require(not moved, "the parameter with a gradient did not move")


def rests_at_zero(key: str) -> None:
    """Distributed checkpoints make the state exist by a step on zero gradients with lr=0."""
    model, optimizer = _start(key)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = weights(model)
    optimizer.step()
    _require(equal(before, weights(model)), "a step on zero gradients with lr=0 moved the weights")


def keeps_gradients(key: str) -> None:
    """What reads .grad after the step (norms for a log, accumulation) finds what backward left there."""
    model, optimizer = _start(key)
    inputs, targets = batch(0)
    F.mse_loss(model(inputs), targets).backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    optimizer.step()
    _require(all(p.grad is not None for p in model.parameters()), ".grad is None after the step")
    _require(equal(before, [p.grad for p in model.parameters()]), ".grad was changed")


def remembers_in_float32(key: str) -> None:
    """Of bfloat16 weights, and after load_state_dict, which casts to the dtype of the weights by default."""
    model, optimizer = _start(key, torch.bfloat16)
    advance(model, optimizer, range(2))
    _require_float32(optimizer, "during training")
    fresh, other = _start(key, torch.bfloat16)
    fresh.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _require_float32(other, "after load_state_dict")


def _require_float32(optimizer: Any, when: str) -> None:
    found = {t.dtype for t in state_tensors(optimizer) if t.is_floating_point() and t.numel() > 1}
    _require(found <= {torch.float32}, f"{when}: memories are {', '.join(sorted(str(each)[6:] for each in found))}")


def copies_and_pickles(key: str) -> None:
    """deepcopy and pickle of model and optimizer together go on by themselves, with the same bits."""
    for name, duplicate in (("deepcopy", copy.deepcopy), ("pickle", lambda pair: pickle.loads(pickle.dumps(pair)))):
        pair = _start(key)
        advance(*pair, range(3))
        other = duplicate(pair)
        before = weights(other[0])
        advance(*pair, [50])
        _require(equal(before, weights(other[0])), f"{name}: the copy moves with the original")
        pair = _start(key)
        advance(*pair, range(3))
        other = duplicate(pair)
        _require_equal(_go_on(*pair), _go_on(*other), f"{name}: the next steps differ")


def repeats_itself(key: str) -> None:
    """Same seed, same bits."""
    runs = []
    for _ in range(2):
        model, optimizer = _start(key)
        advance(model, optimizer, range(5))
        runs.append(weights(model))
    _require(equal(*runs), "two runs from one seed differ")


CHECKS: dict[str, Callable[[str], None]] = {
    "is a torch.optim.Optimizer": is_optimizer,
    "params and lr suffice": needs_parameters_only,
    "named parameters, groups": takes_names_and_groups,
    "add_param_group": grows,
    "closure returns the loss": returns_the_loss_of_a_closure,
    "lr scheduler": follows_a_scheduler,
    "state_dict continues": resumes_from_its_state,
    "weights_only file": saves_safely,
    "0-D, 1-D, 2-D, 4-D": takes_any_shape,
    "grad is None": leaves_parameters_without_gradient,
    "zero gradient, lr=0": rests_at_zero,
    ".grad is kept": keeps_gradients,
    "float32 memories of bf16": remembers_in_float32,
    "deepcopy, pickle": copies_and_pickles,
    "same seed, same bits": repeats_itself,
}
"""Checks that take one process, by the name that tables show."""


def run_checks(key: str) -> dict[str, str | None]:
    """Every check that counts -> why it failed, None where it passed."""
    found = {name: isolated(check, key).problem for name, check in CHECKS.items()}
    return {**found, "another process continues": _another_process(key)}


def nonfinite_gradients(key: str) -> str:
    """What a NaN in one gradient leads to; for information, since tastes differ."""
    model, optimizer = _start(key)
    advance(model, optimizer, range(2))
    before = weights(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.1)
    model[0].weight.grad[0, 0] = float("nan")
    try:
        optimizer.step()
    except (FloatingPointError, ValueError, RuntimeError) as error:
        return f"raises {type(error).__name__}"
    if equal(before, weights(model)):
        return "skips the step"
    finite = all(tensor.isfinite().all() for tensor in weights(model))
    return "steps on, weights stay finite" if finite else "weights become NaN"
