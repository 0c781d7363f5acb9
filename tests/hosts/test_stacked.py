"""A continuum in a model that others have changed too: adapters of peft, hooks of accelerate, generate's assistants."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from needed import needs
from tiny_llama import tiny_llama
from torch import Tensor

from nestlearn.models import Continuum, add_continuum

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}


def text(time: int, batch: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(40, (batch, time), generator=torch.Generator().manual_seed(seed))


def stacked(model: Any) -> Continuum:
    return add_continuum(model, periods=4, inner_lr=0.5, blocks=2)


def adapted(model: Any, *targets: str) -> Any:
    """With adapters that are no zeros."""
    (peft,) = needs("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=list(targets), task_type="CAUSAL_LM", init_lora_weights=False)
    return peft.get_peft_model(model, config).double().eval()


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",)])
@pytest.mark.parametrize("first", ["adapter", "continuum"])
def test_adapters_of_peft_are_read_through_whatever_comes_first(targets: tuple[str, ...], first: str) -> None:
    whole = adapted(tiny_llama(), *targets).merge_and_unload()
    continuum = stacked(whole)
    expected, losses = whole(text(22)).logits, continuum.read(text(9, seed=2))
    continuum.reset()
    made = whole.generate(input_ids=text(10), **GREEDY)
    model = tiny_llama()
    if first == "continuum":
        stacked(model)
    model = adapted(model, *targets)
    continuum = stacked(model) if first == "adapter" else model.continuum
    torch.testing.assert_close(model(input_ids=text(22)).logits, expected)
    torch.testing.assert_close(continuum.read(text(9, seed=2)), losses)
    assert model.continuum is continuum and continuum.time == 31
    continuum.reset()
    assert torch.equal(model.generate(input_ids=text(10), **GREEDY), made) and continuum.time == 17


def test_a_model_with_adapters_is_no_folder(tmp_path: Path) -> None:
    model = adapted(tiny_llama(), "q_proj")
    continuum = stacked(model)
    with pytest.raises(TypeError, match=r"adapters of peft.* merge_and_unload\(\)"):
        continuum.save_pretrained(tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_what_others_put_into_a_model_is_there_when_a_continuum_is_gone() -> None:
    model, calls = tiny_llama(), []
    own = model.forward

    @functools.wraps(own)
    def hooked(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return own(*given, **named)

    model.forward = hooked
    continuum = stacked(model)
    model(text(3))
    continuum.remove()
    assert model.forward is hooked and len(calls) == 1
    again = stacked(model)
    continuum.remove()  # it is no longer there
    assert model.continuum is again


def test_drafts_of_an_assistant_are_refused_as_they_cannot_be_taken_back() -> None:
    model = tiny_llama()
    continuum = stacked(model)
    with pytest.raises(ValueError, match="not supported with stateful models"):
        model.generate(text(10), prompt_lookup_num_tokens=3, **GREEDY)
    continuum.remove()
    assert model.generate(text(10), prompt_lookup_num_tokens=3, **GREEDY).shape[1] >= 18  # transformers 5.0: 19
