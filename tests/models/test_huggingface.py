"""What can be tried of our models in transformers without it; tests/hosts/test_language_models.py has the rest."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import torch
from every_model import model, text

import nestlearn as nl
from nestlearn.models.huggingface_cache import StateCache
from nestlearn.models.huggingface_card import card
from nestlearn.models.huggingface_tokenizer import tokenizer_of


def test_without_transformers_the_message_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "nestlearn.models.huggingface", raising=False)
    with pytest.raises(nl.errors.MissingPackageError, match=r'pip install "nestlearn\[hf\]"'):
        importlib.import_module("nestlearn.models.huggingface")
    with pytest.raises(nl.errors.MissingPackageError, match=r'pip install "nestlearn\[hf\]"'):
        tokenizer_of()


@pytest.mark.parametrize("case", ["hope", "hope_attention, next token"])
def test_a_cache_goes_on_with_the_sequences_that_are_chosen(case: str) -> None:
    own = model(case, depth=1)
    with torch.no_grad():
        _, state = own(text(6), return_state=True)
        cache = StateCache(state, 6)
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([3, 0, 1]))
        found = own(text(3, 1).expand(3, 3), cache.state)
        expected = own(text(3, 1).expand(2, 3), state)
    torch.testing.assert_close(found, expected[[1, 0, 0]])
    assert cache.get_seq_length() == 6


def test_a_cache_forgets_all_or_nothing() -> None:
    cache = StateCache({"model": {"weight": torch.ones(2, 3)}}, 5)
    with pytest.raises(NotImplementedError, match=r"kept = cache\.state"):
        cache.crop(-1)
    cache.reset()
    assert cache.state is None and cache.get_seq_length() == 0
    cache.batch_select_indices(torch.tensor([0]))
    assert cache.state is None


def test_a_card_says_what_the_model_is() -> None:
    own = nl.models.hope(256, 16, 3, 2, tied=True)
    told = card(own.config, 1234567, torch.bfloat16)
    assert told.startswith("---\nlibrary_name: transformers\n")
    assert "1,234,567 parameters in bfloat16, 256 tokens, width 16." in told
    assert "Blocks: 3 x self_modifying + continuum. The head is the embedding." in told
    kept = json.loads(told.split("```json\n")[1].split("```")[0])
    assert kept.pop("nestlearn") == importlib.import_module("nestlearn.version").__version__
    assert nl.models.LanguageModel(**kept).fingerprint == own.fingerprint
