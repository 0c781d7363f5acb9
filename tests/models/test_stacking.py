"""A pretrained model that goes on learning (C5), on a tiny random Llama of transformers in float64.

That writes are those of dynamic evaluation by torch's own optimizers is in tests/experiments/test_stacking.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from needed import needs
from page_code import run_page
from pages import text as page
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_llama import read_on, tiny_llama
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import nestlearn as nl
from nestlearn.memory.state import leaves
from nestlearn.models import Continuum, StateFileError, add_continuum
from nestlearn.models.tensor_files import state_sum

NAME = "model.layers.2.mlp.down_proj.weight"  # of the last block


@pytest.fixture(scope="module")
def fresh() -> Any:
    return tiny_llama()


@pytest.fixture
def model(fresh: Any) -> Any:
    return copy.deepcopy(fresh)


def text(time: int, batch: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(40, (batch, time), generator=torch.Generator().manual_seed(seed))


def plain(model: Any, **settings: Any) -> Continuum:
    """With the slope itself as the update."""
    return add_continuum(model, writer=nl.rules.gradient(), **settings)


def written(continuum: Continuum, number: int = 2, name: str = "down") -> Tensor:
    found: Tensor = continuum.state()["blocks"][str(number)][name]["model"]["weight"]
    return found


def test_without_a_rate_it_is_the_model_that_it_was(model: Any) -> None:
    before = model(text(20, 2)).logits
    plain(model, periods=4, inner_lr=0, blocks=3, matrices=("gate", "up", "down"))
    assert torch.equal(model(text(20, 2)).logits, before)
    model.continuum.remove()
    assert torch.equal(model(text(20, 2)).logits, before) and not hasattr(model, "continuum")
    assert "forward" not in vars(model)


def test_pieces_with_a_cache_predict_what_one_call_does(model: Any) -> None:
    before = model(text(22, 2)).logits
    plain(model, periods=4, inner_lr=1e-30, blocks=2)
    torch.testing.assert_close(model(text(22, 2)).logits, before)
    assert model.continuum.time == 22
    model.continuum.reset()
    tokens, cache, found = text(22, 2), None, []
    for piece in tokens.split(3, 1):
        logits, cache = read_on(model, piece, cache)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), before)


@pytest.mark.parametrize("size", [1, 3, 11])
def test_writes_are_those_of_plain_automatic_differentiation(model: Any, size: int) -> None:
    """However the calls are cut: what the last W_down writes does not change the keys that a cache holds."""
    tokens, lr = text(11), 0.5
    held, weight = torch.zeros(1, *dict(model.named_parameters())[NAME].shape).double(), model.state_dict()[NAME]
    expected = []
    for start in range(0, 11, 4):
        leaf = held.clone().requires_grad_()
        out = functional_call(model, {NAME: weight + leaf[0]}, (tokens[:, : start + 4],))
        expected.append(out.logits[:, start:])
        if start + 4 < 11:
            loss = F.cross_entropy(out.logits[0, start:], tokens[0, start + 1 : start + 5], reduction="sum")
            held = 0.9 * held - lr * torch.autograd.grad(loss, leaf)[0]
    continuum = plain(model, periods=4, inner_lr=lr, blocks=1, retention=0.9)
    cache, found = None, []
    for piece in tokens.split(size, 1):
        logits, cache = read_on(model, piece, cache)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), torch.cat(expected, 1).detach())
    torch.testing.assert_close(written(continuum), held)
    assert (written(continuum) != 0).any() and torch.equal(model.state_dict()[NAME], weight)


def test_no_prediction_sees_the_tokens_after_it(model: Any) -> None:
    plain(model, periods=4, inner_lr=1.0, blocks=3)
    one, other = text(16), text(16)
    other[0, 9] = (other[0, 9] + 1) % 40
    found = []
    for tokens in (one, other):
        model.continuum.reset()
        found.append(model(tokens).logits)
    assert torch.equal(found[0][:, :9], found[1][:, :9]) and not torch.equal(found[0][:, 9:], found[1][:, 9:])


def test_every_text_of_a_batch_has_its_own_memory(model: Any) -> None:
    continuum = add_continuum(model, periods=4, inner_lr=1.0, blocks=2, writer=nl.rules.muon(0.9))
    tokens = text(14, 3)
    together = model(tokens).logits
    for row in range(3):
        continuum.reset()
        torch.testing.assert_close(model(tokens[row : row + 1]).logits, together[row : row + 1])


def test_padding_writes_nothing(model: Any) -> None:
    continuum = plain(model, periods=4, inner_lr=1.0, blocks=1)
    alone = model(text(10)).logits
    continuum.reset()
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.int64), text(10)], 1)
    mask = torch.ones(1, 14, dtype=torch.int64)
    mask[:, :4] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    out = model(padded, attention_mask=mask, position_ids=places)
    torch.testing.assert_close(out.logits[:, 4:], alone)


def test_the_direct_objective_hands_the_last_slope_to_every_block(model: Any) -> None:
    tokens, keys = text(5), {}
    for number in range(3):
        down = model.model.layers[number].mlp.down_proj
        down.register_forward_hook(lambda module, given, y, at=number: keys.update({at: given[0].detach()[0, :4]}))
    kept: list[Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(
        lambda module, given: kept.append(given[0].detach().requires_grad_()) or (kept[0],)
    )
    loss = F.cross_entropy(model(tokens).logits[0, :4], tokens[0, 1:], reduction="sum")
    error = torch.autograd.grad(loss, kept[0])[0][0, :4]
    handle.remove()
    expected = {number: -0.3 * error.T @ key for number, key in keys.items()}
    continuum = plain(model, periods=4, inner_lr=0.3, blocks=3, objective="direct")
    model(tokens)
    for number, held in expected.items():
        torch.testing.assert_close(written(continuum, number)[0], held)


def test_directions_are_fixed_and_slopes_are_those_along_them(model: Any) -> None:
    full = plain(model, periods=4, inner_lr=0.3, blocks=1)
    model(text(5))
    whole = written(full)
    full.remove()
    low = plain(model, periods=4, inner_lr=0.3, blocks=1, rank=3)
    model(text(5))
    basis = low.matrices["2.down"].basis
    assert basis is not None
    torch.testing.assert_close(basis @ basis.T, torch.eye(3).double())
    torch.testing.assert_close(written(low), whole @ basis.T)
    assert low.bytes < full.matrices["2.down"].linear.weight.nbytes


def test_what_was_expected_writes_nothing(model: Any) -> None:
    continuum = plain(model, periods=4, inner_lr=1.0, blocks=1, gate=100.0)
    model(text(9))
    assert not written(continuum).any()


def test_a_slow_block_waits_for_its_own_period(model: Any) -> None:
    continuum = plain(model, periods=(4, 8), inner_lr=1.0, blocks=2)
    model(text(7))
    assert written(continuum, 1).any() and not written(continuum, 2).any()
    continuum.reset()
    model(text(9))
    assert written(continuum, 2).any()


def test_a_state_that_knows_the_token_after_it_loses_nothing(model: Any) -> None:
    """A text in pieces, each from the state and the cache of the one before, writes what one call does."""
    tokens, (states, cache) = text(11), ([], None)
    plain(model, periods=4, inner_lr=0.5, blocks=1)
    continuum = model.continuum
    for start, end in ((0, 1), (1, 5), (5, 10), (10, 11)):
        continuum.load(states[-1] if states else {})
        cache = read_on(model, tokens[:, start:end], cache)[1]
        states.append(continuum.state(tokens[:, end] if end < 11 else None))
    with pytest.raises(ValueError, match=r"following: expected .* \[batch\], got \[1, 1\]"):
        continuum.state(tokens[:, :1])
    continuum.reset()
    continuum.read(tokens)
    torch.testing.assert_close(states[-1], continuum.state())


@pytest.mark.parametrize(
    "writer", [nl.memory.GradientDescent(), nl.rules.adam(), nl.rules.chain(nl.rules.sum(0.5), nl.rules.whiten("root"))]
)
def test_a_state_is_a_text_to_the_bit(model: Any, writer: Any, tmp_path: Any) -> None:
    path = tmp_path / "text.safetensors"
    continuum = add_continuum(model, periods=4, inner_lr=0.1, blocks=2, writer=writer)
    first = model(text(10, 2)).logits
    state = continuum.state()
    continuum.save(path)
    after = model(text(9, 2, seed=2)).logits
    continuum.load(state)
    assert torch.equal(model(text(9, 2, seed=2)).logits, after)
    continuum.reset()
    assert torch.equal(model(text(10, 2)).logits, first) and not torch.equal(first[:, :9], after)
    continuum.load(path)
    assert continuum.time == 10 and torch.equal(model(text(9, 2, seed=2)).logits, after)
    # As another process has it, which makes its rule anew.
    continuum.remove()
    again = add_continuum(model, periods=4, inner_lr=0.1, blocks=2, writer=writer)
    again.load(path)
    assert torch.equal(model(text(9, 2, seed=2)).logits, after)


def test_a_state_of_another_model_is_refused(model: Any, tmp_path: Any) -> None:
    path = tmp_path / "text.safetensors"
    continuum = plain(model, periods=4, inner_lr=0.1, blocks=2)
    with pytest.raises(ValueError, match="no state to save"):
        continuum.save(path)
    model(text(10))
    continuum.save(path)
    with torch.no_grad():
        model.get_parameter(NAME).mul_(2)
    with pytest.raises(StateFileError, match="other weights"):
        continuum.load(path)
    continuum.remove()
    with pytest.raises(StateFileError, match="other settings"):
        plain(model, periods=8, blocks=2).load(path)
    with pytest.raises(ValueError, match=r"blocks \['1', '2'\]"):
        model.continuum.load({"time": torch.tensor(1), "blocks": {}})
    with pytest.raises(ValueError, match=r"nothing is called 'blocks\.1\.'"):
        model.continuum.load({"time": torch.tensor(1), "blocks": {"1": {}, "2": {}}})


def test_a_state_that_gives_no_numbers_at_its_next_write_is_refused_and_changes_nothing(model: Any) -> None:
    continuum = add_continuum(model, periods=4, inner_lr=0.1, blocks=1)
    model(text(10))
    state, other = continuum.state(), continuum.state()
    held = other["blocks"]["2"]["down"]
    for leaf in leaves(held["rule"]):
        leaf.copy_(-leaf.abs() - 1)  # Adam's mean of squares is among them
    with pytest.raises(StateFileError, match=r"2\.down .* no numbers at its next write"):
        continuum.load(other)
    assert torch.equal(written(continuum), state["blocks"]["2"]["down"]["model"]["weight"]) and continuum.time == 10


def test_a_file_that_was_changed_is_refused_in_a_short_line(model: Any, tmp_path: Any) -> None:
    path = tmp_path / "text.safetensors"
    continuum = plain(model, periods=4, inner_lr=0.1, blocks=3, matrices=("gate", "up", "down"))
    model(text(10))
    continuum.save(path)
    with safe_open(path, "pt") as file:
        told, held = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weight = "blocks.2.down.model.weight"
    for words, tensors, more in (
        ("was changed after it was written", {weight: held[weight] + 1}, {}),
        ("expected 0 to", {"time": torch.tensor(-5)}, None),
        ("not finite", {weight: held[weight] * torch.nan}, None),
        ("numbers up to", {weight: held[weight] * 0 + 1e300}, None),
        ("nothing is called 'other'", {"other": torch.zeros(1)}, None),
        ("other settings: ", {}, {"settings": "[]"}),
        ("expected the format", {}, {"format": "x" * 9000}),
    ):
        changed, says = {**held, **tensors}, {**told, **(more or {})}
        if more != {}:
            del says["sha256"]
            says["sha256"] = state_sum(changed, says)
        save_file(changed, path, says)
        with pytest.raises(StateFileError, match=words) as caught:
            continuum.load(path)
        assert len(str(caught.value)) < 2000 and continuum.time == 10


def test_generate_reads_every_token_once_and_learns_from_it(model: Any) -> None:
    continuum = plain(model, periods=4, inner_lr=30.0, blocks=2)
    read: list[list[int]] = [[], []]  # below the first written block, and in it
    for layer, seen in zip(model.model.layers, read, strict=False):
        layer.self_attn.q_proj.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].shape[1]))
    made = model.generate(text(10), max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert read == [[10] + [1] * 7, [4, 4, 2] + [1] * 7] and continuum.time == 17
    continuum.reset()
    tokens, cache = text(10), None
    given = tokens
    for _ in range(8):
        logits, cache = read_on(model, given, cache)
        given = logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, given], 1)
    assert torch.equal(made, tokens)
    continuum.remove()
    assert not torch.equal(model.generate(text(10), max_new_tokens=8, do_sample=False, pad_token_id=0), made)


def test_beams_take_their_memories_along(model: Any) -> None:
    """Two texts search at once as each does alone."""
    continuum = plain(model, periods=4, inner_lr=30.0, blocks=2)
    how = {"max_new_tokens": 9, "do_sample": False, "num_beams": 3, "pad_token_id": 0}
    together = model.generate(text(10, 2), **how)
    for row in range(2):
        continuum.reset()
        assert torch.equal(model.generate(text(10, 2)[row : row + 1], **how)[0], together[row])


def test_what_is_asked_meanwhile_changes_nothing(model: Any) -> None:
    continuum = plain(model, periods=4, inner_lr=1.0, blocks=2)
    model(text(9))
    before = continuum.state()
    with continuum.paused():
        answer = model(text(9, 5)).logits  # one text, five questions
    assert continuum.time == 9 and torch.equal(written(continuum), before["blocks"]["2"]["down"]["model"]["weight"])
    with continuum.paused():
        torch.testing.assert_close(model(text(9, 5)[3:4]).logits, answer[3:4])
    with pytest.raises(ValueError, match="expected the 1 texts that are being read"):
        model(text(9, 5))


def test_read_gives_the_loss_of_every_token(model: Any) -> None:
    tokens = text(21)
    logits = torch.cat([model(piece).logits for piece in tokens.split(8, 1)], 1)
    expected = F.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="none")
    continuum = plain(model, periods=4, inner_lr=1e-30, blocks=1)
    found = [continuum.read(piece, window=8) for piece in tokens.split(16, 1)]
    assert [each.shape[1] for each in found] == [15, 5]
    torch.testing.assert_close(torch.cat(found, 1)[0].double(), expected.detach(), rtol=1e-5, atol=1e-5)
    continuum.reset()
    labels = model(tokens, labels=tokens).loss
    continuum.remove()
    torch.testing.assert_close(labels, model(tokens, labels=tokens).loss)


def test_half_precision_keeps_its_type_and_memories_have_float32(fresh: Any) -> None:
    model = copy.deepcopy(fresh).bfloat16()
    continuum = plain(model, periods=4, inner_lr=0.1, blocks=2)
    with torch.inference_mode():
        assert model(text(9)).logits.dtype == torch.bfloat16
    assert written(continuum).dtype == torch.float32 and written(continuum).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"periods": (4, 6), "blocks": 2}, "multiples of the shortest"),
        ({"periods": (4, 8), "blocks": 3}, "one for each of 3 blocks"),
        ({"blocks": 4}, "from 0 to 2"),
        ({"blocks": (1, 1)}, "different numbers"),
        ({"matrices": ("top",)}, "matrices"),
        ({"objective": "far"}, "objective"),
        ({"objective": "direct", "matrices": ("up",)}, "what blocks answer"),
        ({"inner_lr": -1.0}, "at least 0"),
        ({"inner_lr": float("nan")}, "at least 0"),
        ({"gate": float("nan")}, "at least 0"),
        ({"rank": 25}, "from 1 to 24"),
        ({"writer": nl.rules.delta_inputs()}, "nobody here measures"),
    ],
)
def test_settings_that_do_not_fit_are_refused_and_change_nothing(model: Any, settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        add_continuum(model, **{"blocks": 2, **settings})
    assert not hasattr(model, "continuum") and not model.model.norm._forward_pre_hooks


def test_what_it_cannot_do_is_said(model: Any) -> None:
    with pytest.raises(TypeError, match="down_proj, as Llama's have, got Sequential"):
        add_continuum(nn.Sequential(nn.Linear(2, 2)))
    for part in (model.model, torch.compile(model), nn.DataParallel(model)):  # who generates is within, or has no head
        with pytest.raises(TypeError, match=f"expected a causal language model itself, .* got {type(part).__name__}"):
            add_continuum(part)
    plain(model, periods=4, blocks=2)
    with pytest.raises(ValueError, match=r"continuum\.remove"):
        add_continuum(model)
    with pytest.raises(ValueError, match="no inputs_embeds"):
        model(inputs_embeds=torch.zeros(1, 3, 16).double())
    with pytest.raises(ValueError, match="output_attentions"):
        model(text(9), output_attentions=True)
    with pytest.raises(RuntimeError, match=r"model\.eval"):
        model.train()(text(9))


def test_a_quantized_weight_is_refused(model: Any) -> None:
    down = model.model.layers[2].mlp.down_proj
    down.weight = nn.Parameter(down.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match=r"block 2: expected a weight that is not quantized, got torch\.int8"):
        plain(model, blocks=2)
    assert not hasattr(model, "continuum")


def test_the_page_runs(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("transformers")
    monkeypatch.chdir(tmp_path)
    run_page(page("docs/stacking.md"), "stacking.md")
