"""Every model, whatever its blocks: causal, mixing, one state for any cut, sequences apart, slopes everywhere."""

import pytest
import torch
from sequences import leaves
from torch import Tensor
from torch.nn import functional as F

import nestlearn as nl
from nestlearn.models import MODELS, PARTS, LanguageModel, match_parameters

CONTINUUM = {"periods": (4, 8), "feed_forward": {"hidden": 12}}
CASES = {
    "transformer": {},
    "gated_delta_net": {},
    "titans": {"chunk": 4},
    "titans of one memory": {"self_modifying": False, "chunk": 4},
    "hope": {"chunk": 4, **CONTINUUM},
    "hope, mlp": {"chunk": 4, "memory": "mlp", "variant": "nested", **CONTINUUM},
    "hope, next token": {
        "chunk": 4,
        **CONTINUUM,
        "feed_forward": {"hidden": 12, "objective": "next_token", "inner_lr": 1.0},
    },
    "hope_attention": {"variant": "headwise", **CONTINUUM},
    "hope_attention, next token": {**CONTINUUM, "feed_forward": {"objective": "next_token", "inner_lr": 1.0}},
}
MEMORIES = [name for name in CASES if "attention" not in name and name != "transformer"]


def model(case: str, dtype: torch.dtype = torch.float64, **options) -> LanguageModel:
    torch.manual_seed(0)
    name = case.split(",")[0].split()[0]
    return MODELS[name](**{"vocab_size": 17, "dim": 16, "depth": 2, "heads": 2, **CASES[case], **options}).to(dtype)


def text(time: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randint(17, (batch, time), generator=torch.Generator().manual_seed(seed))


every_model = pytest.mark.parametrize("case", CASES)


@every_model
def test_one_call_is_many_calls_and_token_by_token_is_the_full_forward(case):
    made, tokens = model(case), text(21)
    whole, last = made(tokens, return_state=True)
    torch.testing.assert_close(made(tokens), whole, rtol=0, atol=0)
    for sizes in ([21 - cut, cut] for cut in (1, 5, 8, 13)):
        logits, state = [], None
        for piece in tokens.split(sizes, 1):
            found, state = made(piece, state, True)
            logits.append(found)
        torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-9, atol=1e-9)
        for (name, found), (_, expected) in zip(leaves(state), leaves(last), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=name)
    with torch.no_grad():
        logits, state = [], made.initial_state(2)
        for piece in tokens.split(1, 1):
            found, state = made(piece, state, True)
            logits.append(found)
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-9, atol=1e-9)


@every_model
def test_the_future_is_not_seen_and_every_later_position_is_reached(case):
    """The default training forward: token 3 of 160 moves every position from there on, and none before."""
    options = {"chunk": 32} if "chunk" in CASES[case] else {}
    options |= {"periods": (32, 64)} if "periods" in CASES[case] else {}
    made, tokens = model(case, **options), text(160, batch=1)
    changed = tokens.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 17
    difference = (made(tokens) - made(changed)).abs().amax(-1)[0]
    assert difference[:3].max() == 0
    assert difference[3:].min() > 0


@every_model
def test_sequences_of_a_batch_share_nothing(case):
    made, tokens = model(case), text(19, batch=3)
    alone = torch.cat([made(tokens[b : b + 1]) for b in range(3)])
    torch.testing.assert_close(made(tokens), alone, rtol=1e-10, atol=1e-11)


@every_model
def test_every_parameter_has_a_slope(case):
    made, tokens = model(case), text(24)
    F.cross_entropy(made(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max()] == []


@every_model
def test_the_configuration_is_data_from_which_the_same_model_is_made(case):
    made = model(case)
    again = LanguageModel(**made.config).double()
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again(text(9)), made(text(9)), rtol=0, atol=0)
    assert again.fingerprint == made.fingerprint != model("transformer", depth=1).fingerprint


@every_model
def test_a_training_step_can_be_counted_on_the_meta_device(case):
    """What `nestlearn inspect` does: shapes without numbers, forward and backward."""
    with torch.device("meta"):
        made = model(case)
    tokens = torch.zeros(2, 24, dtype=torch.int64, device="meta")
    F.cross_entropy(made(tokens).flatten(0, 1), tokens.flatten()).backward()
    assert all(p.grad.is_meta for p in made.parameters())


@pytest.mark.parametrize("case", MEMORIES)
def test_memories_are_of_one_size_however_long_the_text(case):
    made = model(case, torch.float32)
    sizes = set()
    with torch.no_grad():
        state = made.initial_state(1)
        for piece in text(96, batch=1).split(32, 1):  # whole periods
            _, state = made(piece, state, True)
            sizes.add(nl.models.state_bytes(state))
    assert len(sizes) == 1


def test_a_cache_has_a_limit_and_says_so():
    made = model("transformer", max_tokens=8)
    _, state = made(text(6), return_state=True)
    with pytest.raises(ValueError, match=r"6 \+ 3 tokens, at most 8"):
        made(text(3), state, True)
    assert made(text(20)).shape == (2, 20, 17)


@pytest.mark.parametrize("case", ["hope, next token", "hope_attention, next token"])
def test_slopes_of_the_next_token_are_those_of_the_loss_by_automatic_differentiation(case):
    """The first write, from a forward of plain autograd: theta - eta d(sum of losses)/d(theta), theta of each text."""
    made, tokens = model(case), text(5)
    state = made.initial_state(2)
    leaf = {}
    for name, part in state["parts"].items():
        for number, block in part.get("blocks", {}).items():
            block["model"] = {key: tensor.detach().requires_grad_() for key, tensor in block["model"].items()}
            leaf |= {(name, number, key): tensor for key, tensor in block["model"].items()}
    logits, _ = made.advance(tokens[:, :4], state["parts"], keep=False)
    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum").backward()
    _, after = made(tokens, return_state=True)
    for (name, number, key), tensor in leaf.items():
        block = after["parts"][name]["blocks"][number]
        rate = made.parts[name].inner_lr
        if number == "0":
            torch.testing.assert_close(block["model"][key], tensor - rate * tensor.grad, rtol=1e-9, atol=1e-12)
        else:  # period 8: still waiting
            torch.testing.assert_close(block["pending"][key], rate * tensor.grad, rtol=1e-9, atol=1e-12)


def test_a_long_call_reads_chunks_apart_with_the_same_answers_and_slopes(monkeypatch):
    found = []
    for shared in (64, 2, 0):
        monkeypatch.setattr("nestlearn.models.next_token.SHARED", shared)
        made, tokens = model("hope, next token"), text(22)
        logits = made(tokens)
        logits.square().sum().backward()
        found.append([logits.detach(), *(p.grad for p in made.parameters())])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", ["hope, next token", "hope_attention, next token"])
def test_reading_teaches_an_untrained_model_to_predict_a_recurring_text(case):
    """Without labels and without an optimizer: what is shown is that the writes descend the loss, not that they are
    useful on a natural text.
    """
    made = model(case, torch.float32)
    tokens = text(8, batch=2).repeat(1, 30)
    state = made.initial_state(2)
    with torch.no_grad():
        logits, state = made(tokens, state, True)
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none").mean(0)
    assert loss[-50:].mean() < 0.7 * loss[:50].mean()
    frozen = model(case, torch.float32, feed_forward={**CASES[case]["feed_forward"], "inner_lr": 0.0})
    with torch.no_grad():
        logits = frozen(tokens)
        control = F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none").mean(0)
    assert loss[-50:].mean() < 0.8 * control[-50:].mean()


@pytest.mark.parametrize("case", ["hope", "hope, next token", "transformer"])
@pytest.mark.parametrize("tied", [False, True])
def test_frozen_inner_rates_give_the_frozen_network(case, tied):
    made = model(case, tied=tied)
    assert (made.head is None) == tied
    if case == "transformer":
        return
    frozen = model(case, tied=tied, feed_forward={"hidden": 12, "inner_lr": 0.0})
    frozen.load_state_dict(made.state_dict(), strict=False)
    tokens = text(20)
    torch.testing.assert_close(frozen(tokens)[:, :4], made(tokens)[:, :4], rtol=1e-10, atol=1e-12)
    assert (frozen(tokens) - made(tokens))[:, 4:].abs().amax((0, 2)).min() > 0
    assert "replay" not in frozen.initial_state(1)


# ------------------------------------------------------------------------------------------------------ names and sizes


def test_options_go_to_the_layer_that_has_them():
    made = nl.models.hope(17, 16, 1, 2, memory="mlp", periods=(4,), hidden=7, mixer={"hidden": 3})
    mixer, feed_forward = made.config["blocks"][0]
    assert mixer == ["self_modifying", {"heads": 2, "hidden": 3, "memory": "mlp"}]
    assert feed_forward == ["continuum", {"periods": [4], "hidden": 7}]


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_matched_to_within_a_step_of_the_width(name):
    wanted = sum(p.numel() for p in nl.models.transformer(256, 64, 1, 4).parameters())
    dim = match_parameters(name, wanted, depth=1)
    assert dim % 8 == 0
    found = [sum(p.numel() for p in MODELS[name](256, each, 1, 4).parameters()) for each in (dim - 8, dim, dim + 8)]
    assert abs(found[1] - wanted) <= min(abs(found[0] - wanted), abs(found[2] - wanted))


def test_a_target_that_no_model_is_small_enough_for_is_an_error():
    with pytest.raises(ValueError, match="expected at least"):
        match_parameters("hope", 100)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nl.models.hope(256, 10, 1, 4), "divisor of dim = 10, got 4"),
        (lambda: nl.models.hope(256, 16, 0, 4), "at least 1 block, got 0"),
        (lambda: nl.models.hope(256, 16, 1, 4, chunk=0), "chunk"),
        (lambda: nl.models.hope(256, 16, 1, 4, perods=(4,)), "Did you mean 'periods'"),
        (lambda: nl.models.transformer(0, 16, 1, 4), "vocab_size"),
        (lambda: LanguageModel(256, 16, [[("atention", {})]]), "Did you mean 'attention'"),
        (lambda: match_parameters("hopes", 10_000), "Did you mean 'hope'"),
        (
            lambda: LanguageModel(
                256, 16, [[("continuum", {"objective": "next_token", "periods": (p,)}) for p in (4, 8)]]
            ),
            r"must be equal; got \[4, 8\]",
        ),
    ],
)
def test_settings_that_do_not_fit_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_tokens_and_states_that_do_not_fit_are_errors():
    made = model("hope")
    _, state = made(text(5), return_state=True)
    for call, message in [
        (lambda: made(torch.zeros(2, 3)), "expected whole numbers"),
        (lambda: made(torch.zeros(3, dtype=torch.int64)), r"\[batch, time\], got \(3,\)"),
        (lambda: made(torch.tensor([[3, 17]])), "from 0 to 16, got 3 to 17"),
        (lambda: made(torch.tensor([[-1]])), "from 0 to 16, got -1 to -1"),
        (lambda: made(text(5, batch=3), state), "3 sequences"),
        (lambda: made(text(5), {"parts": {}}), "got parts"),
        (lambda: made(text(5), model("transformer")(text(5), return_state=True)[1]), "does not fit"),
        (lambda: made(text(5), model("hope", depth=1)(text(5), return_state=True)[1]), "got parts"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_pattern_may_use_every_layer_in_any_order():
    torch.manual_seed(0)
    blocks = [[("swiglu", {"hidden": 8}), ("attention", {"heads": 2})], [("memory", {"heads": 2})], [("continuum", {})]]
    made = LanguageModel(17, 16, blocks)
    assert made(text(5)).shape == (2, 5, 17)
    assert set(PARTS) == {"attention", "continuum", "memory", "self_modifying", "swiglu"}


# ---------------------------------------------------------------------------------------------------------------- long


@pytest.mark.slow
@pytest.mark.parametrize("case", ["hope", "hope, next token", "titans of one memory", "gated_delta_net"])
def test_sixteen_thousand_tokens_stay_finite(case):
    options = {"chunk": 64} if "chunk" in CASES[case] else {}
    options |= {"periods": (64, 256)} if case.startswith("hope") else {}
    made, tokens = model(case, torch.float32, depth=1, **options), text(16_385, batch=1)
    loss = F.cross_entropy(made(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in made.parameters())
