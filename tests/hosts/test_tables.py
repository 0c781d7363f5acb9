"""``nl.optim.tables`` on the models that people have: transformers' and timm's, made from small configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from needed import needs
from torch import nn

import nestlearn as nl

(transformers,) = needs("transformers")

SIZES = {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def names(model: nn.Module, **settings: Any) -> set[str]:
    found = set(map(id, nl.optim.tables(model, **settings)))
    return {name for name, parameter in model.named_parameters() if id(parameter) in found}


def gpt2() -> nn.Module:
    sizes = {"vocab_size": 48, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "bos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, eos_token_id=0))


def llama(**settings: Any) -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **settings))


def bert(kind: str = "BertForMaskedLM") -> nn.Module:
    return getattr(transformers, kind)(transformers.BertConfig(**SIZES, max_position_embeddings=8))


def vit(kind: str = "ViTForImageClassification") -> nn.Module:
    sizes = {name: size for name, size in SIZES.items() if name != "vocab_size"}
    return getattr(transformers, kind)(transformers.ViTConfig(**sizes, image_size=32, num_labels=5))


def t5(kind: str = "T5ForConditionalGeneration", **settings: Any) -> nn.Module:
    sizes = {"vocab_size": 48, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    return getattr(transformers, kind)(transformers.T5Config(**sizes, **settings))


BERT = {f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}
BIASES = {f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight" for side in ("encoder", "decoder")}
VIT = {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"}
MODELS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "gpt2": (gpt2, {"transformer.wte.weight", "transformer.wpe.weight"}),
    "llama": (llama, {"model.embed_tokens.weight", "lm_head.weight"}),
    "llama, tied": (lambda: llama(tie_word_embeddings=True), {"model.embed_tokens.weight"}),
    "bert": (bert, BERT),
    "bert that classifies": (lambda: bert("BertForSequenceClassification"), BERT | {"classifier.weight"}),
    "vit": (vit, VIT | {"classifier.weight"}),
    "t5": (t5, {"shared.weight"} | BIASES),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_transformers(name: str) -> None:
    make, expected = MODELS[name]
    assert names(make()) == expected


@pytest.mark.parametrize("kind", ["BertModel", "ViTModel", "T5EncoderModel"])
def test_models_without_a_head_are_asked_about(kind: str) -> None:
    model = {"B": bert, "V": vit, "T": t5}[kind[0]](kind)
    with pytest.raises(ValueError, match=r"cannot tell the output layer of .* or output=\(\) where there is none"):
        names(model)
    with_head = nn.Sequential(model, nn.Linear(16, 3))
    assert names(with_head) == {f"0.{name}" for name in names(model, output=())} | {"1.weight"}


def test_models_of_timm() -> None:
    (timm,) = needs("timm")
    make = timm.create_model
    small = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    assert names(make("vit_tiny_patch16_224", **small)) == {"cls_token", "pos_embed", "head.weight"}
    assert names(make("vit_tiny_patch16_224", **{**small, "num_classes": 0})) == {"cls_token", "pos_embed"}
    distilled = {"cls_token", "dist_token", "pos_embed", "head.weight", "head_dist.weight"}
    assert names(make("deit_tiny_distilled_patch16_224", **small)) == distilled
    assert names(make("resnet18", num_classes=5)) == {"fc.weight"}
