"""MLP memories chunk by chunk: everything equals the token by token oracle."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequences import RULES, assert_same, everything, matrix, mlp, shaped, tokens
from torch import Tensor
from torch.nn.functional import normalize

from nestlearn.memory import MLP, AssociativeMemory, DeltaGradientDescent, dot_product, l2
from nestlearn.ops import chunk_step, has_parallel_form, parallel_scan, scan
from nestlearn.ops.mlp_memory import has_mlp_form, mlp_group_step, mlp_scan, mlp_step

OBJECTIVES = {"dot_product": dot_product, "l2": l2}

rules = pytest.mark.parametrize("rule", RULES)
objectives = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


@rules
@objectives
@pytest.mark.parametrize("chunk", [1, 4])
def test_outputs_state_and_gradients_equal_the_oracle(objective, rule, chunk):
    """Ragged on purpose; chunk 1 is the plain recurrence."""
    memory = mlp(objective, rule)
    a = tokens(memory, 7)
    assert_same(everything(mlp_scan, memory, a, chunk=chunk), everything(scan, memory, a, chunk=chunk))


@rules
def test_before_the_write_a_window_gelu_and_no_residual(rule):
    memory = mlp(l2, rule, residual=False, activation="gelu")
    a, options = tokens(memory, 8, batch=(2,)), {"chunk": 3, "window": 3, "read": "before"}
    assert_same(everything(mlp_scan, memory, a, **options), everything(scan, memory, a, **options))


@pytest.mark.parametrize("window", [1, 3])
def test_any_split_with_the_state_carried_equals_one_call(window):
    memory, time = mlp(l2, "delta, momentum"), 9
    a, options = tokens(memory, time), {"chunk": 4, "window": window}
    y, after = mlp_scan(memory, **a, **options)
    for split in range(time + 1):
        state, parts = a["state"], []
        for section in (slice(0, split), slice(split, time)):
            part = {name: t[:, :, section] for name, t in a.items() if name != "state"}
            told, state = mlp_scan(memory, **part, state=state, **options)
            parts.append(told)
        torch.testing.assert_close(torch.cat(parts, 2), y, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(state, after, rtol=1e-11, atol=1e-11)


@given(
    objective=st.sampled_from([dot_product, l2]),
    rule=st.sampled_from(list(RULES)),
    time=st.integers(1, 10),
    batch=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    chunk=st.integers(1, 6),
    window=st.integers(1, 3),
    read=st.sampled_from(["after", "before"]),
)
@settings(max_examples=30)
def test_any_shape_equals_the_oracle(objective, rule, time, batch, chunk, window, read):
    memory = mlp(objective, rule)
    a = tokens(memory, time, batch)
    a |= {"eta": a["eta"] / window}
    options = {"chunk": chunk, "window": window, "read": read}
    y, state = parallel_scan(memory, **a, **options)
    truth, expected = scan(memory, **a, **options)
    torch.testing.assert_close(y, truth, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", ["descent", "delta, momentum"])
def test_gradcheck(rule):
    memory = mlp(l2, rule)
    a = tokens(memory, 5, batch=(1,))
    names = [name for name in a if name != "state"]

    def run(inner: Tensor, outer: Tensor, *given: Tensor) -> Tensor:
        start = {"model": {"inner": inner, "outer": outer}}
        return mlp_scan(memory, **dict(zip(names, given, strict=True)), state=start, chunk=2)[0]

    inputs = [*a["state"]["model"].values(), *(a[name] for name in names)]
    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in inputs], fast_mode=True)


@rules
def test_a_batch_equals_single_runs(rule):
    memory = mlp(l2, rule)
    a = tokens(memory, 7, batch=(3,))
    y, state = mlp_scan(memory, **a, chunk=3)
    for i in range(3):
        alone, own = mlp_scan(memory, **shaped(lambda t, i=i: t[i], a), chunk=3)
        torch.testing.assert_close(alone, y[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(own["model"]["inner"], state["model"]["inner"][i], rtol=1e-12, atol=1e-12)


@rules
@pytest.mark.parametrize("read", ["after", "before"])
def test_an_answer_depends_on_its_past_alone_and_on_all_of_it(rule, read):
    memory, time = mlp(l2, rule), 8
    a = tokens(memory, time, batch=())

    def answers(value: Tensor) -> Tensor:
        return mlp_scan(memory, **(a | {"value": value}), chunk=3, read=read)[0]

    reach = torch.autograd.functional.jacobian(answers, a["value"]).abs().sum((1, 3))
    past = torch.ones(time, time).tril(0 if read == "after" else -1).bool()
    assert not reach[~past].any()
    assert (reach[past] > 0).all()


@rules
@pytest.mark.parametrize("read", ["after", "before"])
def test_a_step_is_a_chunk_of_the_scan_also_in_pieces(rule, read):
    memory = mlp(l2, rule)
    a = tokens(memory, 6)
    y, after = scan(memory, **a, chunk=6, read=read)
    start = {"model": a["state"]["model"], "rule": memory.rule.init(a["state"]["model"])}
    part = {name: t for name, t in a.items() if name != "state"}
    state, pieces = start, []
    for section in (slice(0, 2), slice(2, 6)):
        piece = {name: t[:, :, section] for name, t in part.items()}
        told, state = chunk_step(memory, state, **piece, frozen=start["model"], read=read)
        pieces.append(told)
    torch.testing.assert_close(torch.cat(pieces, 2), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["model"], after["model"], rtol=1e-12, atol=1e-12)
    none, written = mlp_step(memory, start, **(part | {"query": None}))
    assert none is None
    torch.testing.assert_close(written["model"], after["model"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "silent"])
@pytest.mark.parametrize("featured", [True, False], ids=["featured", "bare"])
@rules
def test_memories_that_share_keys_equal_memories_of_their_own(rule, featured, asked):
    """S10 for MLPs: three memories written together, of which the first is asked."""
    memory = mlp(l2, rule)
    a = tokens(memory, 6, batch=(2, 3))
    model, values = a["state"]["model"], a["value"]
    shared = {name: a[name][:, 0] for name in a if name not in ("state", "value")}
    query = shared.pop("query") if asked else shared.pop("query") * 0
    features = torch.randn_like(model["inner"][0]) if featured else None
    start = {"model": model, "rule": memory.rule.init(model)}
    seen = {**model, "inner": model["inner"] if features is None else model["inner"] + features}
    group = replace(memory, model=replace(memory.model, features=features))
    y, state = mlp_group_step(group, start, value=values, query=query if asked else None, seen=seen, **shared)
    assert (y is not None) == asked
    for i in range(3):
        own_model = replace(memory.model, features=None if features is None else features[i])
        alone, begin = replace(memory, model=own_model), shaped(lambda t, i=i: t[:, i], start)
        told, own = mlp_step(alone, begin, value=values[:, i], query=query, **shared)
        if i == 0 and asked:
            torch.testing.assert_close(y, told, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(own, shaped(lambda t, i=i: t[:, i], state), rtol=1e-12, atol=1e-12)


def test_half_precision_comes_back_as_it_came_and_is_computed_in_single():
    memory = mlp(l2, "delta")
    a = tokens(memory, 12, dtype=torch.bfloat16)
    y, state = mlp_scan(memory, **a, chunk=4)
    with torch.autocast("cpu", torch.bfloat16):
        again, _ = mlp_scan(memory, **a, chunk=4)
    truth, _ = mlp_scan(memory, **shaped(Tensor.double, a), chunk=4)
    assert y.dtype == torch.bfloat16 and state["model"]["inner"].dtype == torch.float32
    assert torch.equal(y, again)
    torch.testing.assert_close(y.double(), truth, rtol=3e-2, atol=3e-2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sixteen_thousand_tokens_stay_finite(dtype):
    """Each kind a sequence of one batch, with eta below about 2 / chunk, since S6 adds up the errors of a chunk."""
    time, kinds = 16_384, ["random", "constant", "zero", "huge queries", "forgets by turns"]
    key = normalize(torch.randn(5, time, 8), dim=-1)
    value, alpha = torch.randn(5, time, 8), torch.full((5, time), 0.95)
    key[1] = key[1, :1]
    key[2], value[2] = 0, 0
    query = key.flip(1)
    query[3] *= 1e15
    alpha[4] = (torch.arange(time) % 3 > 0).float()
    a = {"key": key, "value": value, "query": query, "eta": torch.full((5, time), 0.01), "alpha": alpha}
    a = shaped(lambda t: t.to(dtype).requires_grad_(), a)
    memory = AssociativeMemory(MLP(8, 8, 8), l2, DeltaGradientDescent())
    y, state = mlp_scan(memory, **a, chunk=128)
    y.float().mean().backward()
    for i, kind in enumerate(kinds):
        found = [y[i], *(t[i] for t in state["model"].values()), *(t.grad[i] for t in a.values())]
        assert all(t.isfinite().all() for t in found), kind


def test_no_token_leaves_the_state_alone():
    memory = mlp(l2, "delta, momentum")
    a = tokens(memory, 0)
    y, state = mlp_scan(memory, **a, chunk=3, window=2)
    truth, expected = scan(memory, **a, chunk=3, window=2)
    assert y.shape == truth.shape
    torch.testing.assert_close(state, expected, rtol=0, atol=0)


def test_memories_without_a_form_are_refused():
    low = AssociativeMemory(MLP(4, 5, 4, fast=True), l2, DeltaGradientDescent())
    assert not has_mlp_form(low) and not has_parallel_form(low) and not has_mlp_form(matrix(l2))
    for run in (mlp_scan, parallel_scan):
        with pytest.raises(ValueError, match=r"nestlearn\.ops\.scan runs any memory"):
            run(low, **tokens(low, 3))
    with pytest.raises(ValueError, match="expected a Matrix or an MLP"):
        chunk_step(low, {}, *(torch.zeros(1),) * 5)


@pytest.mark.slow
def test_a_compiled_scan_gives_the_same_numbers():
    """Traced whole, forward and backward; the compiler itself is tested with the matrix."""
    memory = mlp(l2, "delta")
    a = tokens(memory, 6, dtype=torch.float32)  # a chunk and a ragged one

    def compiled(memory: AssociativeMemory, **arguments: object) -> tuple[Tensor, object]:
        return torch.compile(mlp_scan, fullgraph=True, backend="aot_eager")(memory, **arguments)

    assert_same(everything(compiled, memory, a, chunk=4), everything(mlp_scan, memory, a, chunk=4), 1e-4)
