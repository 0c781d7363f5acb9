"""torch.compile takes named models whole, forward and backward, torch.export any batch; neither changes a number."""

import pytest
import torch
import torch._dynamo.utils  # counts graphs
from every_model import CASES, model, text
from torch import Tensor, nn
from torch.export import Dim, export

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own look
LEARNING = [name for name in CASES if "next token" in name]
some_models = pytest.mark.parametrize("name", ["gated_delta_net", "hope"])
"""With every kind of layer among them, but attention."""


def outputs_and_slopes(run: object, module: nn.Module, given: Tensor) -> list[Tensor]:
    y = run(given)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), list(module.parameters()), materialize_grads=True)]


@pytest.mark.slow
@some_models
def test_a_compiled_model_gives_the_same_numbers(name):
    """In one graph, over three whole chunks and a ragged one; the compiler behind it takes minutes."""
    network, given = model(name, depth=1), text(14)
    torch.compiler.reset()
    found = outputs_and_slopes(torch.compile(network, fullgraph=True, backend="eager"), network, given)
    for one, two in zip(found, outputs_and_slopes(network, network, given), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_compiled_model_goes_on_from_a_state():
    network = model("hope", depth=1)
    with torch.no_grad():
        state = network(text(6), return_state=True)[1]
    torch.compiler.reset()
    found = torch.compile(network, fullgraph=True, backend="eager")(text(7), state, return_state=True)
    torch.testing.assert_close(found, network(text(7), state, return_state=True), rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_blocks_compiled_one_by_one_share_a_graph():
    network, given = model("hope", depth=2), text(9)
    expected = network(given)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    for block in network.blocks:
        block.compile(fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(network(given), expected, rtol=1e-11, atol=1e-12)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@some_models
def test_an_exported_model_takes_any_batch(name):
    network = model(name, depth=1)
    program = export(network, (text(9),), dynamic_shapes=({0: Dim("batch")},), strict=False).module()
    torch.testing.assert_close(program(text(9, 5)), network(text(9, 5)), rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_gated_delta_net_is_exported_for_any_length_from_a_block_on():
    network = model("gated_delta_net", depth=1)
    with torch.no_grad():
        program = export(
            network,
            (text(70),),
            dynamic_shapes=({1: Dim("time", min=64)},),
            prefer_deferred_runtime_asserts_over_guards=True,
        ).module()
    torch.testing.assert_close(program(text(150)), network(text(150)), rtol=1e-11, atol=1e-12)


def test_a_transformer_is_exported_for_any_length():
    network = model("transformer", depth=1)
    program = export(network, (text(9),), dynamic_shapes=({1: Dim("time")},), strict=False).module()
    torch.testing.assert_close(program(text(13)), network(text(13)), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LEARNING)
def test_what_learns_from_the_next_token_is_in_no_graph_and_says_so(name):
    network, given = model(name, depth=1), text(9)
    with pytest.raises(NotImplementedError, match=r"takes slopes within a call.*objective='local'"):
        export(network, (given,), strict=False)
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"takes slopes within a call.*objective='local'"):
        torch.compile(network, fullgraph=True, backend="eager")(given)
