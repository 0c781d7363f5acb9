"""Prompts of unequal length in one batch: every model answers and remembers each as it would alone."""

import pytest
import torch
from every_model import every_model, model, text
from torch import Tensor

import nestlearn as nl
from nestlearn.memory.state import flatten, select_state
from nestlearn.models import MODELS, generate, pad, read


def prompts(lengths: list[int], seed: int = 0) -> list[Tensor]:
    return [text(length, 1, seed + place)[0] for place, length in enumerate(lengths)]


def assert_same(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@every_model
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_prompt_is_read_as_it_would_be_alone(case, side):
    """From nothing, from states of unequal age, and token by token; what fills up is no token of the model."""
    made, state, answers = model(case, depth=1), None, []
    calls = [prompts([6, 1, 9]), prompts([5, 4, 0], 3), *(prompts([1] * 3, seed) for seed in (6, 9))]
    with torch.no_grad():
        for own in calls:
            tokens, mask = pad(own, side=side, fill=99)
            logits, state = made(tokens, state, True, mask=mask)
            answers.append([row[counts] for row, counts in zip(logits, mask, strict=True)])
            assert not logits[~mask].any()
        for place in range(3):
            alone = None
            for own, found in zip(calls, answers, strict=True):
                expected, alone = made(own[place].unsqueeze(0), alone, True)
                assert_same(found[place], expected[0])
            more = text(5, 1, 20)
            assert_same(made(more, select_state(state, [place])), made(more, alone))


def test_what_counts_may_stand_anywhere():
    made, tokens = model("hope"), text(7)
    mask = torch.tensor([[1, 0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 1, 1, 0]])
    logits = made(tokens, mask=mask)
    for row, own, counts in zip(logits, tokens, mask.bool(), strict=True):
        assert_same(row[counts], made(own[counts].unsqueeze(0))[0])
    embeds = made.embedding(tokens).masked_fill(~mask.bool().unsqueeze(-1), torch.nan)
    assert_same(made(inputs_embeds=embeds, mask=mask), logits)
    assert torch.equal(made(tokens, mask=torch.ones_like(tokens)), made(tokens))


def test_slopes_pass_through_no_padding():
    made = model("hope", depth=1)
    own = prompts([6, 3])
    tokens, mask = pad(own)

    def slopes(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(made.parameters()), allow_unused=True, materialize_grads=True))

    found = slopes(made(tokens, mask=mask).sin().sum())
    expected = slopes(sum(made(each.unsqueeze(0)).sin().sum() for each in own))
    assert_same(found, expected)
    made.checkpointing = True
    assert_same(slopes(made(tokens, mask=mask).sin().sum()), expected)


@pytest.mark.parametrize("name", MODELS)
def test_greedy_continuations_are_those_of_each_alone(name):
    torch.manual_seed(0)
    made = MODELS[name](17, 16, 1, 2).double()
    own = prompts([5, 2])
    for side in ("left", "right"):
        tokens, mask = pad(own, side=side)
        found, state = made.generate(tokens, 6, mask=mask, return_state=True)
        for place, each in enumerate(own):
            alone, last = made.generate(each.unsqueeze(0), 6, return_state=True)
            assert torch.equal(found[place, 5:], alone[0, len(each) :])
            assert_same(read(made, text(3, 1), select_state(state, [place]))[0], read(made, text(3, 1), last)[0])


def test_a_long_batch_is_read_in_pieces(monkeypatch):
    from nestlearn.models import generation

    made, own = model("gated_delta_net", depth=1), prompts([11, 4, 7])
    tokens, mask = pad(own, side="left")
    expected = [read(made, each.unsqueeze(0))[0][0] for each in own]
    monkeypatch.setattr(generation, "PIECE", 4)
    assert_same(read(made, tokens, mask=mask)[0], torch.stack(expected))


def test_a_state_of_unequal_ages_is_kept_in_a_file(tmp_path):
    for case in ("hope_attention, next token", "transformer"):
        made = model(case, depth=1)
        tokens, mask = pad(prompts([6, 3, 5]))
        _, state = made(tokens, return_state=True, mask=mask)
        nl.models.save_state(state, tmp_path / "memory", made)
        loaded = nl.models.load_state(tmp_path / "memory", made, batch_size=3)
        assert_same(flatten(loaded), flatten(state))


# ------------------------------------------------------------------------------------------------------ stop and top_p


def test_a_continuation_ends_with_its_stop_and_reads_nothing_after_it():
    made, tokens = model("hope", depth=1), text(6)
    whole = made.generate(tokens, 12)
    stop = whole[0, 8:10].tolist()
    row = next(n for n in range(7, 19) if whole[0, n - 1 : n + 1].tolist() == stop) + 1
    found, state = made.generate(tokens, 12, stop=[stop], fill=3, return_state=True)
    assert torch.equal(found[0, :row], whole[0, :row]) and (found[0, row:] == 3).all()
    _, alone = made(whole[:1, :row], return_state=True)
    assert_same(made(tokens[:1], select_state(state, [0])), made(tokens[:1], alone))
    first = int(whole[0, 6])
    assert made.generate(tokens[:1], 12, stop=first).shape == (1, 7)
    assert torch.equal(made.generate(tokens, 12, stop=lambda token: token < 0), whole)
    with pytest.raises(ValueError, match="stop: expected at least one token in each"):
        made.generate(tokens, 3, stop=[[]])


def test_top_p_leaves_the_fewest_tokens_that_have_the_probability():
    made, tokens = model("transformer", depth=1), text(5, batch=1)
    with torch.no_grad():
        likely = made(tokens)[0, -1].softmax(-1).sort(descending=True)
    many, count = tokens.expand(3000, 5), 4
    inside = float(likely.values[:count].sum() - likely.values[count - 1] / 2)
    drawn = next(nl.models.stream(made, many, temperature=1.0, top_p=inside))[0]
    assert set(drawn.tolist()) == set(likely.indices[:count].tolist())
    assert set(next(nl.models.stream(made, many, temperature=1.0, top_p=1e-9))[0].tolist()) == {int(likely.indices[0])}
    plain = made.generate(tokens, 5, temperature=1.0)
    assert torch.equal(made.generate(tokens, 5, temperature=1.0, top_p=1.0), plain)
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="top_p: expected more than 0"):
            made.generate(tokens, 1, top_p=wrong)


def test_what_does_not_fit_is_said():
    made, tokens = model("hope", depth=1), text(4)
    for mask, kind, message in [
        (torch.ones(2, 3), ValueError, r"mask: expected \[2, 4\], a truth for each token, got \[2, 3\]"),
        (torch.full((2, 4), 2), ValueError, "1 for a token that counts"),
        ([[1, 1, 1, 1]] * 2, TypeError, "mask: expected a tensor"),
    ]:
        with pytest.raises(kind, match=message):
            made(tokens, mask=mask)
    nobody = torch.tensor([[True] * 4, [False] * 4])
    with pytest.raises(ValueError, match=r"at least one for each sequence.*\[4, 0\] that count"):
        generate(made, tokens, 2, mask=nobody)
    with pytest.raises(NotImplementedError, match="a compiled graph or a transform"):
        torch.func.vmap(lambda one: made(one, mask=nobody))(tokens.unsqueeze(0))
    with pytest.raises(ValueError, match="side 'left' or 'right'"):
        pad([[1]], side="top")
    waits = model("hope, next token", depth=1)
    _, state = waits(tokens, return_state=True, mask=nobody | torch.tensor([[True], [True]]) & (tokens >= 0))
    state["replay"]["tokens"] = state["replay"]["tokens"][:, :1]
    with pytest.raises(ValueError, match=r"state.replay: expected up to 1 tokens"):
        waits(tokens, state)
