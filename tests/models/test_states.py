"""States of every model: other batches of them, kept in another precision, and what does not fit."""

import pytest
import torch
from every_model import CASES, every_model, model, text
from sequences import leaves, shaped

import nestlearn as nl
from nestlearn.memory.state import flatten, mapped, unflatten
from nestlearn.models import cut_state, repeat_state, select_state


def read(case: str, batch: int = 3, time: int = 6, dtype: torch.dtype = torch.float64):
    """A model, its state in the middle of a chunk, and more to read."""
    made, tokens = model(case, dtype, depth=1), text(time + 7, batch)
    with torch.no_grad():
        return made, made(tokens[:, :time], return_state=True)[1], tokens[:, time:]


def assert_same(found, expected, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@every_model
@pytest.mark.parametrize("time", [4, 6])
def test_sequences_in_another_order_go_on_as_they_would_alone(case, time):
    """As the beams of a beam search do: token by token, reordered in between."""
    made, state, tokens = read(case, time=time)
    kept, index = mapped(torch.clone, state), torch.tensor([2, 1, 2, 1])
    with torch.no_grad():
        y, after = made(tokens[index], select_state(state, index), True)
        for place, source in enumerate(index.tolist()):
            alone, single = made(tokens[source : source + 1], cut_state(state, source, source + 1), True)
            assert_same(y[place], alone[0])
            assert_same(cut_state(after, place, place + 1), single)
    assert_same(state, kept, 0)


@every_model
def test_many_texts_go_on_from_one(case):
    made, state, tokens = read(case, batch=1)
    with torch.no_grad():
        y, after = made(tokens.repeat(3, 1), repeat_state(state, 3), True)
        alone, single = made(tokens, state, True)
    assert_same(y, alone.repeat(3, 1, 1))
    assert_same(cut_state(after, 2, 3), single)
    assert_same(repeat_state(made.initial_state(1), 3), made.initial_state(3), 0)
    several = made.generate(tokens.repeat(3, 1), 4, state=repeat_state(state, 3))
    assert torch.equal(several, made.generate(tokens, 4, state=state).repeat(3, 1))


@every_model
@pytest.mark.parametrize("kept", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "weights",
    [torch.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float64, torch.bfloat16))],
)
def test_a_state_in_another_precision_is_taken_in_that_of_the_model(case, kept, weights):
    made, state, tokens = read(case, dtype=weights)
    written = next(t.dtype for _, t in leaves(state))
    other = shaped(lambda t: t.to(kept), state)
    with torch.no_grad():
        found, after = made(tokens, other, True)
        expected, truth = made(tokens, shaped(lambda t: t.to(written), other), True)
    close = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}[weights]
    assert_same(found, expected, close)
    assert_same(after, truth, close)
    assert {tensor.dtype for _, tensor in leaves(after)} == {written}


@every_model
def test_what_does_not_fit_is_named(case):
    made, state, tokens = read(case)
    flat = flatten(state, empty=torch.empty(0))
    leaf = next(name for name, t in flat.items() if t.is_floating_point() and not name.endswith("."))
    own = leaf.removeprefix("parts.0.")
    for wrong, message in [
        (flat[leaf].long(), rf"state\.{own} should hold real numbers, as torch.float64, got torch.int64"),
        (flat[leaf].to("meta"), rf"state\.{own} should be on cpu, as the layer is, got meta"),
        (flat[leaf][:2], rf"state\.{own} should be of 3 sequences, "),
    ]:
        with pytest.raises(ValueError, match=message):
            made(tokens, unflatten({**flat, leaf: wrong}))
    with pytest.raises(ValueError, match="3 sequences"):
        made(tokens, cut_state(state, 0, 2))


def test_what_is_read_once_more_has_to_fit_too():
    made, state, tokens = read("hope, next token")
    replay = state["replay"]
    for wrong, message in [
        ({"tokens": replay["tokens"].double(), "parts": replay["parts"]}, "tokens: expected whole numbers"),
        ({"tokens": replay["tokens"] + 17, "parts": replay["parts"]}, "tokens: expected numbers from 0 to 16"),
        ({"tokens": replay["tokens"], "parts": shaped(lambda t: t[:2], replay["parts"])}, "of 3 sequences"),
        ({"tokens": replay["tokens"], "parts": 1}, "parts .*, got parts int"),
        ({"parts": replay["parts"]}, r"state.replay: expected what holds \['parts', 'tokens'\], got \['parts'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            made(tokens, {**state, "replay": wrong})
    small = {**state, "replay": {**replay, "tokens": replay["tokens"].to(torch.uint8)}}
    assert_same(made(tokens, small, True), made(tokens, state, True))


def test_a_file_of_a_state_goes_into_a_model_of_another_precision(tmp_path):
    made, state, tokens = read("hope", dtype=torch.float32)
    nl.models.save_state(state, tmp_path / "memory.safetensors", made)
    more = made.double()
    loaded = nl.models.load_state(tmp_path / "memory.safetensors", more, other_weights=True)
    assert_same(more(tokens, loaded), more(tokens, shaped(torch.Tensor.double, state)))


# ------------------------------------------------------------------------------------------------ tokens and embeddings

WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]


@every_model
def test_tokens_of_every_type_of_whole_numbers(case):
    made, tokens = model(case, depth=1), text(7)
    expected, continued = made(tokens, return_state=True), made.generate(tokens, 2)
    for dtype in WHOLE:
        assert_same(made(tokens.to(dtype), return_state=True), expected)
    for dtype in (torch.uint8, torch.int32, torch.uint16):
        found = made.generate(tokens.to(dtype), 2)
        assert found.dtype == torch.int64 and torch.equal(found, continued)
        new, _ = next(nl.models.stream(made, tokens.to(dtype)))
        assert torch.equal(new, found[:, 7])


@every_model
def test_tokens_that_are_none_are_errors_wherever_they_come_in(case):
    made = model(case, depth=1)
    for enter in (made, lambda x: made.generate(x, 1), lambda x: next(nl.models.stream(made, x))):
        for tokens, kind, message in [
            (text(3).double(), ValueError, r"whole numbers \[batch, time\], got \(2, 3\) of torch.float64"),
            (text(3).to(torch.complex64), ValueError, "of torch.complex64"),
            (text(3) > 2, ValueError, "of torch.bool: a mask says which tokens count"),
            (text(3) + 15, ValueError, r"from 0 to 16, got \d+ to \d+"),
            (-text(3).to(torch.int8) - 1, ValueError, r"from 0 to 16, got -\d+ to -\d+"),
            ((text(3) + 200).to(torch.uint8), ValueError, r"from 0 to 16, got 2\d\d to 2\d\d"),
            (text(3)[0], ValueError, r"\[batch, time\], got \(3,\)"),
            ([[1, 2]], TypeError, "expected a tensor of whole numbers .*, got list"),
        ]:
            with pytest.raises(kind, match=message):
                enter(tokens)


@pytest.mark.parametrize("case", [case for case in CASES if "next token" not in case])
def test_what_stands_for_embedded_tokens_is_read_in_their_place(case):
    """A learned prompt: its slope is that of the embedding at these places."""
    made, tokens = model(case, depth=1), text(9)
    x = made.embedding(tokens).detach().requires_grad_()
    y, state = made(inputs_embeds=x[:, :4], return_state=True)
    z = made(inputs_embeds=x[:, 4:], state=state)
    found = torch.cat([y, z], 1)
    assert_same(found, made(tokens), 1e-9)
    (slope,) = torch.autograd.grad(found.sin().sum(), x)
    made(tokens).sin().sum().backward()
    if made.head is not None:  # else the embedding is the head as well
        summed = torch.zeros_like(made.embedding.weight).index_add(0, tokens.flatten(), slope.flatten(0, 1))
        torch.testing.assert_close(summed, made.embedding.weight.grad, rtol=1e-8, atol=1e-10)


def test_embeddings_that_do_not_fit_are_errors():
    made, learns, x = model("hope"), model("hope, next token"), torch.zeros(2, 3, 16, dtype=torch.float64)
    for call, kind, message in [
        (lambda: made(), TypeError, "expected tokens or inputs_embeds, got neither"),
        (lambda: made(text(3), inputs_embeds=x), TypeError, "got both"),
        (lambda: made(inputs_embeds=x[..., :7]), ValueError, r"\[batch, time, 16\], got \(2, 3, 7\)"),
        (lambda: made(inputs_embeds=x.long()), ValueError, "got .* of torch.int64"),
        (lambda: learns(inputs_embeds=x), ValueError, "learns from tokens: pass these"),
    ]:
        with pytest.raises(kind, match=message):
            call()
