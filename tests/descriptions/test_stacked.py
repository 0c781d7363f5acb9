"""What a stacked model says of itself (C5), against the continuum as it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tiny_llama import read_on, tiny_llama
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.descriptions import Described, NestedSystem
from nestlearn.descriptions.language import evaluate
from nestlearn.models import add_continuum

DOWN = "model.layers.*.mlp.down_proj"
ALL = ("gate", "up", "down")
KINDS: dict[str, dict[str, Any]] = {
    "adam": {"periods": (4, 8)},
    "core": {"writer": nl.memory.GradientDescent(), "matrices": ALL},
    "muon": {"writer": nl.rules.muon(0.9), "rank": 3, "matrices": ALL, "retention": 0.9},
    "whitened": {"writer": nl.rules.chain(nl.rules.sum(0.5), nl.rules.whiten("root"))},
    "deep": {"writer": nl.rules.deep(hidden=5), "objective": "direct", "gate": 0.1},
}


def stacked(**settings: Any) -> Any:
    model = tiny_llama()
    add_continuum(model, **{"periods": 4, "blocks": 2, **settings})
    return model


def text(time: int) -> Tensor:
    return torch.randint(40, (1, time), generator=torch.Generator().manual_seed(1))


def of(system: NestedSystem) -> dict[str, Described]:
    return {memory.name: memory for memory in system.memories if memory.home == "sequence"}


@pytest.mark.parametrize("name", KINDS)
def test_bytes_and_entries_are_those_of_a_text(name: str) -> None:
    model = stacked(**KINDS[name])
    system = nl.describe(model)
    model(text(3))
    assert system.sequence_bytes == model.continuum.bytes
    assert system.parameters == sum(weight.numel() for weight in model.parameters())
    written = sum(each.state["model"]["weight"].numel() for each in model.continuum.matrices.values())
    assert sum(memory.parameters for memory in of(system).values() if not memory.consulted_by) == written
    assert nl.describe(stacked(**KINDS[name]).to("meta")) == system


@pytest.mark.parametrize("name", KINDS)
def test_data_tables_and_pictures(name: str) -> None:
    model = stacked(**KINDS[name])
    system = nl.describe(model, torch.optim.AdamW(model.parameters()))
    assert NestedSystem.from_dict(json.loads(system.to_json())) == system
    assert max(map(len, str(system).splitlines())) <= 120
    rows = {memory.name for memory in system.memories}
    assert all(memory.name in str(system) for memory in of(system).values() if not memory.consulted_by)
    assert all(memory.name in system.svg() for memory in of(system).values() if not memory.consulted_by)
    assert {memory.consulted_by for memory in of(system).values()} - {""} <= rows
    assert {start for memory in of(system).values() for start in memory.starts_from} <= rows


def test_the_continuum_stands_above_the_weights_with_its_own_paces() -> None:
    system = nl.describe(stacked(**KINDS["adam"]))
    paces = [(level.unit, level.period, [memory.name for memory in level.memories]) for level in system.levels[1:]]
    assert paces == [
        ("token", 8, ["continuum.2.down"]),
        ("token", 8, ["continuum.2.down.momentum", "continuum.2.down.second_moment"]),
        ("token", 4, ["continuum.1.down"]),
        ("token", 4, ["continuum.1.down.momentum", "continuum.1.down.second_moment"]),
    ]
    memory = of(system)["continuum.1.down"]
    assert memory.starts_from == (DOWN,) and memory.model == "matrix 24 -> 16" and memory.lr == "0.0003"
    low = of(nl.describe(stacked(**KINDS["muon"])))
    assert low["continuum.*.down"].model == "matrix 24 -> 3 -> 16" and low["continuum.*.up"].count == 2
    assert low["continuum.*.up"].retention == "0.9 of M - start"


def test_writes_come_when_it_says() -> None:
    model = stacked(**KINDS["adam"])
    memories, cache, found = of(nl.describe(model)), None, dict[str, list[int]]()
    before: dict[str, Tensor] = {}
    for time, token in enumerate(text(18)[0]):
        cache = read_on(model, token.view(1, 1), cache)[1]
        for path, matrix in model.continuum.matrices.items():
            held = matrix.state["model"]["weight"].detach().clone()
            # The write after so many tokens is made with the token behind them, of which the loss is known then.
            if path in before and not torch.equal(held, before[path]):
                found.setdefault(path, []).append(time)
            before[path] = held
    for path in ("1.down", "2.down"):
        period = memories[f"continuum.{path}"].period
        assert found[path] == list(range(period, 18, period))


def test_the_update_in_words_is_the_one_that_is_made() -> None:
    def after_one_write(writer: Any) -> Tensor:
        model = stacked(blocks=1, inner_lr=0.5, writer=writer)
        model(text(5))
        held: Tensor = model.continuum.matrices["2.down"].state["model"]["weight"]
        return held.detach()

    u = -after_one_write(nl.rules.gradient()) / 0.5
    memories = of(nl.describe(stacked(blocks=1, writer=nl.rules.adam())))
    names = {"u": u, "t": 1.0}
    for name in ("momentum", "second_moment"):
        memory = memories[f"continuum.2.down.{name}"]
        names[name] = float(memory.lr) * evaluate(memory.value, {"u": u}.__getitem__)
    update = evaluate(memories["continuum.2.down"].update, names.__getitem__)
    torch.testing.assert_close(after_one_write(nl.rules.adam()), -0.5 * update)


def test_notes_say_what_writes_and_what_does_not() -> None:
    (slope, gate) = nl.describe(stacked(**KINDS["deep"])).notes
    assert "next-token loss before the last norm" in slope and "a loss of at most 0.1 writes nothing" in gate
    still = nl.describe(stacked(inner_lr=0.0))
    assert not of(still) and still.sequence_bytes == 0 and "inner_lr is 0" in still.notes[0]
    frozen = stacked().requires_grad_(False)
    assert of(nl.describe(frozen))["continuum.*.down"].initial == "the weight"
    assert "frozen, so nothing writes them" in nl.describe(frozen).notes[0]
    frozen.continuum.remove()
    assert not of(nl.describe(frozen))


def test_a_stacked_model_may_be_a_part_of_another() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.speaker = stacked(blocks=1)

    memory = of(nl.describe(Around()))["speaker.continuum.2.down"]
    assert memory.starts_from == ("speaker.model.layers.*.mlp.down_proj",)
