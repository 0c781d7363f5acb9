"""The experiment of level stacking: its shortcut, its controls, and that writes are those of torch's own optimizers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_llama import tiny_llama

import nestlearn as nl
from experiments.sequence.stacking.controls import cached, dynamic
from experiments.sequence.stacking.facts import FACTS, facts_text, questions
from experiments.sequence.stacking.top import below, top


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama()


TOKENS = torch.randint(40, (1, 39), generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_the_top_of_a_model_reads_as_all_of_it_does(model: Any) -> None:
    settings = {"periods": 4, "inner_lr": 0.3, "blocks": 2, "writer": nl.rules.muon(0.9)}
    whole = nl.models.add_continuum(model, **settings)
    expected = whole.read(TOKENS, window=16)
    whole.remove()
    part = nl.models.add_continuum(top(model, below(model, TOKENS, 16, 2), 2), **settings)
    torch.testing.assert_close(part.read(TOKENS, window=16), expected)
    assert not model.model.layers[1]._forward_pre_hooks


@pytest.mark.parametrize(
    ("writer", "kind", "rate"), [(nl.rules.gradient(), torch.optim.SGD, 0.5), (nl.rules.adam(), torch.optim.Adam, 0.01)]
)
def test_a_continuum_of_their_rule_is_dynamic_evaluation(model: Any, writer: Any, kind: Any, rate: float) -> None:
    """Written apart, with the optimizers of torch, over two windows and with keys of the cache that are not new."""
    kept = below(model, TOKENS[:, :33], 16, 2)
    continuum = nl.models.add_continuum(top(model, kept, 2), periods=4, inner_lr=rate, blocks=2, writer=writer)
    losses = continuum.read(TOKENS[:, :33], window=16)[0]
    control = top(model, kept, 2)
    weights = [layer.mlp.down_proj.weight for layer in control.model.layers]
    starts = [weight.detach().clone() for weight in weights]
    found = dynamic(control, TOKENS[:, :33], lambda given: kind(given, lr=rate), period=4, window=16, weights=weights)
    torch.testing.assert_close(losses, found.float())
    for number, (weight, start) in enumerate(zip(weights, starts, strict=True)):
        held = continuum.matrices[f"{number}.down"].held()["model"]["weight"][0]
        assert held.abs().max() > 1e-4
        torch.testing.assert_close(held, weight.detach() - start, rtol=1e-5, atol=1e-6)


def test_the_cache_of_words_is_a_mixture() -> None:
    """Of a model that gives each of ten tokens 0.1, by hand."""
    tokens = torch.tensor([3, 5, 3, 3, 5])
    losses = torch.full((4,), math.log(10))
    expected = [0.9 * 0.1, 0.9 * 0.1 + 0.1 * 1 / 2, 0.9 * 0.1 + 0.1 * 1 / 2, 0.9 * 0.1]  # of the last two tokens
    found = cached(losses, tokens, 0.1, 2)
    torch.testing.assert_close(found.exp().reciprocal(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_every_fact_is_said_once_and_asked_for_with_ends_of_other_facts() -> None:
    text = facts_text()
    for place, name, year in FACTS:
        assert text.count(name) == 1 == text.count(str(year)) and text.count(place) == 2
    asked = questions(4)
    assert len(asked) == 2 * len(FACTS)
    for begin, ends in asked:
        assert begin + ends[0] in text and len(set(ends)) == 4
        assert not any(begin + end in text for end in ends[1:])
