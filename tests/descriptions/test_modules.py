"""Modules as memories, alone and together with whatever writes them."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nestlearn as nl
from nestlearn.tasks.networks import ByteTransformer


def convolutional() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))


def test_layers_are_memories_that_back_propagation_writes():
    system = nl.describe(ByteTransformer(32, 3, 4, 16))
    assert len(system.levels) == 1
    rows = {memory.name: memory for memory in system.memories}
    query = rows["blocks.*.query"]
    assert (query.model, query.count, query.parameters) == ("Linear 32 -> 32", 3, 3 * 32 * 32)
    assert (query.key, query.value, query.objective) == ("x", "-delta", "dot_product")
    assert query.rule == "no optimizer was given"
    assert system.parameters == sum(p.numel() for p in ByteTransformer(32, 3, 4, 16).parameters())


def test_a_layer_is_a_dot_product_memory_of_its_input_and_error_signal_exactly():
    """What the rows say: dL/dW is the gradient of <f(x), delta> with delta held fixed, for layers of any kind."""
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 2)).double()
    seen = {}
    for layer in model:

        def watch(layer, inputs, output):
            output.retain_grad()
            seen[layer] = (inputs[0].detach(), output)

        layer.register_forward_hook(watch)
    model(torch.randn(6, 5).double()).square().sum().backward()
    inputs_and_errors = {layer: (x, y.grad) for layer, (x, y) in seen.items()}
    for layer, (x, delta) in inputs_and_errors.items():
        for parameter in layer.parameters():
            (found,) = torch.autograd.grad((layer(x) * delta).sum(), parameter)
            torch.testing.assert_close(found, parameter.grad)


def test_optimizer_and_model_are_one_system_in_any_order():
    model = ByteTransformer(32, 3, 4, 16)
    optimizer = nl.optim.Muon(model.named_parameters(), elementwise=[model.tokens, model.positions, model.head])
    system = nl.describe(optimizer, model)
    assert nl.describe(model, optimizer) == system
    assert [memory.name for memory in system.memories if memory.home == "optimizer"] == ["momentum"]
    assert {memory.name for memory in system.memories if memory.home == "weights"} == {
        f"blocks.*.{name}" for name in ("query", "key", "value", "output", "up", "down")
    }
    (rest,) = system.others
    assert {"tokens", "head", "norm"} <= {memory.name for memory in rest.memories}
    assert system.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert system.state_bytes == nl.describe(optimizer).state_bytes


def test_layers_whose_parameters_follow_two_rules_name_them():
    model = nn.Sequential(nn.Linear(4, 3))
    system = nl.describe(nl.optim.Muon(model.parameters()), model)
    assert system.memories[0].name == "0.weight" and system.others[0].memories[0].name == "0.bias"


def test_running_statistics_are_boxes_and_frozen_parameters_are_said():
    model = convolutional()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    system = nl.describe(optimizer, model)
    boxes = {memory.name: memory for memory in system.memories if memory.home == "model"}
    assert set(boxes) == {"*.running_mean", "*.running_var"}
    assert boxes["*.running_mean"].bytes == 32 and boxes["*.running_var"].initial == "1"
    assert system.notes == (
        "frozen, so nothing writes them: 1 matrix and 1 vector, 224 entries (0.weight, 0.bias)",
        "not given to the optimizer, so nothing writes them: 2 vectors, 16 entries (1.weight, 1.bias)",
    )
    assert system.state_bytes == 0  # the boxes are the model's


def test_running_statistics_are_written_as_the_box_says():
    layer = nn.BatchNorm1d(4).double()
    box = next(memory for memory in nl.describe(layer).memories if memory.name == "running_mean")
    memory = nl.AssociativeMemory(nl.memory.Constant(), nl.memory.l2, nl.memory.GradientDescent(lr=float(box.lr)))
    state = memory.init((4,), dtype=torch.float64)
    for _ in range(5):
        batch = torch.randn(8, 4).double()
        layer(batch)
        state, _ = memory.write(state, batch.mean(0), batch.mean(0))
    torch.testing.assert_close(state["model"]["value"], layer.running_mean)


def test_shared_weights_are_counted_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert nl.describe(model).parameters == 4 * 4 + 4 + 4


def test_averaged_weights_are_a_slower_box():
    model = nn.Linear(4, 3)
    average = AveragedModel(model)
    (box,) = nl.describe(average).memories
    assert (box.model, box.parameters, box.lr) == ("box", 15, "1 / (n_averaged + 1)")
    system = nl.describe(torch.optim.Adam(model.parameters()), average)
    assert [memory.name for memory in system.memories][:2] == ["average_weights", "weights"]
    assert len(system.levels) == 3


def test_several_optimizers_are_one_system():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    first, second = torch.optim.SGD(model[0].parameters(), momentum=0.5), nl.optim.Adam(model[1].parameters())
    system = nl.describe(first, second, model)
    assert [part.name for part in system.everything] == ["SGD", "Adam"]
    assert system.parameters == 15 + 8 and not system.notes


def test_parameters_outside_the_model_are_named():
    model, other = nn.Linear(4, 3), nn.Parameter(torch.zeros(5))
    system = nl.describe(torch.optim.SGD([*model.parameters(), other]), model)
    assert [(memory.name, memory.parameters) for memory in system.memories] == [
        ("Linear", 15),
        ("outside the module", 5),
    ]


@pytest.mark.parametrize("objects", [(), (3,), (nn.Linear(2, 2), nn.Linear(2, 2)), ("SGD",)])
def test_anything_else_is_refused(objects):
    with pytest.raises(TypeError, match=r"describe takes torch.optim optimizers and at most one torch.nn.Module, got"):
        nl.describe(*objects)


@pytest.mark.parametrize("kind", [torch.optim.SGD, nl.optim.Muon])
def test_an_optimizer_without_trained_parameters_has_no_memories(kind):
    layer = nn.Linear(3, 2).requires_grad_(False)
    system = nl.describe(kind(layer.parameters()), layer)
    assert system.memories == () and "none of its parameters is trained" in system.notes
    assert "no memories" in str(system) and "<svg" in system.svg()
