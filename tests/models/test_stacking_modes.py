"""States of a continuum, whoever makes them: in an inference mode, and out of tensors that lie otherwise in memory."""

from __future__ import annotations

import pytest
import torch
from tiny_llama import tiny_llama
from torch import Tensor

import nestlearn as nl
from nestlearn.memory.state import State, flatten, mapped
from nestlearn.models import Continuum, add_continuum
from nestlearn.rules import Link

WRITERS = [nl.rules.adam(), nl.rules.muon(0.9)]  # torch's kernel writes the first in place


def text(time: int, batch: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(40, (batch, time), generator=torch.Generator().manual_seed(seed))


def made(writer: Link, **settings: object) -> Continuum:
    return add_continuum(tiny_llama(), periods=4, inner_lr=0.5, blocks=2, writer=writer, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_state_that_is_asked_for_or_loaded_in_an_inference_mode_is_the_same(writer: Link) -> None:
    found = []
    for inference in (False, True):
        continuum = made(writer)
        with torch.inference_mode(inference):
            continuum.model(text(8))
            states = [continuum.state(text(1)[:, 0])]  # a write is due
            continuum.load(states[0])
        continuum.model(text(10, seed=2))
        states.append(continuum.state())
        found.append([flatten(state) for state in states])
    assert not any(tensor.is_inference() for state in found[1] for tensor in state.values())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("writer", WRITERS)
def test_beams_search_in_an_inference_mode(writer: Link) -> None:
    found = []
    for inference in (False, True):
        model, how = made(writer).model, {"max_new_tokens": 9, "do_sample": False, "num_beams": 3, "pad_token_id": 0}
        with torch.inference_mode(inference):
            found.append(model.generate(text(10), **how))  # type: ignore[operator]
    assert torch.equal(*found)


def test_a_loaded_state_is_written_as_it_was_however_it_lies_in_memory() -> None:
    continuum = made(nl.rules.adam())
    continuum.model(text(10))
    state = continuum.state()
    after = continuum.model(text(10, seed=2)).logits
    turned = mapped(lambda tensor: tensor.mT.contiguous().mT if tensor.ndim == 3 else tensor, state)
    for number, block in turned["blocks"].items():
        block["down"]["model"] = state["blocks"][number]["down"]["model"]
    continuum.load(turned)
    assert torch.equal(continuum.model(text(10, seed=2)).logits, after)


def test_what_is_written_in_place_is_seen_through_no_state() -> None:
    continuum, held = made(nl.rules.adam()), list[State]()
    copies = []
    for seed in range(4):
        continuum.model(text(6, seed=seed))
        held.append(continuum.state())
        copies.append(mapped(Tensor.clone, held[-1]))
        continuum.load(held[-1])
    torch.testing.assert_close(list(map(flatten, held)), list(map(flatten, copies)), rtol=0, atol=0)
