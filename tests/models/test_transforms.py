"""Every language model under torch.func and under activation checkpointing."""

from __future__ import annotations

import pytest
import torch
from every_model import CASES, model, text
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

import nestlearn as nl

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")

LEARNS = [case for case in CASES if "next token" in case]
every_model = pytest.mark.parametrize("case", CASES)
without_loss = pytest.mark.parametrize("case", [case for case in CASES if case not in LEARNS])


def loss_of(logits: Tensor, tokens: Tensor) -> Tensor:
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def slopes(network: torch.nn.Module, tokens: Tensor) -> list[Tensor]:
    network.zero_grad()
    loss_of(network(tokens), tokens).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def close(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@without_loss
def test_an_ensemble_is_a_loop_over_its_members(case: str) -> None:
    members, tokens = [model(case), model(case)], text(7)
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.mul_(1.1)
    parameters, buffers = stack_module_state(members)
    found = vmap(lambda p, b: functional_call(members[0], (p, b), (tokens,)))(parameters, buffers)
    close(found, torch.stack([member(tokens) for member in members]))


@without_loss
def test_slopes_of_every_text_are_those_of_a_loop(case: str) -> None:
    network, tokens = model(case), text(7)
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return loss_of(functional_call(network, parameters, (one[None],)), one[None])

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, tokens)
    for index in range(len(tokens)):
        close([each[index] for each in found.values()], slopes(network, tokens[index : index + 1]))


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


@pytest.mark.parametrize("case", ["transformer", "hope_attention"])
def test_our_own_curvature_goes_through_our_own_attention(case: str) -> None:
    """Steps with products of the Hessian, equal to those through the plain form of torch's attention."""
    tokens, weights = text(7), []

    def step(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(network(tokens), tokens)
            loss.backward(retain_graph=True)
            return loss

        optimizer.step(closure)

    for backends in ([SDPBackend.MATH], list(SDPBackend.__members__.values())[1:]):
        network = model(case)
        with sdpa_kernel(backends):
            step(network, nl.optim.DeepMomentum(network.parameters(), lr=0.01, hidden=4, objective="quadratic"))
            step(network, nl.optim.PreconditionedMomentum(network.parameters(), lr=0.01, target="hessian"))
        weights.append([parameter.detach().clone() for parameter in network.parameters()])
    close(weights[0], weights[1])
