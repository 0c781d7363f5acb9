"""Every model, whatever its blocks: causal, mixing, one state for any cut, sequences apart, slopes everywhere."""

import pytest
import torch
from every_model import CASES, MEMORIES, every_model, model, named, text
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sequences import leaves, shaped
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

import nestlearn as nl
from nestlearn.models import MODELS, PARTS, LanguageModel, match_parameters


@every_model
@given(cuts=st.lists(st.integers(0, 19), max_size=4).map(sorted))
@example(cuts=list(range(1, 19)))
@example(cuts=[0, 5, 5, 16])
@settings(max_examples=3)
def test_one_call_is_many_calls_wherever_the_cuts(case, cuts):
    """Token by token is the full forward; the state at the end is the same one."""
    made, tokens = model(case), text(19)
    with torch.no_grad():
        whole, last = made(tokens, return_state=True)
        torch.testing.assert_close(made(tokens), whole, rtol=1e-12, atol=1e-12)
        logits, state = [], None
        for piece in tokens.tensor_split(cuts, 1):
            found, state = made(piece, state, True)
            logits.append(found)
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, last, rtol=1e-9, atol=1e-9)


@every_model
def test_the_future_is_not_seen_and_every_later_position_is_reached(case):
    """The training forward with chunks and periods as they are by default: token 3 of 160 moves every position from
    there on, and none before.
    """
    own = {name: value for name, value in CASES[case].items() if name not in ("chunk", "periods")}
    torch.manual_seed(0)
    made, tokens = MODELS[named(case)](17, 16, 2, 2, **own).double(), text(160, batch=1)
    changed = tokens.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 17
    difference = (made(tokens) - made(changed)).abs().amax(-1)[0]
    assert difference[:3].max() == 0
    assert difference[3:].min() > 1e-9


@every_model
def test_sequences_of_a_batch_share_nothing(case):
    made, tokens = model(case), text(19, batch=3)
    y, state = made(tokens, return_state=True)
    for i in range(3):
        alone, own = made(tokens[i : i + 1], return_state=True)
        torch.testing.assert_close(alone[0], y[i], rtol=1e-10, atol=1e-11)
        for (name, found), (_, expected) in zip(leaves(own), leaves(state), strict=True):
            torch.testing.assert_close(found[0], expected[i], rtol=1e-10, atol=1e-11, msg=name)


@every_model
@pytest.mark.slow
def test_every_parameter_has_a_slope(case):
    """Every learned start of every memory and head too."""
    made, tokens = model(case), text(24)
    F.cross_entropy(made(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-10] == []
    starts = {name: p.grad.flatten(1) for name, p in made.named_parameters() if "start." in name}
    assert starts or "attention" in case or case == "transformer"
    assert [name for name, slope in starts.items() if not (slope.abs().amax(1) > 1e-10).all()] == []


@every_model
@pytest.mark.parametrize("time", [100, 300, 600])
def test_no_parameter_is_dead_whatever_the_length(case, time):
    """With chunks and periods as they are by default; a block whose first period is not over has written nothing."""
    own = {name: value for name, value in CASES[case].items() if name not in ("chunk", "periods")}
    torch.manual_seed(0)
    made, tokens = MODELS[named(case)](17, 16, 1, 2, **own).double(), text(time + 1, batch=1)
    F.cross_entropy(made(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    still = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-10]
    unread = ("layer.blocks.1.target", "layer.blocks.1.rate_weight", "layer.blocks.1.rate_bias") if time < 256 else ()
    assert [name for name in still if not name.endswith(unread)] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if "next token" not in case])
def test_gradcheck(case):
    """For parameters and for the state; the slopes of the next token are numbers to outer slopes (first order)."""
    options = {"dim": 8, "depth": 1, "vocab_size": 5}
    options |= {"chunk": 2} if "chunk" in CASES[case] else {}
    options |= {"periods": (2, 4)} if "periods" in CASES[case] else {}
    made, tokens = model(case, **options), text(7) % 5
    names = [name for name, _ in made.named_parameters()]
    _, carried = made(tokens[:, :3], return_state=True)
    inputs = [*made.parameters(), *(t for _, t in leaves(carried))]

    def run(everything: Tensor) -> Tensor:
        parts = everything.split([t.numel() for t in inputs])
        given = iter([part.view_as(t) for part, t in zip(parts, inputs, strict=True)])
        parameters = {name: next(given) for name in names}
        state = shaped(lambda t: next(given), carried)
        y = functional_call(made, parameters, (tokens,))
        z, after = functional_call(made, parameters, (tokens[:, :2], state, True))
        return sum(t.sin().sum() for t in (y, z, *(t for _, t in leaves(after))))

    whole = torch.cat([t.detach().flatten() for t in inputs]).requires_grad_()
    assert torch.autograd.gradcheck(run, whole, fast_mode=True)


@every_model
def test_reading_without_labels_changes_the_state_and_the_answers(case):
    made, probe = model(case), text(6, seed=3)
    with torch.no_grad():
        (_, one), (_, other) = (made(text(13, seed=seed), return_state=True) for seed in (1, 2))
        kept = shaped(lambda t: t.clone(), one)
        told = [made(probe, state) for state in (one, other)]
    assert (told[0] - told[1]).abs().amin(-1).max() > 1e-4
    torch.testing.assert_close(one, kept, rtol=0, atol=0)


@pytest.mark.parametrize("objective", ["local", "next_token"])
@pytest.mark.parametrize("variant", ["sequential", "nested", "headwise"])
def test_every_block_is_written_when_its_period_is_over(variant, objective):
    """Watched from outside, token by token. The loss of a period is known when the token after it has come."""
    made = model("hope_attention", variant=variant, objective=objective, feed_forward={})
    state, changed = made.initial_state(2), {}
    for t in range(1, 21):
        before = dict(leaves(state["parts"]))
        _, state = made(text(20)[:, t - 1 : t], state, True)
        for name, tensor in leaves(state["parts"]):
            if name.endswith("outer") and "pending" not in name and not torch.equal(tensor, before[name]):
                changed.setdefault(name, []).append(t)
    late = objective == "next_token"
    for part in ("1", "3"):
        assert changed[f"{part}.blocks.0.model.outer"] == [t + late for t in (4, 8, 12, 16, 20) if t + late <= 20]
        assert changed[f"{part}.blocks.1.model.outer"] == [8 + late, 16 + late]
        assert changed.get(f"{part}.blocks.0.start.outer") == ([8 + late, 16 + late] if variant == "nested" else None)


@pytest.mark.parametrize("variant", ["sequential", "headwise"])
@pytest.mark.parametrize("case", ["hope", "hope_attention"])
def test_without_inner_rates_it_is_a_feed_forward_network_written_out_here(case, variant):
    """Hope then answers with what no token forgets, Hope-Attention is a transformer of other feed-forward layers."""
    rates = {"mixer": {"max_eta": 0.0}} if case == "hope" else {}
    made, tokens = model(case, variant=variant, inner_lr=0.0, **rates), text(20)

    def normed(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    x = made.embedding.weight[tokens]
    for block in made.blocks:
        mixer, feed_forward = block[0].layer, block[1].layer
        given = normed(x) * block[0].norm.weight
        if case == "hope":
            padded = F.pad(given @ mixer.qkv.weight[:16].T, (0, 0, 3, 0))
            query = F.silu(sum(padded[:, j : j + 20] * mixer.convolution.weight[j, :16] for j in range(4)))
            query = query.unflatten(-1, (2, 8))
            query = query / (query.square().sum(-1, keepdim=True) + 1e-6).sqrt()
            told = torch.einsum("hij,bthj->bthi", mixer.banks["matrix"].base["mem"], query)
            told = told / (told.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.readout.scale
            x = x + told.flatten(2) @ mixer.readout.out.weight.T
        else:
            x = x + mixer(given)
        first = x
        for number, each in enumerate(feed_forward.blocks):
            key = normed(first if variant == "headwise" else x) / 4
            start = each.start()
            answer = F.silu(key @ start["inner"].T) @ start["outer"].T / len(each.inner) ** 0.5
            x = x + (feed_forward.weights[number] * answer if variant == "headwise" else answer)
    expected = (normed(x) * made.norm.weight) @ made.head.weight.T
    torch.testing.assert_close(made(tokens), expected, rtol=1e-10, atol=1e-12)


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
        made = model(case, depth=1)
    tokens = torch.zeros(2, 9, dtype=torch.int64, device="meta")
    F.cross_entropy(made(tokens).flatten(0, 1), tokens.flatten()).backward()
    assert all(p.grad.is_meta for p in made.parameters())


@pytest.mark.parametrize("case", MEMORIES)
@pytest.mark.slow
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


@pytest.mark.slow
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


def test_every_name_is_the_block_of_the_table():
    one_memory = nl.models.titans(17, 16, 1, 2, self_modifying=False)
    found = {name: make(17, 16, 1, 2) for name, make in MODELS.items()} | {"titans of one memory": one_memory}
    heads = {"heads": 2}
    assert {name: made.config["blocks"] for name, made in found.items()} == {
        "hope": [[["self_modifying", heads], ["continuum", {}]]],
        "hope_attention": [[["attention", heads], ["continuum", {}]]],
        "titans": [[["self_modifying", heads], ["swiglu", {}]]],
        "titans of one memory": [[["memory", {**heads, "memory": "mlp", "rule": "dgd"}], ["swiglu", {}]]],
        "gated_delta_net": [[["memory", {**heads, "rule": "gated_delta", "output_gate": True}], ["swiglu", {}]]],
        "transformer": [[["attention", heads], ["swiglu", {}]]],
    }


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
    made, reads = model("hope"), model("hope, next token")
    _, state = made(text(5), return_state=True)
    for call, message in [
        (lambda: made(torch.zeros(2, 3)), "expected whole numbers"),
        (lambda: made(torch.zeros(3, dtype=torch.int64)), r"\[batch, time\], got \(3,\)"),
        (lambda: made(torch.tensor([[3, 17]])), "from 0 to 16, got 3 to 17"),
        (lambda: made(torch.tensor([[-1]])), "from 0 to 16, got -1 to -1"),
        (lambda: made(text(5, batch=3), state), "3 sequences"),
        (lambda: made(text(5), {"parts": {}}), "got parts"),
        (lambda: made(text(5), model("transformer")(text(5), return_state=True)[1]), "does not fit"),
        (lambda: made(text(5), model("hope", depth=1)(text(5), return_state=True)[1]), r"parts \['0', .* got parts"),
        (lambda: made(text(5), model("hope", heads=4)(text(5), return_state=True)[1]), r"\[2, 2, .*\], got \[2, 4, "),
        (lambda: made(text(5), model("hope", feed_forward={})(text(5), return_state=True)[1]), r"\[2, 12, .*, got"),
        (
            lambda: made(text(5), model("hope", dim=32)(text(5), return_state=True)[1]),
            r"3, 48\], got \[2, 3, 96\]",
        ),
        (lambda: reads(text(5), state), r"holds \['parts', 'replay'\], .*, got \['parts'\]"),
        (
            lambda: made(text(5), reads(text(5), return_state=True)[1]),
            r"holds \['parts'\], .* got \['parts', ",
        ),
        (lambda: reads(text(5, batch=3), reads(text(4), return_state=True)[1]), "3 sequences, got one of 2"),
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


# tests/layers/test_every_layer.py has every layer alone; here are models that learn from the next token, and layers
# one after the other: of two kinds, and of those that are most used in half precision.
LONG = [(case, torch.float32) for case in CASES if case in ("hope", "hope, mlp") or "next token" in case]
LONG.remove(("hope_attention, next token", torch.float32))
LONG += [(case, torch.bfloat16) for case in ("hope, next token", "titans of one memory", "gated_delta_net")]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), LONG, ids=str)
def test_sixteen_thousand_tokens_stay_finite(case, dtype):
    """Of a random text, and then of one that says the same all the time."""
    options = {"chunk": 64} if "chunk" in CASES[case] else {}
    options |= {"periods": (64, 256)} if "periods" in CASES[case] else {}
    made, tokens = model(case, dtype, depth=1, **options), text(16_385, batch=1)
    tokens[:, 8_000:] = 3
    loss = F.cross_entropy(made(tokens[:, :-1]).float().flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    assert loss.isfinite()
    assert [name for name, p in made.named_parameters() if not p.grad.isfinite().all()] == []
