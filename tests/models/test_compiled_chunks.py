"""The body of the loop over chunks compiled alone: one graph for all chunks and blocks, and the same numbers."""

import copy
import pickle

import pytest
import torch
import torch._dynamo.utils  # counts graphs
from every_model import model, text
from torch import Tensor

from nestlearn.layers import SelfModifyingTitans, compile_chunks
from nestlearn.models import LanguageModel

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own look
HOPE = ["hope", "hope, mlp", "titans, query, momentum, l2"]


def outputs_and_slopes(network: LanguageModel, given: Tensor) -> list[Tensor]:
    y = network(given)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), list(network.parameters()), materialize_grads=True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", HOPE)
def test_all_chunks_of_all_blocks_share_a_graph_and_change_no_number(name):
    network, given = model(name, depth=2), text(12)
    expected = outputs_and_slopes(network, given)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compile_chunks(network, backend="eager", dynamic=False)
    for one, two in zip(outputs_and_slopes(network, given), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    first = "momentum" in name  # a box that is empty has no slope: the first chunk is then a graph of its own
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1 + first


@pytest.mark.slow
def test_it_goes_on_from_the_middle_of_a_chunk():
    network = model("hope", depth=1)
    with torch.no_grad():
        _, state = network(text(6), return_state=True)
        expected = network(text(7), state, return_state=True)
        torch.compiler.reset()
        compile_chunks(network, backend="eager")
        torch.testing.assert_close(network(text(7), state, return_state=True), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_a_model_is_copied_and_pickled_with_the_setting():
    network = model("hope", depth=1)
    compile_chunks(network, backend="eager")
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        layers = [layer for layer in other.modules() if isinstance(layer, SelfModifyingTitans)]
        assert [layer.compiled_chunks for layer in layers] == [{"backend": "eager"}]
        torch.testing.assert_close(other(text(5)), network(text(5)))


def test_a_model_without_such_chunks_is_refused():
    with pytest.raises(ValueError, match=r"expected a model with a SelfModifyingTitans.*got LanguageModel without one"):
        compile_chunks(model("transformer"))
