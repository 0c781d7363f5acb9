"""What makes a continuum cheap changes nothing: blocks below it are asked once, and torch's kernels write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from needed import needs
from tiny_llama import tiny_llama
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.models import add_continuum
from nestlearn.models.stacking_calls import cache_name

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
SLIDING = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"] * 2}
THREE = {
    **SLIDING,
    "vocab_size_per_layer_input": 40,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.0] * 4,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 5},
    "Qwen2": {"use_sliding_window": True, **SLIDING},
    "Qwen3": {},
    "Gemma3": SLIDING,
    "Phi3": {},
    "SmolLM3": {},
    "Gemma3n": {**THREE, "num_kv_shared_layers": 0},
    "Gemma3n shared": {**THREE, "num_kv_shared_layers": 2},
}


def made(family: str) -> Any:
    (transformers,) = needs("transformers")
    torch.manual_seed(0)
    name = family.split()[0]
    stem = {"Gemma3": "Gemma3Text", "Gemma3n": "Gemma3nText"}.get(name, name)
    try:
        config = getattr(transformers, f"{stem}Config")(**SIZES, **FAMILIES[family])
    except ModuleNotFoundError as error:  # transformers 5.0 wants torchvision for some
        pytest.skip(str(error))
    return getattr(transformers, f"{name}ForCausalLM")(config).double().eval()


def text(time: int, batch: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(1, 40, (batch, time), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_above_what_was_asked_once_predict_what_one_call_does(family: str) -> None:
    model = made(family)
    tokens, mask = text(22, 2), torch.ones(2, 22, dtype=torch.int64)
    mask[0, :3] = 0
    name = cache_name(model.forward)
    with torch.no_grad():
        before = model(tokens, attention_mask=mask).logits
    add_continuum(model, periods=4, inner_lr=1e-30, blocks=2)
    # A first call of several pieces, one of a piece, and another of several.
    cache, found = None, []
    for start, stop in ((0, 10), (10, 11), (11, 22)):
        out = model(tokens[:, start:stop], attention_mask=mask[:, :stop], use_cache=True, **{name: cache})
        cache = out[name]
        found.append(out.logits)
    torch.testing.assert_close(torch.cat(found, 1)[mask != 0], before[mask != 0])


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Gemma3n", "Gemma3n shared"])
def test_what_is_learned_is_what_calls_of_a_piece_teach(family: str) -> None:
    found = []
    for size in (4, 22):
        model = made(family)
        continuum = add_continuum(model, periods=4, inner_lr=0.01, blocks=(1, 3))
        cache, name = None, cache_name(model.forward)
        for piece in text(22).split(size, 1):
            cache = model(piece, use_cache=True, **{name: cache})[name]
        state = continuum.state()["blocks"]
        found.append([state[number]["down"]["model"]["weight"] for number in ("1", "3")])
    assert all(weight.any() for weight in found[0])
    torch.testing.assert_close(found[0], found[1])


def test_a_cache_of_ones_own_goes_on_and_forward_passes_of_others_come_back() -> None:
    (transformers,) = needs("transformers")
    model = tiny_llama()
    own = model.model.layers[0].forward
    model.model.layers[0].forward = lambda *given, **named: own(*given, **named)
    placed = [vars(layer).get("forward") for layer in model.model.layers]
    with torch.no_grad():
        before = model(text(20)).logits
    add_continuum(model, periods=4, inner_lr=1e-30, blocks=1)
    name, cache = cache_name(model.forward), transformers.DynamicCache()
    found = [model(piece, use_cache=True, **{name: cache}).logits for piece in text(20).split(11, 1)]
    torch.testing.assert_close(torch.cat(found, 1), before)
    assert cache.get_seq_length() == 20 == cache.get_seq_length(2)
    assert [vars(layer).get("forward") for layer in model.model.layers] == placed


def test_blocks_that_are_called_otherwise_are_said() -> None:
    model = tiny_llama()
    model.model.layers[1].forward = lambda hidden_states, **_: (hidden_states,)
    add_continuum(model, periods=4, blocks=1)
    with pytest.raises(TypeError, match="expected LlamaModel to give its blocks tensors, got tuple"):
        model(text(9))
    model = tiny_llama()
    add_continuum(model, periods=4, blocks=1)
    model.config.num_hidden_layers = 2
    with pytest.raises(TypeError, match="expected LlamaModel to call each of its blocks once, got 0 calls"):
        model(text(9))


def test_a_model_without_a_trunk_of_its_own_is_read_piece_by_piece() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(40, 8), nn.Linear(8, 40)
            self.layers = nn.ModuleList(nn.Module() for _ in range(2))
            for layer in self.layers:
                layer.mlp = nn.Module()
                layer.mlp.down_proj = nn.Linear(8, 8)

        def forward(self, input_ids: Tensor, use_cache: bool | None = None, cache: Any = None) -> Any:
            found = self.embedding(input_ids)
            for layer in self.layers:
                found = found + layer.mlp.down_proj(found.tanh())
            return Answer(logits=self.head(found))

    class Answer(dict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            return self.get(name)

    model = Small().eval()
    before = model(text(9)).logits.detach()
    add_continuum(model, periods=4, inner_lr=1e-30, blocks=1)
    torch.testing.assert_close(model(text(9)).logits, before)


def test_slopes_through_linear_attention_are_refused_where_they_would_be_needed() -> None:
    (transformers,) = needs("transformers")
    torch.manual_seed(0)
    if not hasattr(transformers.cache_utils, "LinearAttentionLayer"):
        pytest.skip("this version of transformers has no such layers of a cache")
    linear = {f"linear_{name}": 2 for name in ("num_value_heads", "num_key_heads", "key_head_dim", "value_head_dim")}
    config = transformers.Qwen3NextConfig(**SIZES, **linear, num_experts=0, mlp_only_layers=[0, 1, 2, 3])
    model = transformers.Qwen3NextForCausalLM(config).eval()  # blocks 0 to 2 have linear attention
    with torch.no_grad():
        before = model(text(9)).logits
    continuum = add_continuum(model, periods=4, blocks=3)
    with pytest.raises(TypeError, match=r"no slopes go through linear attention.* objective=\"direct\""):
        model(text(9))
    assert continuum.texts == 0
    for settings in ({"blocks": 2}, {"blocks": 3, "objective": "direct"}):
        model.continuum.remove()
        add_continuum(model, periods=4, inner_lr=1e-30, **settings)
        torch.testing.assert_close(model(text(9)).logits, before)


@pytest.mark.parametrize("make", ["gradient", "adam", "average", "second_moment"])
def test_a_kernel_writes_what_its_rule_says(make: str) -> None:
    found = []
    for fused in (True, False):
        continuum = add_continuum(tiny_llama(), periods=4, inner_lr=0.01, blocks=2, writer=getattr(nl.rules, make)())
        for matrix in continuum.matrices.values():
            assert matrix.writer.kernel is not None
            matrix.writer = matrix.writer if fused else matrix.writer._replace(kernel=None)
        continuum.read(text(22, 2), window=9)
        found.append(continuum.state()["blocks"])
    torch.testing.assert_close(found[0], found[1])
