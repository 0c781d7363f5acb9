"""A model that is watched while it reads: surprise and movement against what the states and logits say themselves."""

import pytest
import torch
from every_model import CASES, model, text
from torch.nn import functional as F

from nestlearn.memory.state import flatten
from nestlearn.models import memories, movement, observe

SOME = ["hope", "hope, mlp", "hope, next token", "titans", "gated_delta_net, omega, momentum", "transformer"]


@pytest.mark.parametrize("case", SOME)
def test_a_text_in_pieces_surprises_as_the_whole_does(case):
    reader, tokens = model(case), text(23)
    with torch.no_grad():
        logits, state = reader(tokens, return_state=True)
        expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    # The first 11 tokens in one call, the rest in another one.
    readings = list(observe(reader, tokens[:, :11], piece=5))
    readings += observe(reader, tokens[:, 11:], readings[-1].state, readings[-1].logits, piece=4)
    losses = torch.cat([reading.losses for reading in readings], 1)
    assert torch.isnan(losses[:, 0]).all() and losses.dtype == torch.float64
    torch.testing.assert_close(losses[:, 1:].flatten(), expected)
    torch.testing.assert_close(readings[-1].logits, logits[:, -1])
    torch.testing.assert_close(flatten(readings[-1].state), flatten(state))
    assert [reading.tokens.shape[1] for reading in readings] == [5, 5, 1, 4, 4, 4]
    assert all(not held.requires_grad for reading in readings for held in flatten(reading.state).values())


def test_each_memory_has_a_name_and_moves_as_far_as_its_numbers_do():
    reader, tokens = model("hope"), text(9)
    (reading,) = observe(reader, tokens, piece=9)
    banks, blocks = reading.before["parts"]["0"]["banks"], reading.state["parts"]["1"]["blocks"]
    assert {"1.blocks.0", "1.blocks.1", *(f"0.banks.{name}" for name in banks)} <= reading.moved.keys()
    for b in range(2):
        one, two = (
            torch.cat([held[b].flatten() for held in state["parts"]["1"]["blocks"]["0"]["model"].values()])
            for state in (reading.before, reading.state)
        )
        far = (two - one).norm() / max(one.norm(), two.norm())
        assert far > 0
        torch.testing.assert_close(reading.moved["1.blocks.0"][b], far)
    assert blocks.keys() == {"0", "1"}


def test_a_continuum_moves_where_it_is_written_and_nowhere_else():
    reader, tokens = model("hope"), text(17, batch=1)  # periods of 4 and 8
    moved = [reading.moved for reading in observe(reader, tokens, piece=1)]
    for name, period in (("1.blocks.0", 4), ("1.blocks.1", 8)):
        written = [place for place, each in enumerate(moved, 1) if each[name] > 0]
        assert written == list(range(period, 18, period))


def test_what_was_empty_moves_by_one_and_what_stays_by_nothing():
    empty, full = ({"parts": {"0": {"model": {"w": torch.full((2, 3), value)}}}} for value in (0.0, 2.0))
    assert movement(empty, full)["0"].tolist() == movement(full, empty)["0"].tolist() == [1.0, 1.0]
    assert movement(empty, empty)["0"].tolist() == movement(full, full)["0"].tolist() == [0.0, 0.0]


def test_memories_that_are_read_again_later_are_named_once():
    for case in CASES:
        state = model(case).initial_state(1)
        names = memories(state)
        assert all(name.split(".")[0] in state["parts"] for name in names)
        assert bool(names) == (case != "transformer")


def test_a_text_is_read_as_it_is_asked_for_and_leaves_no_mode_behind():
    reader, tokens = model("gated_delta_net"), text(12)
    readings = observe(reader, tokens, piece=4)
    next(readings)
    assert torch.is_grad_enabled()
    assert list(observe(reader, tokens[:, :0])) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"piece": 0}, "piece: expected at least 1 token, got 0"),
        ({"logits": torch.zeros(3, 17)}, r"logits: expected \[2, vocab_size\], of each sequence, got \(3, 17\)"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_read(more, message):
    with pytest.raises(ValueError, match=message):
        observe(model("titans"), text(5), **more)


def test_states_of_unlike_models_or_batches_have_no_distance():
    titans, hope = (model(case).initial_state(1) for case in ("titans", "hope"))
    with pytest.raises(ValueError, match="expected two states of one model, got memories"):
        movement(titans, hope)
    with pytest.raises(ValueError, match="expected two states of one model and batch, got other shapes"):
        movement(hope, model("hope").initial_state(2))
