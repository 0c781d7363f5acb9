"""docs/hosts.md: its examples run, and what it says does not work does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from page_code import run_page
from pages import text

import nestlearn as nl

from .common import llama, transformers


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(text("docs/hosts.md"), "hosts.md")
    assert (tmp_path / "runs" / "llama" / "checkpoint-6").is_dir()


def test_a_pattern_of_names_is_refused_where_trainer_drops_the_names(tmp_path: Path) -> None:
    chosen = nl.optim.Muon, {"elementwise": ["lm_head*"]}
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    trainer = transformers.Trainer(llama(), arguments, optimizer_cls_and_kwargs=chosen)
    with pytest.raises(ValueError, match="elementwise looks at parameter names"):
        trainer.create_optimizer()


def test_gpt2_has_no_layers_to_watch_and_trains_without() -> None:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=48, **sizes))
    tables = [model.transformer.wte, model.transformer.wpe]
    with pytest.raises(ValueError, match=r"is no weight of an nn\.Linear"):
        nl.optim.LayerMomentum(model.parameters(), model=model, elementwise=tables)
    words = torch.randint(48, (2, 8))
    model(input_ids=words, labels=words).loss.backward()
    nl.optim.Muon(model.parameters(), elementwise=tables).step()


def test_fused_attention_has_no_second_derivative() -> None:
    model = llama()
    model.set_attn_implementation("sdpa")
    words = torch.randint(48, (2, 8))
    loss = model(input_ids=words, labels=words).loss
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for .* is not implemented"):
        sum(slope.square().sum() for slope in slopes).backward()
