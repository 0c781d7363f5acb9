"""torch.compile takes layers and models whole, forward and backward, and changes no number."""

import pytest
import torch
from torch import Tensor, nn

from nestlearn.layers import Attention, ContinuumMemory, SelfModifyingTitans
from nestlearn.models import MODELS

pytestmark = pytest.mark.slow


def outputs_and_slopes(run: object, module: nn.Module, given: Tensor) -> list[Tensor]:
    y = run(given)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), list(module.parameters()))]


def assert_compiles(module: nn.Module, given: Tensor) -> None:
    """In one graph, forward and backward; the compiler behind it takes minutes, and is tested with the kernel alone."""
    expected = outputs_and_slopes(module, module, given)
    torch.compiler.reset()
    found = outputs_and_slopes(torch.compile(module, fullgraph=True, backend="aot_eager"), module, given)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: SelfModifyingTitans(8, heads=2, chunk=16, memory="mlp"),
        lambda: ContinuumMemory(8, periods=(8, 16), variant="nested"),
        lambda: Attention(8, heads=2),
    ],
    ids=["titans, mlp", "continuum, nested", "attention"],
)
def test_a_compiled_layer_gives_the_same_numbers(layer):
    """In a chunk and a ragged second one; the other kinds of layers are in the models."""
    assert_compiles(layer(), torch.randn(2, 19, 8))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hope", {"chunk": 16, "periods": (16,)}),
        ("gated_delta_net", {}),
    ],
)
def test_a_compiled_model_gives_the_same_numbers(name, options):
    assert_compiles(MODELS[name](17, 8, 1, 2, **options), torch.randint(17, (2, 19)))
