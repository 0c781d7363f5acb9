"""Calls of a model with a continuum that cannot be read, and what they leave behind: nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import tiny_llama
from torch import Tensor

from nestlearn.memory.state import flatten
from nestlearn.models import Continuum, add_continuum


def text(time: int, batch: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(40, (batch, time), generator=torch.Generator().manual_seed(seed))


def made(**settings: Any) -> Continuum:
    return add_continuum(tiny_llama(), **{"periods": 4, "inner_lr": 0.5, "blocks": 2, **settings})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"output_attentions": True}, "output_attentions: a call that goes beyond the next write"),
        ({"attention_mask": torch.ones(1, 1, 9, 9)}, r"attention_mask \[batch, time\], got \[1, 1, 9, 9\]"),
        ({"input_ids": text(9, 3)}, r"expected the 1 texts that are being read, got 3: model\.continuum\.reset"),
        ({"input_ids": text(0)}, r"expected input_ids \[batch, time\] of one token at least, got \[1, 0\]"),
        ({"input_ids": text(9)[0]}, r"expected input_ids \[batch, time\] of one token at least, got \[9\]"),
        ({"shift_labels": text(9)}, "got shift_labels"),
    ],
)
def test_a_call_that_is_refused_teaches_nothing(given: dict[str, Any], words: str) -> None:
    continuum, other = made(), made()
    for each in (continuum, other):
        each.model(text(4))  # a write is due
    with pytest.raises(ValueError, match=words):
        continuum.model(**{"input_ids": text(9, seed=2), **given})
    assert continuum.time == 4
    for each in (continuum, other):
        each.model(text(6, seed=3))
    torch.testing.assert_close(flatten(continuum.state()), flatten(other.state()), rtol=0, atol=0)


def test_states_that_a_models_settings_ask_for_are_refused_in_pieces() -> None:
    continuum = made()
    continuum.model.config.output_hidden_states = True  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="output_hidden_states: a call that goes beyond the next write"):
        continuum.model(text(9))
    assert len(continuum.model(text(4)).hidden_states) == 4
    continuum.reset()
    assert len(continuum.model(text(9), output_hidden_states=False).logits[0]) == 9


def test_a_first_call_that_fails_begins_no_text() -> None:
    continuum = made()
    with pytest.raises(IndexError):
        continuum.model(text(9, 2) + 40)  # no such tokens
    assert (continuum.texts, continuum.time, continuum.bytes, continuum.state()) == (0, 0, 0, {})
    with continuum.paused():
        assert continuum.model(text(4, 3)).logits.shape == (3, 4, 40)


def test_a_call_that_fails_half_way_has_read_what_came_before() -> None:
    continuum, other, calls = made(), made(), list[int]()
    for each in (continuum, other):
        each.model(text(6))

    def interrupt(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    handle = continuum.model.lm_head.register_forward_hook(interrupt)  # type: ignore[union-attr, operator]
    with pytest.raises(KeyboardInterrupt):
        continuum.read(text(13, seed=2))
    handle.remove()
    assert continuum.time == 12
    other.read(text(13, seed=2)[:, :6])
    other.state(text(13, seed=2)[:, 6])  # the token after it was known
    for each in (continuum, other):
        each.read(text(9, seed=3))
    torch.testing.assert_close(flatten(continuum.state()), flatten(other.state()), rtol=0, atol=0)


def test_a_model_is_copied_with_what_its_text_has_written_between_two_calls() -> None:
    continuum = made()
    continuum.model(text(6))
    with pytest.raises(RuntimeError, match=r"slopes that wait cannot be copied: continuum\.state\(\) or reset\(\)"):
        copy.deepcopy(continuum.model)
    state = continuum.state()
    other: Any = copy.deepcopy(continuum.model)
    found = other(text(9, seed=2)).logits
    torch.testing.assert_close(flatten(continuum.state()), flatten(state), rtol=0, atol=0)
    assert torch.equal(continuum.model(text(9, seed=2)).logits, found) and other.continuum.model is other


def test_directions_move_with_their_model_and_offloaded_weights_are_refused() -> None:
    continuum = made(rank=3)
    continuum.model.to("meta")
    try:
        tiny_llama().to("meta")(text(9).to("meta"))
    except RuntimeError:
        pytest.skip("this version of transformers does not know the device meta")
    with pytest.raises(
        ValueError, match=r"1\.down: expected a weight that lies on a device, got one that is offloaded"
    ):
        continuum.model(text(9))
    assert continuum.model(text(9).to("meta")).logits.is_meta


def test_generate_without_a_cache_would_read_the_text_anew_for_every_token() -> None:
    continuum, how = made(), {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    model: Any = continuum.model
    model.generation_config.use_cache = False  # as trainings leave it
    with pytest.raises(ValueError, match="generate reads every token once: expected use_cache=True, got False"):
        model.generate(text(5), **how)
    assert continuum.time == 0 and model.generate(text(5), use_cache=True, **how).shape == (1, 8)
    with continuum.paused():
        assert model.generate(text(5), **how).shape == (1, 8)
        assert model.generate(inputs_embeds=model.get_input_embeddings()(text(5)), **how).shape == (1, 3)
    continuum.state()
    other = copy.deepcopy(model)
    assert other.prepare_inputs_for_generation.args[0].__self__ is other
    continuum.remove()
    assert model.generate(text(5), **how).shape == (1, 8)
    assert not {"forward", "prepare_inputs_for_generation", "_is_stateful", "_reorder_cache"} & vars(model).keys()


def test_the_token_that_follows_is_one_for_each_text() -> None:
    continuum = made()
    continuum.model(text(9))
    with pytest.raises(ValueError, match="expected the 1 texts that are being read, got 3"):
        continuum.state(text(3)[0])


def test_reading_within_a_pause_is_refused() -> None:
    continuum = made()
    with continuum.paused(), pytest.raises(RuntimeError, match=r"a text does not go on within paused\(\)"):
        continuum.read(text(9))


def test_a_state_is_kept_where_nothing_is_written(tmp_path: Path) -> None:
    """A continuum with inner_lr=0 answers from what another one has written."""
    continuum, frozen = made(), made(inner_lr=0)
    frozen.read(text(9))
    with pytest.raises(ValueError, match="there is no state to save: with inner_lr=0 nothing is written"):
        frozen.save(tmp_path / "nothing")
    continuum.read(text(9))
    state = continuum.state()
    frozen.load(state)
    torch.testing.assert_close(flatten(frozen.state()), flatten(state), rtol=0, atol=0)
    with continuum.paused():
        torch.testing.assert_close(frozen.model(text(9)).logits, continuum.model(text(9)).logits)
    frozen.save(tmp_path / "state")
    continuum.reset()
    continuum.load(tmp_path / "state")
    torch.testing.assert_close(flatten(continuum.state()), flatten(state), rtol=0, atol=0)


@pytest.mark.parametrize("time", [3, 9])
def test_labels_of_a_batch_in_several_calls_are_counted_by_whoever_says_so(time: int) -> None:
    model, tokens = tiny_llama(), text(time)
    expected = model(tokens, labels=tokens, num_items_in_batch=torch.tensor(50)).loss.detach()
    add_continuum(model, periods=4, inner_lr=1e-30, blocks=2)
    found = model(tokens, labels=tokens, num_items_in_batch=torch.tensor(50)).loss
    torch.testing.assert_close(found, expected, check_dtype=False)
