"""Continuing a text: with the state as a cache the tokens are those of the full forward, by seed, at constant size."""

import pytest
import torch
from torch import Tensor

import nestlearn as nl
from nestlearn.models import MODELS, LanguageModel, generate, read, state_bytes, stream


def model(name: str = "hope") -> LanguageModel:
    torch.manual_seed(0)
    options = {"periods": (4, 8)} if name.startswith("hope") else {}
    return MODELS[name](17, 16, 1, 2, **options).double()


def text(time: int, batch: int = 2) -> Tensor:
    return torch.randint(17, (batch, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_are_those_of_the_full_forward_over_everything(name):
    made, tokens = model(name), text(6)
    found = made.generate(tokens, 12)
    expected = tokens
    with torch.no_grad():
        for _ in range(12):
            expected = torch.cat([expected, made(expected)[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, expected)
    assert not found.requires_grad and found.shape == (2, 18)


def test_draws_are_repeated_by_their_seed_and_no_other():
    made, tokens = model(), text(6)
    before = torch.get_rng_state()
    first, again = (made.generate(tokens, 20, temperature=1.0, seed=3) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, made.generate(tokens, 20, temperature=1.0, seed=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_follow_the_model_and_top_k_leaves_the_likeliest():
    made, tokens = model("transformer"), text(5, batch=1)
    many = tokens.expand(5_000, 5)
    with torch.no_grad():
        expected = (made(tokens)[0, -1] / 0.5).softmax(-1)
    found = next(stream(made, many, temperature=0.5))[0].bincount(minlength=17) / 5_000
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.03)
    likeliest = set(expected.topk(3).indices.tolist())
    assert set(next(stream(made, many, temperature=5.0, top_k=3))[0].tolist()) == likeliest
    assert torch.equal(made.generate(tokens, 9, temperature=1e-6), made.generate(tokens, 9))


@pytest.mark.parametrize("name", ["hope", "transformer"])
def test_a_conversation_goes_on_from_its_state(name):
    made, first, second = model(name), text(6), text(5)
    said, state = generate(made, first, 4, return_state=True)
    answer = generate(made, second, 4, state=state)
    assert torch.equal(answer, generate(made, torch.cat([said, second], 1), 4)[:, 10:])
    _, silent = generate(made, first, 0, return_state=True)
    torch.testing.assert_close(read(made, second, silent)[0], made(torch.cat([first, second], 1))[:, -1])


def test_a_long_prompt_is_read_in_pieces_to_the_same_end():
    made, tokens = model("gated_delta_net"), text(1100, batch=1)
    torch.testing.assert_close(read(made, tokens)[0], made(tokens)[:, -1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"transformer", "hope_attention"}))
def test_a_stream_without_end_needs_no_more_bytes(name):
    made = model(name).float()
    new = stream(made, text(8, batch=1), temperature=1.0)
    sizes = [state_bytes(next(new)[1]) for _ in range(64)]
    assert len(set(sizes)) == 1


def test_a_cache_that_is_full_ends_the_stream_with_an_error():
    torch.manual_seed(0)
    made = nl.models.transformer(17, 16, 1, 2, max_tokens=10)
    assert made.generate(text(6), 4).shape == (2, 10)
    with pytest.raises(ValueError, match="at most 10"):
        made.generate(text(6), 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model().generate(text(3), -1), "max_new_tokens"),
        (lambda: model().generate(text(0), 3), "at least one for each sequence"),
        (lambda: model().generate(text(3), 3, temperature=-1.0), "temperature of at least 0"),
        (lambda: model().generate(text(3), 3, top_k=0), "top_k of at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
