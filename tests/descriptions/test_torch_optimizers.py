"""Every optimizer of torch, described and rebuilt: the description alone trains as torch does."""

import inspect
import json

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn.descriptions import NestedSystem, rebuild
from nestlearn.descriptions.functions import FUNCTIONS
from nestlearn.descriptions.recipes import RECIPES

O = torch.optim  # noqa: E741
EVERY = sorted(
    name
    for name, kind in vars(O).items()
    if inspect.isclass(kind) and issubclass(kind, O.Optimizer) and kind is not O.Optimizer
)
MUON = getattr(O, "Muon", None)  # the oldest torch that we run on lacks it
SHAPES = [(5, 3), (7,), (4, 3, 2)]

# Class, settings, number of levels and of memories for a matrix.
CASES = [
    (O.SGD, {"lr": 0.1}, 1, 1),
    (O.SGD, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}, 1, 1),
    (O.SGD, {"lr": 0.1, "momentum": 0.9}, 2, 2),
    (O.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}, 2, 2),
    (O.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}, 2, 2),
    (O.RMSprop, {}, 2, 2),
    (O.RMSprop, {"centered": True, "momentum": 0.5, "weight_decay": 0.1}, 2, 4),
    (O.Adam, {}, 2, 3),
    (O.Adam, {"amsgrad": True, "weight_decay": 0.1, "maximize": True}, 2, 4),
    (O.AdamW, {}, 2, 3),
    (O.AdamW, {"amsgrad": True, "betas": (0.5, 0.7), "weight_decay": 0.3}, 2, 4),
    (O.NAdam, {"weight_decay": 0.1}, 2, 4),
    (O.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}, 2, 4),
    (O.RAdam, {"weight_decay": 0.1, "betas": (0.8, 0.9)}, 2, 3),
    (O.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.3}, 2, 2),
    (O.Adadelta, {"weight_decay": 0.1}, 2, 3),
    (O.Adamax, {"maximize": True}, 2, 3),
    (O.ASGD, {"t0": 5, "lambd": 0.1}, 2, 2),
    (O.Rprop, {}, 2, 3),
    (O.Adafactor, {"weight_decay": 0.1}, 2, 3),
    (O.Adafactor, {"eps": (1e-2, 1e-3), "maximize": True}, 2, 3),
]


@pytest.fixture
def double():
    """torch keeps its single numbers in the default dtype, and 1e-7 would hide behind theirs."""
    torch.set_default_dtype(torch.float64)


def through_json(system: NestedSystem) -> NestedSystem:
    return NestedSystem.from_dict(json.loads(system.to_json()))


def gradients(shape: tuple[int, ...], steps: int = 20) -> list[torch.Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(t)) * (0.3 + t % 3) for t in range(steps)]


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    held = [item for state in optimizer.state.values() for item in state.values()]
    held += [tensor for item in held if isinstance(item, list) for tensor in item]
    return sum(item.numel() * item.element_size() for item in held if isinstance(item, torch.Tensor))


def test_every_class_of_torch_has_a_recipe():
    assert set(EVERY) <= set(RECIPES)


@pytest.mark.parametrize(("kind", "settings", "levels", "memories"), CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_description_alone_replays_20_steps_of_torch(double, kind, settings, levels, memories, shape):
    parameter = nn.Parameter(torch.randn(shape))
    optimizer = kind([parameter], **settings)
    learner = rebuild(through_json(nl.describe(optimizer)))
    state = learner.init(parameter)
    for gradient in gradients(shape):
        parameter.grad = gradient.clone()
        optimizer.step()
        state = learner.write(state, gradient)
        torch.testing.assert_close(state["weights"]["model"]["value"], parameter.detach(), rtol=1e-12, atol=1e-13)
    assert parameter.isfinite().all()


@pytest.mark.parametrize(("kind", "settings", "levels", "memories"), CASES)
def test_levels_and_memories(kind, settings, levels, memories):
    system = nl.describe(kind([nn.Parameter(torch.zeros(5, 3))], **settings))
    assert (len(system.levels), len(system.memories)) == (levels, memories)
    assert [level.number for level in system.levels] == list(range(1, levels + 1))
    assert system.known and system.memories[0].level == 1


def test_what_nobody_consults_is_rebuilt_too(double):
    parameter = nn.Parameter(torch.randn(5, 3))
    optimizer = O.ASGD([parameter], t0=5, lambd=0.1)
    learner = rebuild(nl.describe(optimizer))
    state = learner.init(parameter)
    for gradient in gradients((5, 3)):
        parameter.grad = gradient.clone()
        optimizer.step()
        state = learner.write(state, gradient)
    average = state["observers"]["average_weights"]["model"]["value"]
    torch.testing.assert_close(average, optimizer.state[parameter]["ax"], rtol=1e-12, atol=1e-13)
    assert not torch.allclose(average, parameter)


@pytest.mark.skipif(MUON is None, reason="this torch has no Muon")
@pytest.mark.parametrize("settings", [{}, {"adjust_lr_fn": "match_rms_adamw", "nesterov": False, "ns_steps": 3}])
def test_muon_is_replayed_to_the_bit_depth_of_its_read_out(double, settings, monkeypatch):
    def replay() -> float:
        """The distance between the two after 20 steps, as a share of the way that torch has gone."""
        parameter = nn.Parameter(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))
        start, optimizer = parameter.detach().clone(), O.Muon([parameter], lr=0.1, **settings)
        learner = rebuild(through_json(nl.describe(optimizer)))
        state = learner.init(parameter)
        for gradient in gradients((8, 5)):
            parameter.grad = gradient.clone()
            optimizer.step()
            state = learner.write(state, gradient)
        error = (state["weights"]["model"]["value"] - parameter).norm()
        return (error / (parameter - start).norm()).item()

    def read_out(matrix, steps, a, b, c, eps):
        from torch.optim._muon import _zeropower_via_newtonschulz

        return _zeropower_via_newtonschulz(matrix, (a, b, c), int(steps), eps).to(matrix.dtype)

    # Both iterate in bfloat16, whose numbers have 8 bits, and round in another order.
    assert replay() < 0.05
    # With torch's own read-out nothing is left but the rounding of float64.
    monkeypatch.setitem(FUNCTIONS, "newton_schulz", (read_out, "torch's"))
    assert replay() < 1e-12


def test_sparse_adam_writes_the_entries_that_the_gradient_has(double):
    table = nn.Embedding(6, 3, sparse=True)
    optimizer = O.SparseAdam(table.parameters(), lr=0.1)
    learner = rebuild(through_json(nl.describe(optimizer)))
    state = learner.init(table.weight)
    for step in range(20):
        optimizer.zero_grad()
        tokens = torch.tensor([step % 6, (step * 2 + 1) % 5, 0])
        (table(tokens) * torch.randn(3, 3)).sum().backward()
        gradient = table.weight.grad.coalesce()
        present = torch.zeros(6, 1).index_fill(0, gradient.indices()[0], 1).expand(6, 3)
        state = learner.write(state, gradient.to_dense(), present)
        optimizer.step()
        torch.testing.assert_close(state["weights"]["model"]["value"], table.weight.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("kind", "settings", "levels", "memories"), [*CASES, *([(MUON, {}, 2, 2)] if MUON else [])])
def test_bytes_are_known_before_the_first_step(kind, settings, levels, memories, dtype):
    real = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in (SHAPES[:1] if kind is MUON else SHAPES)]
    meta = [nn.Parameter(torch.empty_like(parameter, device="meta")) for parameter in real]
    optimizer = kind(real, **settings)
    before, unmade = nl.describe(optimizer), nl.describe(kind(meta, **settings))
    for parameter in real:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = nl.describe(optimizer)
    assert before.state_bytes == unmade.state_bytes == after.state_bytes == state_bytes(optimizer)
    assert before.to_dict() == after.to_dict()


def test_lbfgs_is_described_and_says_that_it_cannot_be_rebuilt():
    weight, bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))
    optimizer = O.LBFGS([weight, bias], history_size=3, max_iter=1)
    before = nl.describe(optimizer)
    assert before.known and len(before.memories) == 5 and "recursion" in before.notes[0]
    with pytest.raises(
        ValueError, match="LBFGS cannot be rebuilt: expected a description whose memories are the core's"
    ):
        rebuild(before)

    def closure():
        optimizer.zero_grad()
        loss = (weight + bias - torch.arange(3.0)).square().square().sum()
        loss.backward()
        return loss

    for _ in range(8):
        optimizer.step(closure)
    after = nl.describe(optimizer)
    sizes = {memory.name: memory.bytes for memory in after.memories}
    assert sizes == {memory.name: memory.bytes for memory in before.memories}
    assert sizes["moves"] == 3 * 15 * 4 and after.state_bytes == state_bytes(optimizer)


def test_groups_that_differ_in_numbers_share_a_table_and_keep_their_numbers():
    one, two = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))
    optimizer = O.SGD([{"params": [one], "lr": 0.5}, {"params": [two]}], lr=0.1, momentum=0.9)
    system = nl.describe(optimizer)
    assert [group["lr"] for group in system.settings] == [0.5, 0.1] and not system.others
    assert system.memories[0].parameters == 8
    for group, parameter in enumerate((one, two)):
        learner = rebuild(system, group)
        state = learner.write(learner.init(parameter), torch.ones_like(parameter))
        moved = parameter.detach() - state["weights"]["model"]["value"]
        assert torch.allclose(moved, torch.full_like(moved, (0.5, 0.1)[group]))


def test_groups_that_differ_in_memories_are_systems_of_their_own():
    one, two = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))
    system = nl.describe(O.SGD([{"params": [one], "momentum": 0.9}, {"params": [two]}], lr=0.1))
    assert [len(part.memories) for part in system.everything] == [2, 1]
    assert [part.memories[0].parameters for part in system.everything] == [6, 2]  # no weight is counted twice


def test_vectors_follow_another_rule_in_adafactor():
    system = nl.describe(O.Adafactor(nn.Linear(4, 3).parameters()))
    assert [memory.name for memory in system.others[0].memories] == ["weights", "second_moment"]
    assert [memory.parameters for memory in system.memories] == [12, 3, 4]


class Lion(O.Optimizer):
    """A user's optimizer that we have never heard of."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                state["step"] = state.get("step", torch.tensor(0.0)) + 1
                parameter.sub_(group["lr"] * average.lerp_(parameter.grad, 0.1).sign())


class Quiet(O.AdamW):
    """Changes nothing about the step."""


class Loud(O.AdamW):
    def step(self, closure=None):
        return super().step(closure)


def test_an_unknown_optimizer_is_described_by_what_can_be_seen():
    parameter = nn.Parameter(torch.ones(3, 2))
    optimizer = Lion([parameter])
    blank = nl.describe(optimizer)
    assert not blank.known and len(blank.memories) == 1 and "after a step" in blank.notes[1]
    parameter.grad = torch.ones(3, 2)
    optimizer.step()
    system = nl.describe(optimizer)
    assert [memory.name for memory in system.memories] == ["weights", "average"] and not system.known
    assert "Lion is not known to us" in system.notes[0] and system.memories[1].rule == "unknown"
    assert system.memories[1].bytes == 24 and system.state_bytes == state_bytes(optimizer) == 28
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        rebuild(system)
    assert through_json(system) == system and "unknown" in str(system) and "<svg" in system.svg()


@pytest.mark.parametrize(("kind", "known"), [(Quiet, True), (Loud, False)])
def test_a_subclass_is_known_as_long_as_it_steps_as_its_parent(kind, known):
    parameter = nn.Parameter(torch.ones(3, 2))
    optimizer = kind([parameter])
    parameter.grad = torch.ones(3, 2)
    optimizer.step()  # torch wraps `step` when it is first made
    assert nl.describe(optimizer).known is known


def test_a_scheduler_and_a_tensor_as_lr_change_numbers_only():
    parameter = nn.Parameter(torch.ones(3, 2))
    optimizer = O.SGD([parameter], lr=torch.tensor(0.5))
    assert nl.describe(optimizer).settings[0]["lr"] == 0.5
    O.lr_scheduler.StepLR(optimizer, 1)
    assert nl.describe(optimizer).known


def test_frozen_parameters_get_no_state_and_are_not_counted():
    layer = nn.Linear(4, 3)
    layer.bias.requires_grad_(False)
    optimizer = O.Adam(layer.parameters())
    before = nl.describe(optimizer)
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert before.state_bytes == state_bytes(optimizer) and before.memories[0].parameters == 12
    assert before.notes == ("frozen, so nothing writes them: 1 vector, 3 entries",)


@pytest.mark.parametrize(
    ("system", "reason"),
    [
        (lambda: nl.describe(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))), "2 memories of weights"),
    ],
)
def test_what_is_more_than_an_optimizer_is_not_rebuilt(system, reason):
    with pytest.raises(ValueError, match=reason):
        rebuild(system())


def test_a_group_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="it has 1 groups, and no group 1"):
        rebuild(nl.describe(O.SGD([nn.Parameter(torch.ones(2))])), group=1)


@pytest.mark.parametrize("text", ["nowhere + 1", "open('x')", "two words"])
def test_a_broken_description_is_refused_with_its_name(text):
    data = nl.describe(O.Adam([nn.Parameter(torch.ones(2))])).to_dict()
    data["memories"][1]["value"] = text
    with pytest.raises(ValueError, match="Adam cannot be rebuilt"):
        rebuild(NestedSystem.from_dict(data))
