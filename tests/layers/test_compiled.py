"""torch.compile takes every layer in one graph, which serves all lengths of as many chunks; torch.export any batch."""

import pytest
import torch
import torch._dynamo.utils  # counts graphs
from every_layer import LAYERS, make
from torch import Tensor, nn
from torch.export import Dim, export

from nestlearn.layers import MemoryLayer
from nestlearn.layers.sequence import SequenceLayer

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own look
KINDS = ("memory", "memory, mlp", "titans", "attention", "continuum, nested")
"""One of each kind: a graph takes seconds, and settings change what is in it, not whether there is one."""

every_kind = pytest.mark.parametrize("name", KINDS)


def tokens(batch: int, time: int) -> Tensor:
    return torch.randn(batch, time, 8, dtype=torch.float64)


def outputs_and_slopes(run: object, layer: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = run(x)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()], materialize_grads=True)]


def graphs(layer: SequenceLayer, lengths: tuple[int, ...]) -> int:
    """How many graphs serve these lengths; each gives what the layer gives uncompiled."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    for length in lengths:
        x = tokens(2, length)
        for one, two in zip(outputs_and_slopes(compiled, layer, x), outputs_and_slopes(layer, layer, x), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.slow
@every_kind
def test_a_graph_serves_all_lengths_of_as_many_chunks(name):
    """The first length has a graph of its own, as torch sees only at the second that lengths change.

    Last chunks of one or two tokens are graphs of their own: a size in them is one, which is never a symbol.
    """
    assert graphs(make(name, chunk=8), (13, 22, 21)) <= 2


@pytest.mark.slow
def test_so_does_that_of_blocks_solved_together():
    assert graphs(MemoryLayer(8, heads=2).double(), (70, 131, 130)) == 2


@pytest.mark.slow
@every_kind
def test_a_call_from_a_state_is_compiled_too(name):
    """One that begins within a chunk: how many tokens were seen shapes the loop."""
    layer = make(name, chunk=4)
    _, state = layer(tokens(2, 5), return_state=True)
    torch.compiler.reset()
    x = tokens(2, 7)
    found = torch.compile(layer, fullgraph=True, backend="eager")(x, state, return_state=True)
    torch.testing.assert_close(found, layer(x, state, return_state=True), rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@every_kind
def test_an_exported_layer_takes_any_batch(name):
    layer = make(name, chunk=4)
    program = export(layer, (tokens(2, 6),), dynamic_shapes=({0: Dim("batch")},), strict=False).module()
    x = tokens(5, 6)
    torch.testing.assert_close(program(x), layer(x), rtol=1e-11, atol=1e-12)


def test_attention_is_exported_for_any_length():
    layer = make("attention")
    program = export(layer, (tokens(2, 6),), dynamic_shapes=({1: Dim("time")},), strict=False).module()
    x = tokens(2, 9)
    torch.testing.assert_close(program(x), layer(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "attention"])
def test_chunks_are_exported_for_one_length_and_say_so(name):
    with pytest.raises(ValueError, match=r"time dimension was marked as dynamic.*export once for each length"):
        export(make(name, chunk=4), (tokens(2, 6),), dynamic_shapes=({1: Dim("time")},), strict=False)
