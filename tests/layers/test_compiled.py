"""torch.compile takes every layer in one graph, which serves all lengths of as many chunks.

torch.export takes any batch, and the lengths that a loop over chunks allows.
"""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo.utils  # counts graphs
from every_layer import LAYERS, make
from torch import Tensor, nn
from torch.export import Dim, export

from nestlearn.layers import Attention, MemoryLayer
from nestlearn.layers.sequence import SequenceLayer
from nestlearn.memory.state import State

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own look
KINDS = ("memory", "memory, mlp", "titans", "attention", "continuum, nested")
"""One of each kind: a graph takes seconds, and settings change what is in it, not whether there is one."""

every_kind = pytest.mark.parametrize("name", KINDS)

LOOPS = [name for name in LAYERS if name not in ("attention", "memory", "memory, omega, gate")]


def tokens(batch: int, time: int) -> Tensor:
    return torch.randn(batch, time, 8, dtype=torch.float64)


def after(layer: SequenceLayer, seen: int) -> State:
    """A state without slopes, as a compiler takes inputs."""
    with torch.no_grad():
        state: State = layer(tokens(2, seen), return_state=True)[1]
    return state


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

    Last chunks of one or two tokens are graphs of their own, as a size in them is one, which is never a symbol; and so
    are blocks without anything to fill up.
    """
    assert graphs(make(name, chunk=8), (13, 23, 21)) <= 2


@pytest.mark.slow
def test_so_does_that_of_blocks_solved_together():
    assert graphs(MemoryLayer(8, heads=2).double(), (70, 131, 130)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["titans", "continuum, nested"])
def test_a_state_is_compiled_too_wherever_in_a_chunk_it_stands(name):
    """What is counted in it is looked at by the graph's conditions, not by the graph: five and seven tokens differ."""
    layer = make(name, chunk=4)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    for seen in (5, 7):
        state = after(layer, seen)
        x = tokens(2, 6)
        found, expected = compiled(x, state, return_state=True), layer(x, state, return_state=True)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_attention_is_exported_for_any_length():
    layer = make("attention")
    program = export(layer, (tokens(2, 6),), dynamic_shapes=({1: Dim("time")},), strict=False).module()
    x = tokens(2, 9)
    torch.testing.assert_close(program(x), layer(x), rtol=1e-11, atol=1e-12)


def exported_between(layer: SequenceLayer, least: int, most: int, deferred: bool = False) -> Callable[[Tensor], Tensor]:
    shapes = {0: Dim("batch"), 1: Dim("time", min=least, max=most)}
    given = (tokens(2, min(least + 3, most)),)
    switch = {"prefer_deferred_runtime_asserts_over_guards": deferred}
    with torch.no_grad():
        return export(layer, given, dynamic_shapes=(shapes,), strict=False, **switch).module()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["titans", "continuum, nested"])
def test_a_program_takes_any_batch_and_every_length_of_as_many_chunks(name):
    """From the third token of the last chunk on: single rows are cases of their own in a compiler."""
    layer = make(name, chunk=4)
    program = exported_between(layer, 7, 8)
    for length in (7, 8):
        x = tokens(3, length)
        torch.testing.assert_close(program(x), layer(x), rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["gated_delta", "oja"])
def test_matrix_memories_take_any_length_through_a_loop_of_torch(rule):
    """Of one block, of whole ones and a ragged one, and of more than the traced call had."""
    layer = MemoryLayer(8, heads=2, rule=rule).double()
    program = exported_between(layer, 64, 4096, deferred=True)
    for length in (64, 65, 200):
        x = tokens(3, length)
        torch.testing.assert_close(program(x), layer(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("least", "deferred"), [pytest.param(3, True, marks=pytest.mark.slow), (64, False)])
def test_what_torch_needs_for_that_is_said(least, deferred):
    with pytest.raises(ValueError, match=r"Dim\('time', min=64\).*prefer_deferred_runtime_asserts_over_guards=True"):
        exported_between(MemoryLayer(8, heads=2).double(), least, 4096, deferred)


@pytest.mark.parametrize("name", [LOOPS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in LOOPS[1:])])
def test_other_chunks_are_exported_in_one_number_and_say_so(name):
    with pytest.raises(ValueError, match=r"time dimension was marked as dynamic.*export once for each length"):
        exported_between(make(name, chunk=4), 7, 200)


@pytest.mark.parametrize(
    "name",
    ["titans", *(pytest.param(name, marks=pytest.mark.slow) for name in ("memory, mlp", "continuum, sequential"))],
)
def test_a_program_does_not_go_on_from_a_count_of_chunks_and_says_so(name):
    layer = make(name, chunk=4)
    state = after(layer, 5)
    with pytest.raises(NotImplementedError, match=r"how many tokens the state has seen.*without a state"):
        export(layer, (tokens(2, 6), state), strict=False)


@pytest.mark.parametrize("kind", [Attention, MemoryLayer])
def test_a_program_goes_on_from_a_state_that_counts_no_chunks(kind):
    layer = kind(8, heads=2).double()
    state = after(layer, 5)
    x = tokens(2, 6)
    program = export(layer, (x, state), {"return_state": True}, strict=False).module()
    found, expected = program(x, state, return_state=True), layer(x, state, return_state=True)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
