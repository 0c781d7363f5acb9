"""What must be right before a speed is printed: of a tiny Hope in float64, and of every model that is timed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.optim.gate import Check
from benchmarks.sequence.models import OURS, network, text
from benchmarks.sequence.oracle import slow
from nestlearn.layers import SelfModifyingTitans
from nestlearn.models import LanguageModel, hope

__all__ = ["gate", "mixing", "tiny"]

TIME = 37  # no multiple of a chunk or a period
MIXED, TOKEN = 160, 3


def gate() -> list[Check]:
    """Run every check."""
    checks = []
    for memory in ("matrix", "mlp"):
        model = tiny(memory)
        layer = model.parts["0"]
        assert isinstance(layer, SelfModifyingTitans)
        checks += [
            Check(f"{memory}: token by token = full forward", _cut(model, [1] * TIME), 1e-10),
            Check(f"{memory}: many calls = one", _cut(model, [1, 12, 3, 16, 5]), 1e-10),
            Check(f"{memory}: chunks = the oracle, outputs and gradients", _oracle_error(layer), 1e-10),
        ]
    label = f"positions that token {TOKEN} of {MIXED} moves and should not, or the reverse"
    return checks + [Check(f"{name}: {label}", mixing(network(name)), 0) for name in OURS]


def tiny(memory: str) -> LanguageModel:
    """A Hope for float64, with every memory away from the zero where it starts."""
    torch.manual_seed(0)
    model = hope(17, 16, 2, 2, memory=memory, chunk=4, periods=(4, 8)).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.3 * torch.randn_like(parameter) if ".banks." in name else 0
    return model


@torch.no_grad()
def _cut(model: LanguageModel, sizes: list[int]) -> float:
    """Largest difference of the logits when the state is carried over, relative to the largest logit."""
    tokens, state, found = text(2, TIME) % 17, None, []
    whole = model(tokens)
    for piece in tokens.split(sizes, 1):
        logits, state = model(piece, state, True)
        found.append(logits)
    return _difference([torch.cat(found, 1)], [whole])


def mixing(model: nn.Module) -> float:
    """As it is timed, in its training forward: positions from the token on that stay, and earlier ones that move."""
    tokens = text(1, MIXED)
    changed = tokens.clone()
    changed[0, TOKEN] = (changed[0, TOKEN] + 1) % 256
    moved = (model(tokens) != model(changed)).any(-1)[0]
    return float(moved[:TOKEN].sum() + (~moved[TOKEN:]).sum())


def _oracle_error(layer: SelfModifyingTitans) -> float:
    """Of the answers and of the gradients of all parameters."""
    x = torch.randn(2, TIME, layer.dim, dtype=torch.float64)
    parameters = list(layer.parameters())
    found = []
    for form in (layer, lambda x: slow(layer, x)):
        y = form(x)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), parameters)])
    return _difference(*found)


def _difference(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest difference, relative to the largest entry of its tensor."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, truth, strict=True))
