"""Memories that tokens write: every figure of a description against the layers as they run."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.descriptions import Described, NestedSystem
from nestlearn.layers import Attention, ContinuumMemory, MemoryLayer, SelfModifyingTitans, SequenceLayer
from nestlearn.models import LanguageModel, state_bytes

LAYERS = {
    "matrix": lambda: MemoryLayer(16, heads=2),
    "mlp": lambda: MemoryLayer(16, heads=2, memory="mlp", rule="dgd", chunk=4, inner_momentum=True),
    "window": lambda: MemoryLayer(16, heads=2, rule="omega"),
    "frozen": lambda: MemoryLayer(16, heads=2, max_eta=0),
    "attention": lambda: Attention(16, heads=2, max_tokens=100),
    "titans": lambda: SelfModifyingTitans(16, heads=2, chunk=4),
    "titans-mlp": lambda: SelfModifyingTitans(
        16, heads=2, memory="mlp", chunk=8, projection_chunk=4, hidden=5, inner_momentum=True, modify_query=True
    ),
    "titans-fixed": lambda: SelfModifyingTitans(16, heads=2, chunk=1, self_modifying=(), objective="l2"),
    "continuum": lambda: ContinuumMemory(16, periods=(4, 8)),
    "nested": lambda: ContinuumMemory(16, periods=(2, 8), variant="nested", retention=0.9),
    "headwise": lambda: ContinuumMemory(16, periods=(4, 4), variant="headwise", hidden=8),
    "next-token": lambda: ContinuumMemory(16, periods=(4, 8), objective="next_token"),
    "still": lambda: ContinuumMemory(16, inner_lr=0),
}
MODELS = {name: lambda name=name: nl.models.MODELS[name](32, 16, 2, 2) for name in nl.models.MODELS} | {
    "titans-plain": lambda: nl.models.titans(32, 16, 2, 2, self_modifying=False),
    "hope-next-token": lambda: nl.models.hope(32, 16, 2, 2, objective="next_token", memory="mlp"),
}


class Own(nn.Module):
    """Somebody's network around three of our layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 16)
        self.remember = nn.ModuleList([MemoryLayer(16, heads=2), MemoryLayer(16, heads=2)])
        self.adapt = nn.ModuleDict({"slow": ContinuumMemory(16, periods=(8,))})

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in [*self.remember, *self.adapt.values()]:
            x = layer(x)
        return x


EVERYTHING = {**LAYERS, **MODELS, "own": Own}


def of(system: NestedSystem) -> dict[str, Described]:
    return {memory.name: memory for memory in system.memories if memory.unit == "token"}


def states(module: nn.Module) -> Iterator[Any]:
    """The states of all layers that are not in another one, and of what a language model keeps besides."""
    if isinstance(module, SequenceLayer | LanguageModel):
        yield module.initial_state(1)
    else:
        for child in module.children():
            yield from states(child)


def tensors(state: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(state, Mapping):
        return {k: t for key, part in state.items() for k, t in tensors(part, f"{name}.{key}".strip(".")).items()}
    return {name: state}


@pytest.mark.parametrize("name", EVERYTHING)
def test_bytes_are_those_of_the_state_of_one_sequence(name):
    module = EVERYTHING[name]()
    expected = sum(map(state_bytes, states(module)))
    assert nl.describe(module).sequence_bytes == expected
    assert nl.describe(module.bfloat16()).sequence_bytes == expected  # states are float32 whatever the weights are
    with torch.device("meta"):
        assert nl.describe(EVERYTHING[name]()).sequence_bytes == expected


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("optimizer", [None, torch.optim.AdamW, nl.optim.DeepMomentum])
def test_every_parameter_is_in_one_row(name, optimizer):
    module = EVERYTHING[name]()
    system = nl.describe(module) if optimizer is None else nl.describe(module, optimizer(module.parameters()))
    assert system.parameters == sum(parameter.numel() for parameter in module.parameters())
    rows = [memory.name for part in system.everything for memory in part.memories if memory.home == "weights"]
    assert len(set(rows)) == len(rows)
    assert {start for memory in of(system).values() for start in memory.starts_from} <= {*rows, *of(system)}
    assert not system.notes or name in ("frozen", "still")


@pytest.mark.parametrize("name", EVERYTHING)
def test_data_and_tables_and_pictures(name):
    module = EVERYTHING[name]()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    held = dict(module.named_parameters())
    system = nl.describe(module, torch.optim.AdamW(module.parameters()))
    assert NestedSystem.from_dict(json.loads(system.to_json())) == system
    text = str(system)
    assert max(map(len, text.splitlines())) <= 120
    assert all(memory.name in text for memory in system.memories)
    assert all(memory.name in system.svg() for memory in system.memories)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert all(parameter is held[key] for key, parameter in module.named_parameters())


@pytest.mark.parametrize("name", MODELS)
def test_levels_go_from_steps_to_tokens(name):
    model = MODELS[name]()
    system = nl.describe(model, nl.optim.DeepMomentum(model.parameters(), levels=2))
    paces = [(level.unit, level.period) for level in system.levels]
    assert paces[:3] == [("step", 1)] * 3  # the weights, a deep momentum, and one that writes it
    wanted = [("token", 256), ("token", 64)] if name.startswith("hope") else []
    assert paces[3:] == [*wanted, ("token", 1)]


# ------------------------------------------------------------------------------------------------------------- cadence


def scattered(layer: SequenceLayer) -> SequenceLayer:
    """The layer with other parameters: at its own start, some of what it writes is zero."""
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return layer


def changes(layer: SequenceLayer, count: int) -> dict[str, list[int]]:
    """After which tokens each tensor of the state has changed."""
    state, found = layer.initial_state(2), {}
    with torch.no_grad():
        for token in range(1, count + 1):
            _, after = layer(torch.randn(2, 1, layer.dim), state=state, return_state=True)
            old = tensors(state)
            for name, tensor in tensors(after).items():
                if tensor.shape != old[name].shape or not torch.equal(tensor, old[name]):
                    found.setdefault(name, []).append(token)
            state = after
    return found


def every(period: int, count: int = 16) -> list[int]:
    return list(range(period, count + 1, period))


@pytest.mark.parametrize("name", ["matrix", "mlp", "window"])
def test_a_memory_layer_writes_every_token(name):
    layer = scattered(LAYERS[name]())
    memories, found = of(nl.describe(layer)), changes(layer, 16)
    assert {memory.period for memory in memories.values()} == {1}
    written = [tokens for key, tokens in found.items() if key.startswith(("memory.model", "memory.rule"))]
    assert written and all(tokens == every(1) for tokens in written)
    chunk = memories["memory"].chunk
    begun = [token + 1 for token in every(chunk) if token < 16]  # it is that of the chunk which a token begins
    assert all(tokens == begun for key, tokens in found.items() if "frozen" in key)
    assert any("frozen" in key for key in found) == (chunk > 1)
    assert ("memory.momentum" in memories) == layer.memory.rule.includes_lr


@pytest.mark.parametrize("name", ["titans", "titans-mlp", "titans-fixed"])
def test_self_modifying_titans_write_every_token_from_the_start_of_their_chunks(name):
    layer = scattered(LAYERS[name]())
    memories, found = of(nl.describe(layer)), changes(layer, 16)
    assert {memory.period for memory in memories.values()} == {1}
    written = [tokens for key, tokens in found.items() if key.startswith("banks")]
    assert written and all(tokens == every(1) for tokens in written)
    bank = next(iter(layer.banks.values()))
    state, main, rest = layer.initial_state(1), [], []
    for token in range(16 if "held" in state else 0):
        _, after = layer(torch.randn(1, 1, 16), state=state, return_state=True)
        old, new = (next(iter(part["held"].values())) for part in (state, after))
        for tensor, before in zip(new.values(), old.values(), strict=True):
            moved = (tensor != before).flatten(3).any(-1)[0, 0]  # by row, or by memory of a stack
            own = len(moved) // len(bank.sizes) if "mlp" in layer.banks else bank.sizes["mem"]
            main += [token] * bool(moved[:own].any())
            rest += [token] * bool(moved[own:].any())
        state = after
    # What is held changes with the first token of the next chunk.
    for tokens, memory in ((main, memories["mem"]), (rest, memories.get("k"))):
        if memory is not None:
            assert set(tokens) == (set(range(memory.chunk, 16, memory.chunk)) if memory.chunk > 1 else set())


@pytest.mark.parametrize("name", ["continuum", "nested", "headwise"])
def test_a_block_is_written_every_period(name):
    layer = LAYERS[name]()
    memories, found = of(nl.describe(layer)), changes(layer, 16)
    for number in range(2):
        assert found[f"blocks.{number}.model.outer"] == every(memories[f"blocks.{number}"].period)
    if name == "nested":
        assert found["blocks.0.start.outer"] == every(memories["blocks.0.start"].period)


def test_the_nested_start_moves_by_its_rate():
    nested = ContinuumMemory(16, periods=(2, 8), variant="nested")
    sequential = ContinuumMemory(16, periods=(2, 8))
    sequential.load_state_dict(nested.state_dict())
    x = torch.randn(1, 8, 16)
    start = nested.initial_state(1)["blocks"]["0"]["model"]["outer"]
    moved, whole = (
        layer(x, return_state=True)[1]["blocks"]["0"]["model"]["outer"] - start for layer in (nested, sequential)
    )
    memory = of(nl.describe(nested))["blocks.0.start"]
    torch.testing.assert_close(moved, float(memory.lr) * whole)
    assert of(nl.describe(nested))["blocks.0"].starts_from == ("blocks.0.start",)


# ---------------------------------------------------------------------------------------------------------- each layer


def test_hope_is_the_table_of_the_papers():
    model = nl.models.hope(32, 16, 2, 2, periods=(4, 8))
    system = nl.describe(model, torch.optim.AdamW(model.parameters()))
    memories = of(system)
    names = ["mem", "k", "v", "eta", "alpha"]
    assert list(memories) == [
        *("blocks.*.1.layer.blocks.1", "blocks.*.1.layer.blocks.0"),
        *(f"blocks.*.0.layer.{name}" for name in names),
    ]
    titans = {name: memories[f"blocks.*.0.layer.{name}"] for name in names}
    assert [memory.model for memory in titans.values()] == ["matrix 8 -> 8"] * 3 + ["matrix 8 -> 1"] * 2
    for name, memory in titans.items():
        assert (memory.count, memory.key, memory.value, memory.rule) == (4, "k", "M(v)", "delta gradient descent")
        assert memory.starts_from == ("blocks.*.0.layer.banks.matrix.start",)
        assert memory.consulted_by == ("" if name == "mem" else "blocks.*.0.layer.mem")
    weights = {memory.name: memory for memory in system.memories if memory.home == "weights"}
    assert weights["blocks.*.0.layer.banks.matrix.start"].level == 1
    assert weights["blocks.*.0.layer.banks.matrix.start"].parameters == sum(m.parameters for m in titans.values())
    assert (
        weights["blocks.*.1.layer.blocks.*.inner,outer"].parameters
        == 2 * memories["blocks.*.1.layer.blocks.0"].parameters
    )


def test_whose_answers_enter_whose_writes_is_what_happens():
    """Another start of one memory: after one token exactly those that read it have been written otherwise."""
    layer = scattered(SelfModifyingTitans(16, heads=2, chunk=1, memory="mlp", modify_query=True).double())
    memories, x = of(nl.describe(layer)), torch.randn(1, 1, 16).double()

    def after() -> dict[str, Tensor]:
        banks = layer(x, return_state=True)[1]["banks"]
        own = {name: banks["mlp"]["model"]["outer"][:, :, place] for name, place in layer.banks["mlp"].place.items()}
        rows = layer.banks["matrix"].rows.items()
        return own | {name: banks["matrix"]["model"]["weight"][:, :, row] for name, row in rows}

    before = after()
    for name, memory in memories.items():
        base = layer.banks["matrix" if name in ("eta", "alpha") else "mlp"].base[name]
        kept = base.data.clone()
        base.data += torch.randn_like(base)
        changed = {other for other, tensor in after().items() if not torch.equal(tensor, before[other])}
        base.data = kept
        assert changed - {name} == set(memory.read_by) - {name}
    assert memories["q"].read_by == () and memories["q"].consulted_by == "mem"


@pytest.mark.parametrize("name", ["titans", "titans-mlp"])
def test_memories_of_a_bank_share_its_state_as_they_are_sliced(name):
    layer = LAYERS[name]()
    memories, state = of(nl.describe(layer)), layer.initial_state(1)
    for bank_name, bank in layer.banks.items():
        for memory, size in bank.sizes.items():
            own = sum(parameter.numel() for parameter in bank.start[memory].parameters())
            assert memories[memory].parameters == own
            assert memories[memory].bytes == 2 * 4 * own  # running, and held for the chunk
            assert memories[memory].model.endswith(f" {size}") or bank_name == "mlp"
    if name == "titans-mlp":
        boxes = [memory for memory in memories.values() if memory.name.endswith(".momentum")]
        rules = sum(state_bytes(bank["rule"]) for bank in state["banks"].values())
        assert sum(memory.bytes for memory in boxes) == rules
        assert {memory.level for memory in boxes} == {max(memory.level for memory in memories.values())}


def test_attention_grows_by_what_it_says():
    layer = LAYERS["attention"]()
    (memory,) = of(nl.describe(layer)).values()
    sizes = [state_bytes(layer(torch.randn(1, count, 16), return_state=True)[1]) for count in (1, 2, 100)]
    assert sizes == [count * memory.bytes_per_token for count in (1, 2, memory.max_tokens)]
    assert "grows to 12.5 KiB at 100 tokens" in str(nl.describe(layer))


@pytest.mark.parametrize("name", ["matrix", "window"])
def test_the_bound_of_eta_is_the_layers(name):
    layer = LAYERS[name]()
    layer.rates.bias.data[: layer.heads] = 100.0
    eta = layer.associations(torch.zeros(1, 3, 16))[0]["eta"]
    assert of(nl.describe(layer))["memory"].lr == f"eta < {eta.max().item():g}"


DEFAULT = {"heads": 2, "chunk": 4}
SWITCHES = [
    ({"memory": "mlp"}, "model", ["tanh MLP 8-8-8"] * 3 + ["matrix 8 -> 1"] * 2),
    ({"objective": "l2"}, "objective", ["l2"] * 5),
    ({"dgd": False}, "rule", ["gradient descent"] * 5),
    ({"retention": False}, "retention", ["1"] * 4),
    ({"inner_momentum": True}, "rule", ["delta gradient descent through momentum"] * 5 + ["gradient descent"] * 5),
    ({"self_modifying": ("k", "eta")}, "name", ["mem", "k", "eta"]),
    ({"self_modifying": ()}, "value", ["v"]),
    ({"modify_query": True}, "name", ["mem", "k", "v", "q", "eta", "alpha"]),
    ({"projection_chunk": 2}, "chunk", [4, 2, 2, 2, 2]),
    ({"max_eta": 0.5}, "lr", ["eta < 0.5"] * 5),
    ({"max_eta": 0}, "name", []),
]


@pytest.mark.parametrize(("options", "fact", "expected"), SWITCHES, ids=lambda item: str(item))
def test_every_switch_of_an_ablation_shows(options, fact, expected):
    usual, changed = (of(nl.describe(SelfModifyingTitans(16, **{**DEFAULT, **more}))) for more in ({}, options))
    assert [getattr(memory, fact) for memory in changed.values()] == expected
    assert [getattr(memory, fact) for memory in usual.values()] != expected


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta", "oja", "omega", "dgd"])
def test_the_rules_of_a_memory_layer(rule):
    layer = MemoryLayer(16, heads=2, rule=rule)
    memory = of(nl.describe(layer))["memory"]
    assert memory.objective == layer.memory.objective.name
    assert memory.rule == ("delta gradient descent" if rule == "dgd" else "gradient descent")
    assert memory.retention == ("1" if rule in ("linear", "delta") else "alpha")
    assert ("4 tokens" in memory.key) == (rule == "omega")


# ------------------------------------------------------------------------------------------------ modules of one's own


def test_layers_in_a_network_of_ones_own():
    network = Own()
    system = nl.describe(network, torch.optim.SGD(network.parameters(), momentum=0.9))
    assert [(memory.name, memory.count, memory.level) for memory in of(system).values()] == [
        ("adapt.slow.blocks.0", 1, 3),
        ("remember.*.memory", 4, 4),
    ]


def test_layers_of_one_kind_that_take_turns_keep_names_apart():
    kinds = [("memory", {"heads": 2, "rule": rule}) for rule in ("delta", "gated", "delta", "gated")]
    system = nl.describe(LanguageModel(8, 16, [[kind] for kind in kinds]))
    assert {name: memory.count for name, memory in of(system).items()} == {
        "blocks.0,2.0.layer.memory": 4,
        "blocks.1,3.0.layer.memory": 4,
    }


class Strange(SequenceLayer):
    def __init__(self) -> None:
        super().__init__(4)
        self.decay = nn.Parameter(torch.ones(4))

    def initial_state(self, batch_size: int) -> Any:
        return {"mean": self.decay.new_zeros(batch_size, 4), "time": torch.zeros((), dtype=torch.int64)}

    def advance(self, x: Tensor, state: Any) -> Any:
        return x, self.initial_state(len(x)) if state is None else state


class Changed(MemoryLayer):
    def associations(self, x: Tensor, past: Tensor | None = None) -> Any:
        return super().associations(x.flip(-1), past)


class Wrapped(MemoryLayer):
    def forward(self, x: Tensor, state: Any = None, return_state: bool = False) -> Any:
        return super().forward(-x, state, return_state)


class Named(MemoryLayer):
    """The same under another name."""


class Pair(SequenceLayer):
    def __init__(self, extra: int) -> None:
        super().__init__(16)
        self.first, self.second, self.extra = Named(16), Attention(16), extra

    def initial_state(self, batch_size: int) -> Any:
        own = (
            {} if not self.extra else {"own": torch.zeros(batch_size, self.extra, device=self.first.qkv.weight.device)}
        )
        return {"first": self.first.initial_state(batch_size), "second": self.second.initial_state(batch_size), **own}

    def advance(self, x: Tensor, state: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("layer", [Strange, lambda: Changed(16), lambda: Wrapped(16)])
def test_a_layer_that_we_do_not_know_says_so(layer):
    layer = layer()
    system = nl.describe(nn.Sequential(layer))
    assert not system.known and f"0 ({type(layer).__name__}): not known to us" in system.notes[0]
    assert system.sequence_bytes == state_bytes(layer.initial_state(1))
    assert all(memory.rule == memory.model == "unknown" for memory in of(system).values())
    assert "0.mean" in of(system) or "0.memory.model.weight" in of(system)


class Stubborn(Strange):
    def initial_state(self, batch_size: int) -> Any:
        return {"mean": self.decay + self.decay.sum().item()}


def test_a_state_that_needs_numbers_is_not_guessed():
    system = nl.describe(nn.Sequential(Stubborn(), LAYERS["matrix"]()))
    assert not system.known and "its state cannot be made without memory (" in system.notes[0]
    assert list(of(system)) == ["1.memory"]


def test_a_subclass_that_changes_nothing_is_known():
    assert of(nl.describe(Named(16)))["memory"].rule == "gradient descent" and nl.describe(Named(16)).known


def test_a_layer_made_of_layers_is_what_they_are():
    system = nl.describe(Pair(0))
    assert system.known and list(of(system)) == ["first.memory", "second.pairs"]
    system = nl.describe(Pair(3))
    assert not system.known and "12 bytes of its state are not in the layers within it" in system.notes[0]
    assert system.sequence_bytes == state_bytes(Pair(3).initial_state(1))


def test_other_recurrent_layers_are_mentioned():
    (note,) = nl.describe(nn.Sequential(nn.LSTM(4, 4))).notes
    assert note == "0 (LSTM): what it carries from token to token is not described"


def test_a_frozen_model_still_writes_in_context():
    model = nl.models.hope(32, 16, 2, 2).requires_grad_(False)
    for system in (nl.describe(model), nl.describe(model, torch.optim.SGD(model.parameters()))):
        assert {level.unit for level in system.levels} == {"token"} and system.parameters == 0
        assert all(memory.starts_from == () and memory.initial == "learned" for memory in of(system).values())
        assert any(note.startswith("frozen") for note in system.notes) and "<svg" in system.svg()


def test_without_a_rate_nothing_is_written_and_that_is_said():
    (note,) = nl.describe(LAYERS["frozen"]()).notes
    assert note == "MemoryLayer: max_eta is 0, so nothing is written in context"
    (note,) = nl.describe(nn.Sequential(LAYERS["still"](), LAYERS["still"]())).notes
    assert note == "* (ContinuumMemory): inner_lr is 0, so nothing is written in context"


def test_states_are_made_where_they_need_no_memory(monkeypatch):
    devices, begin = set(), ContinuumMemory.initial_state

    def watched(self: ContinuumMemory, batch_size: int) -> Any:
        state = begin(self, batch_size)
        devices.update(tensor.device.type for tensor in tensors(state["blocks"]).values())
        return state

    model = nl.models.hope(32, 16, 2, 2)
    monkeypatch.setattr(ContinuumMemory, "initial_state", watched)
    assert of(nl.describe(model)) and devices == {"meta"}


@pytest.mark.slow
def test_a_billion_parameters_are_described_without_their_memory():
    program = """
        import resource, sys, time
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        start = peak()  # that of the process which started this one, if it was larger
        import torch
        import nestlearn.descriptions
        assert "nestlearn.layers" not in sys.modules
        import nestlearn as nl
        with torch.device("meta"):
            model = nl.models.hope(50_000, 2048, 20, 16)
        began = time.process_time()
        system = nl.describe(model, nl.optim.DeepMomentum(model.parameters()))
        text, picture = str(system), system.svg()
        seconds = time.process_time() - began
        print(system.parameters, system.sequence_bytes, seconds, peak() - start)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    parameters, state, seconds, used = map(float, done.stdout.split())
    assert parameters > 1e9 and state > 2e9
    assert used < 1e9, "the weights alone would be 4 GB"
    assert seconds < 5
