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


def test_gpt2_is_watched_as_the_linear_layers_that_it_has() -> None:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "bos_token_id": 0, "eos_token_id": 0}
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=48, **sizes, **drops))
    tables = [model.transformer.wte, model.transformer.wpe]
    optimizer = nl.optim.LayerMomentum(
        model.parameters(), model=model, elementwise=tables, covariance_retention=0.0, refresh=1
    )
    layer = model.transformer.h[0].mlp.c_fc
    met = {}
    layer.register_forward_hook(lambda _, args, answer: met.update(x=args[0].detach(), y=answer))
    words = torch.randint(48, (2, 8))
    loss = model(input_ids=words, labels=words).loss
    (error,) = torch.autograd.grad(loss, met["y"], retain_graph=True)
    loss.backward()
    optimizer.step()
    for name, rows in (("inputs", met["x"]), ("errors", error)):
        covariance = torch.einsum("bti,btj->ij", rows, rows)
        covariance = covariance / covariance.diagonal().mean()
        torch.testing.assert_close(
            optimizer.state[layer.weight][f"{name}.model.value"], covariance, rtol=1e-4, atol=1e-4
        )
    nl.optim.Muon(model.parameters(), elementwise=tables).step()


def test_fused_attention_has_no_second_derivative() -> None:
    model = llama()
    model.set_attn_implementation("sdpa")
    words = torch.randint(48, (2, 8))
    loss = model(input_ids=words, labels=words).loss
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for .* is not implemented"):
        sum(slope.square().sum() for slope in slopes).backward()
