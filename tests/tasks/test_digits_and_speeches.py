"""The two tasks on data that ship with the package."""

import math
from dataclasses import fields

import pytest
import torch

import nestlearn as nl
from nestlearn.models import generate
from nestlearn.tasks import TASKS, DelayedGradientsTask, SpeechesTask
from nestlearn.tasks.networks import ByteTransformer

SIZE = {"dim": 16, "heads": 2, "context": 16, "validation_windows": 8, "test_windows": 8}
SMALL = SpeechesTask(**SIZE, batch=4)


def test_the_evaluation_is_the_mean_over_all_windows_whatever_the_pieces():
    model, whole = SMALL.build(0), SpeechesTask(**SIZE, batch=8)
    assert SMALL.evaluate(model, "test")["loss"] == pytest.approx(whole.evaluate(model, "test")["loss"], rel=1e-6)
    assert SMALL.evaluate(model, "test")["bits"] == pytest.approx(SMALL.evaluate(model, "test")["loss"] / math.log(2))


def test_the_transformer_does_not_see_the_future():
    model = SMALL.build(0)
    tokens = torch.randint(256, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 256
    difference = (model(tokens) - model(changed)).abs().amax(-1)[0]
    assert difference[:9].max() == 0 and difference[9:].min() > 0


def test_tables_are_the_embeddings_and_the_head_and_the_rest_has_matrices():
    model = SMALL.build(0)
    apart = set(map(id, nl.optim.tables(model, output=SMALL.ends(model))))
    assert {name for name, p in model.named_parameters() if id(p) in apart} == {
        "tokens.weight",
        "positions.weight",
        "head.weight",
    }
    assert sum(p.ndim == 2 and id(p) not in apart for p in model.parameters()) == 12


def test_a_width_that_heads_cannot_share_is_a_clear_error():
    with pytest.raises(ValueError, match="dim=10 and heads=4"):
        ByteTransformer(dim=10, depth=1, heads=4, context=8)


def test_delayed_gradients_are_the_speeches_and_nothing_else():
    late = DelayedGradientsTask(**SIZE, batch=4)
    delays = {
        kind.name: next(known.default for known in fields(kind) if known.name == "delay") for kind in TASKS.values()
    }
    assert [name for name, delay in delays.items() if delay] == ["delayed-gradients"]
    assert late.delay == 4
    model = late.build(0)
    assert late.evaluate(model, "test") == SMALL.evaluate(SMALL.build(0), "test")


def test_the_transformer_can_start_as_torch_would_start_it():
    scaled, plain = SMALL.build(0), SpeechesTask(**SIZE, start="torch").build(0)
    assert scaled.tokens.weight.std().item() == pytest.approx(0.5 / math.sqrt(16), rel=0.1)
    assert plain.tokens.weight.std().item() == pytest.approx(1.0, rel=0.1)  # N(0, 1) of nn.Embedding
    assert plain.head.weight.abs().max().item() <= 1 / math.sqrt(16)  # uniform of nn.Linear


def test_a_transformer_with_learned_positions_reads_on_from_a_state():
    """As if it read all at once, while that fits; then each token with at least half of the context before it."""
    model = ByteTransformer(dim=16, depth=2, heads=2, context=8)
    text = torch.randint(256, (2, 40))
    logits, state = model(text[:, :5], return_state=True)
    more, state = model(text[:, 5:8], state, return_state=True)
    torch.testing.assert_close(torch.cat([logits, more], 1), model(text[:, :8]))
    assert state["tokens"].equal(text[:, :8])
    long, state = model(text[:, 8:], state, return_state=True)
    assert long.shape == (2, 32, 256) and state["tokens"].equal(text[:, -8:])
    torch.testing.assert_close(long[:, -4:], model(text[:, -8:])[:, -4:])
    written = generate(model, text, 30)
    for end in range(41, 70):  # always the likeliest after what fits
        assert written[:, end].equal(model(written[:, end - 8 : end])[:, -1].argmax(-1))
