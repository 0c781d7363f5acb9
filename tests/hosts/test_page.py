"""docs/hosts.md: its examples run, its table is the record's, and what it says does not work does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from host_table import FOUND, with_host_table
from needed import needs
from page_code import run_page
from pages import text
from torch import nn

import nestlearn as nl
from benchmarks.hosts.common import llama
from benchmarks.hosts.trainer import settings


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("accelerate", "transformers", "peft", "lightning", "timm", "skorch", "ignite")
    monkeypatch.chdir(tmp_path)
    torch.compiler.reset()  # models without hooks, compiled by other tests
    run_page(text("docs/hosts.md"), "hosts.md")
    assert (tmp_path / "runs" / "llama" / "checkpoint-4").is_dir()


def test_the_table_is_that_of_the_record() -> None:
    page = text("docs/hosts.md")
    found = json.loads(FOUND.read_text(encoding="utf-8"))
    assert page == with_host_table(page, found), "out of date, write it again: bash dev/docs"


def test_a_cell_that_is_not_y_is_explained_below() -> None:
    begin, end = "<!-- hosts: written by `bash dev/docs`. -->\n", "<!-- hosts: as far as here. -->\n"
    one = {"with": {"torch": "2"}, "found": {"Muon": "y", "Adam": "it is tired"}}
    two = {"with": {"lightning": "3"}, "found": {"Muon": "no", "Adam": "it is tired"}}
    table = with_host_table(begin + end, {"one": one, "two": two})
    assert "With torch 2, lightning 3." in table
    assert "| Muon | y | b |\n| Adam | a | a |" in table
    assert "- **a**: it is tired.\n- **b**: no.\n" in table
    with pytest.raises(ValueError, match="expected a place for the table"):
        with_host_table("no place", {})


def trainer(folder: Path, model: nn.Module, **chosen: Any) -> Any:
    transformers, _ = needs("transformers", "accelerate")
    return transformers.Trainer(model, settings(folder), **chosen)


def test_a_pattern_of_names_is_refused_where_trainer_drops_the_names(tmp_path: Path) -> None:
    needs("transformers", "accelerate")
    made = trainer(tmp_path, llama(), optimizer_cls_and_kwargs=(nl.optim.Muon, {"elementwise": ["lm_head*"]}))
    with pytest.raises(ValueError, match="elementwise looks at parameter names"):
        made.create_optimizer()


def test_a_keyword_named_model_never_reaches_the_optimizer(tmp_path: Path) -> None:
    needs("transformers", "accelerate")
    chosen = torch.optim.SGD, {"model": [nn.Parameter(torch.zeros(3))], "lr": 0.01}
    made = trainer(tmp_path, llama(), optimizer_cls_and_kwargs=chosen)
    assert [each.shape for group in made.create_optimizer().param_groups for each in group["params"]] == [(3,)]


def test_timm_drops_what_stands_before_an_underscore() -> None:
    needs("timm")
    from timm.optim import Muon, create_optimizer_v2, list_optimizers

    from nestlearn.integrations.timm import register

    names = register()
    assert register() == names and set(names) <= set(list_optimizers())
    assert {f"nl-{name.lower()}" for name in nl.optim.__all__ if name not in ("Optimizer", "tables")} == set(names)
    layer = nn.Linear(4, 3)
    assert type(create_optimizer_v2(layer, opt="nl-muon", lr=0.01)) is nl.optim.Muon
    assert type(create_optimizer_v2(layer, opt="nl_muon", lr=0.01)) is Muon
    # What timm's script gives to all is taken out where it is unknown, and reaches Adam.
    kept = create_optimizer_v2(layer, opt="nl-adam", lr=0.01, eps=1e-3, betas=(0.5, 0.6))
    assert (kept.param_groups[0]["eps"], kept.param_groups[0]["betas"]) == (1e-3, (0.5, 0.6))
    create_optimizer_v2(layer, opt="nl-gradientdescent", lr=0.01, eps=1e-3, betas=(0.5, 0.6))


def test_gpt2_is_watched_as_the_linear_layers_that_it_has() -> None:
    (transformers,) = needs("transformers")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "bos_token_id": 0, "eos_token_id": 0}
    drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=48, **sizes, **drops))
    rows = [model.transformer.wte, model.transformer.wpe]
    optimizer = nl.optim.LayerMomentum(
        model.parameters(), model=model, elementwise=rows, covariance_retention=0.0, refresh=1
    )
    layer = model.transformer.h[0].mlp.c_fc
    met = {}
    layer.register_forward_hook(lambda _, args, answer: met.update(x=args[0].detach(), y=answer))
    words = torch.randint(48, (2, 8))
    loss = model(input_ids=words, labels=words).loss
    (error,) = torch.autograd.grad(loss, met["y"], retain_graph=True)
    loss.backward()
    optimizer.step()
    for name, seen in (("inputs", met["x"]), ("errors", error)):
        covariance = torch.einsum("bti,btj->ij", seen, seen)
        covariance = covariance / covariance.diagonal().mean()
        torch.testing.assert_close(
            optimizer.state[layer.weight][f"{name}.model.value"], covariance, rtol=1e-4, atol=1e-4
        )
    nl.optim.Muon(model.parameters(), elementwise=rows).step()


def test_fused_attention_has_no_second_derivative() -> None:
    needs("transformers")
    model: Any = llama()
    model.set_attn_implementation("sdpa")
    words = torch.randint(16, (2, 6))
    loss = model(input_ids=words, labels=words).loss
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for .* is not implemented"):
        sum(slope.square().sum() for slope in slopes).backward()


def test_for_trainer_makes_the_groups_of_trainer_with_names(tmp_path: Path) -> None:
    needs("transformers", "accelerate")
    from nestlearn.integrations.huggingface import for_trainer

    model = llama()
    own = trainer(tmp_path, model, optimizer_cls_and_kwargs=(nl.optim.Adam, {"lr": 0.01})).create_optimizer()
    chosen = for_trainer(nl.optim.Adam, lr=0.01, weight_decay=0.1)
    ours = trainer(tmp_path, model, optimizer_cls_and_kwargs=chosen).create_optimizer()
    for one, two in zip(own.param_groups, ours.param_groups, strict=True):
        assert all(a is b for a, b in zip(one["params"], two["params"], strict=True))
        assert (one["weight_decay"], one["lr"]) == (two["weight_decay"], two["lr"])
    assert "lm_head.weight" in ours.param_groups[0]["param_names"]


@pytest.mark.parametrize("elementwise", [nl.optim.tables, ["*embed_tokens*", "lm_head*"]], ids=["function", "patterns"])
def test_for_trainer_takes_a_function_of_the_model_or_patterns(elementwise: Any, tmp_path: Path) -> None:
    needs("transformers", "accelerate")
    from nestlearn.integrations.huggingface import for_trainer

    model = llama()
    model.model.norm.weight.requires_grad_(False)
    chosen = for_trainer(nl.optim.Muon, lr=0.01, elementwise=elementwise)
    optimizer = trainer(tmp_path, model, optimizer_cls_and_kwargs=chosen).create_optimizer()
    words = torch.randint(16, (2, 6))
    model(input_ids=words, labels=words).loss.backward()
    optimizer.step()
    adam = {name for name, each in model.named_parameters() if "second_moment.model.value" in optimizer.state[each]}
    norms = {"model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight"}
    assert adam == {"model.embed_tokens.weight", "lm_head.weight", *norms}
