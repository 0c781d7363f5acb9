"""Every language model under torch.func and under activation checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from every_model import CASES, every_model, model, text
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from transforms import close, draw, other

import nestlearn as nl

LEARNS = [case for case in CASES if "next token" in case]
TIME = 11


def loss_of(logits: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def loss_in(network: torch.nn.Module, tokens: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
    return lambda parameters: loss_of(functional_call(network, parameters, (tokens,)), tokens)


def numbers(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def slopes(network: torch.nn.Module, tokens: Tensor) -> list[Tensor]:
    network.zero_grad()
    loss_of(network(tokens), tokens).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


@every_model
def test_batches_and_ensembles_are_loops(case: str) -> None:
    members, tokens = [model(case), other(lambda: model(case))], text(TIME)
    close(vmap(members[0])(tokens.unsqueeze(1)).squeeze(1), members[0](tokens))
    parameters, buffers = stack_module_state(members)
    found = vmap(lambda p, b: functional_call(members[0], (p, b), (tokens,)))(parameters, buffers)
    close(found, torch.stack([member(tokens) for member in members]))


@every_model
@pytest.mark.parametrize("checkpointing", [False, True])
def test_slopes_of_all_texts_and_of_every_one_are_those_of_autograd(case: str, checkpointing: bool) -> None:
    """Checkpoints, which torch.func does not know, are left out there."""
    network, tokens = model(case), text(TIME)
    expected = slopes(network, tokens)
    network.checkpointing = checkpointing
    close(list(grad(loss_in(network, tokens))(numbers(network)).values()), expected)

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return loss_in(network, one[None])(parameters)

    found = vmap(grad(loss), in_dims=(None, 0))(numbers(network), tokens)
    network.checkpointing = False
    for index in range(len(tokens)):
        close([each[index] for each in found.values()], slopes(network, tokens[index : index + 1]))


@every_model
def test_forward_differences_are_the_slopes_the_other_way_round(case: str) -> None:
    network, tokens = model(case), text(TIME)
    ways = {name: draw(*parameter.shape) for name, parameter in numbers(network).items()}
    _, found = jvp(loss_in(network, tokens), (numbers(network),), (ways,))
    pairs = zip(slopes(network, tokens), ways.values(), strict=True)
    close(found, sum((slope * way).sum() for slope, way in pairs))


@every_model
def test_checkpointing_changes_what_is_kept_and_no_slope(case: str) -> None:
    network, tokens = model(case), text(19)
    plain, held = slopes(network, tokens), kept(network, tokens)
    network.checkpointing = True
    close(slopes(network, tokens), plain)
    assert kept(network, tokens) < (held if case in LEARNS else 0.6 * held)
    network.eval()
    with torch.no_grad():
        close(network(tokens), model(case)(tokens))


def kept(network: torch.nn.Module, tokens: Tensor) -> int:
    """Bytes that the graph of a forward pass keeps besides the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(tokens)
    del logits
    return sum(seen.values())


@every_model
def test_checkpoints_from_state_to_state_and_in_half_precision(case: str) -> None:
    """A backward pass within autocast takes the precision that the forward pass had, checkpointed or not."""
    tokens = text(19)

    def found(checkpointing: bool, half: bool) -> list[Tensor]:
        network = model(case, torch.float32 if half else torch.float64, checkpointing=checkpointing)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            first, state = network(tokens[:, :7], return_state=True)
            logits, _ = network(tokens[:, 7:], state, return_state=True)
            (first.float().square().mean() + loss_of(logits.float(), tokens[:, 7:])).backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    for half in (False, True):
        for ours, plain in zip(found(True, half), found(False, half), strict=True):
            assert ours.isfinite().all()
            torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", ["transformer", "hope_attention"])
def test_our_own_curvature_goes_through_our_own_attention(case: str) -> None:
    """Steps with products of the Hessian, equal to those through the plain form of torch's attention; checkpoints are
    computed again as they were.
    """
    tokens, weights = text(7), []

    def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(network(tokens), tokens)
            loss.backward(retain_graph=True)
            return loss

        optimizer.step(closure)

    every = list(SDPBackend.__members__.values())[1:]
    for backends, checkpointing in (([SDPBackend.MATH], False), (every, False), (every, True)):
        network = model(case, checkpointing=checkpointing)
        with sdpa_kernel(backends):
            step(network, nl.optim.DeepMomentum(network.parameters(), lr=0.01, hidden=4, objective="quadratic"))
            step(network, nl.optim.PreconditionedMomentum(network.parameters(), lr=0.01, target="hessian"))
        weights.append([parameter.detach().clone() for parameter in network.parameters()])
    close(weights[1], weights[0])
    close(weights[2], weights[0])
