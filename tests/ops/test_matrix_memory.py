"""Matrix memories in parallel: everything equals the token by token oracle, and a delta rule written out here."""

import sys
from itertools import product
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sequences import RULES, assert_same, everything, gated_delta_rule, matrix, mlp, shaped, tokens
from torch import Tensor
from torch.nn.functional import normalize

from nestlearn.memory import AssociativeMemory, DeltaGradientDescent, Matrix, dot_product, l2, oja
from nestlearn.ops import chunk_step, has_parallel_form, matrix_memory, parallel_scan, scan
from nestlearn.ops.matrix_memory import has_matrix_form, matrix_scan, matrix_step

OBJECTIVES = {objective.name: objective for objective in (dot_product, l2, oja)}
FORMS = [
    (objective, rule) for objective, rule in product(OBJECTIVES, RULES) if objective != "oja" or "descent" in rule
] + [("oja", "momentum")]
FORMS = list(dict.fromkeys(FORMS))


def memory_of(form: tuple[str, str], residual: bool = False) -> AssociativeMemory:
    objective, rule = form
    return matrix(OBJECTIVES[objective], rule, residual)


forms = pytest.mark.parametrize("form", FORMS, ids=" ".join)


# ----------------------------------------------------------------------------------------- everything equals the oracle


@forms
@pytest.mark.parametrize(("chunk", "block"), [(1, 4), (1, 64), (4, 64)], ids=["blocks", "one block", "chunks"])
def test_outputs_state_and_gradients_equal_the_oracle(form, chunk, block):
    """Ragged on purpose: 11 tokens in blocks or chunks of 4."""
    memory = memory_of(form)
    a = tokens(memory, 11)
    assert_same(everything(matrix_scan, memory, a, chunk=chunk, block=block), everything(scan, memory, a, chunk=chunk))


@forms
@pytest.mark.parametrize("chunk", [1, 3])
def test_before_the_write_a_window_and_a_residual_read_out(form, chunk):
    memory = memory_of(form, residual=True)
    a, options = tokens(memory, 8, batch=(2,)), {"chunk": chunk, "window": 3, "read": "before"}
    # A window of three erases three times as much, which is unstable at large eta and says nothing of the algebra.
    a |= {"eta": a["eta"] / 3, "value": a["value"] / 3}
    assert_same(everything(matrix_scan, memory, a, block=6, **options), everything(scan, memory, a, **options))


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("form", [("l2", "descent"), ("l2", "delta, momentum"), ("oja", "descent")], ids=" ".join)
def test_any_split_with_the_state_carried_equals_one_call(form, window):
    memory, time = memory_of(form), 9
    a, options = tokens(memory, time), {"chunk": 4, "window": window}
    y, after = matrix_scan(memory, **a, **options)
    for split in range(time + 1):
        state, parts = a["state"], []
        for section in (slice(0, split), slice(split, time)):
            part = {name: t[:, :, section] for name, t in a.items() if name != "state"}
            told, state = matrix_scan(memory, **part, state=state, **options)
            parts.append(told)
        torch.testing.assert_close(torch.cat(parts, 2), y, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(state, after, rtol=1e-11, atol=1e-11)


@given(
    form=st.sampled_from(FORMS),
    time=st.integers(1, 14),
    batch=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    chunk=st.integers(1, 6),
    window=st.integers(1, 3),
    block=st.integers(1, 9),
    read=st.sampled_from(["after", "before"]),
)
@settings(max_examples=40)
def test_any_shape_equals_the_oracle(form, time, batch, chunk, window, block, read):
    memory = memory_of(form)
    a = tokens(memory, time, batch)
    a |= {"eta": a["eta"] / window}
    options = {"chunk": chunk, "window": window, "read": read}
    y, state = matrix_scan(memory, **a, block=block, **options)
    truth, expected = scan(memory, **a, **options)
    torch.testing.assert_close(y, truth, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, expected, rtol=1e-9, atol=1e-9)


@forms
def test_gradcheck(form):
    memory = memory_of(form)
    a = tokens(memory, 5, batch=(1,))
    names = [name for name in a if name != "state"]

    def run(weight: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        arguments = dict(zip(names, given, strict=True))
        y, state = matrix_scan(memory, **arguments, state={"model": {"weight": weight}}, chunk=2, block=2)
        return y, state["model"]["weight"]

    inputs = [a["state"]["model"]["weight"], *(a[name] for name in names)]
    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in inputs], fast_mode=True)


# --------------------------------------------------------------------------------------------- what it must be besides


@pytest.mark.parametrize(
    ("form", "strength"), [(("l2", "descent"), 1), (("dot_product", "delta"), 1), (("l2", "delta"), 2)], ids=str
)
def test_an_independent_gated_delta_rule_agrees(form, strength):
    """S8: a = alpha, b = strength eta / alpha, v = alpha v / strength."""
    memory = memory_of(form)
    a = tokens(memory, 37, batch=(2,))
    y, state = matrix_scan(memory, **a, block=8)
    value, beta = a["value"] * a["alpha"][..., None] / strength, strength * a["eta"] / a["alpha"]
    given = (a["query"], a["key"], value, beta, a["alpha"], a["state"]["model"]["weight"])
    for i in range(2):
        answers, weight = gated_delta_rule(*(t[i].numpy() for t in given))
        torch.testing.assert_close(y[i], torch.from_numpy(answers), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(state["model"]["weight"][i], torch.from_numpy(weight), rtol=1e-11, atol=1e-11)


def test_linear_attention_is_attention_without_softmax():
    memory = matrix(dot_product)
    a = tokens(memory, 20)
    y, _ = matrix_scan(memory, a["key"], a["value"], a["query"], 1.0, 1.0, block=7)
    expected = (a["query"] @ a["key"].mT).tril() @ a["value"]
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@forms
def test_a_batch_equals_single_runs(form):
    memory = memory_of(form)
    a = tokens(memory, 9, batch=(3,))
    y, state = matrix_scan(memory, **a, chunk=4)
    for i in range(3):
        alone, own = matrix_scan(memory, **shaped(lambda t, i=i: t[i], a), chunk=4)
        torch.testing.assert_close(alone, y[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(own["model"]["weight"], state["model"]["weight"][i], rtol=1e-12, atol=1e-12)


@forms
@pytest.mark.parametrize("read", ["after", "before"])
def test_an_answer_depends_on_its_past_alone_and_on_all_of_it(form, read):
    memory, time = memory_of(form), 9
    a = tokens(memory, time, batch=())

    def answers(value: Tensor) -> Tensor:
        return matrix_scan(memory, **(a | {"value": value}), chunk=4, block=4, read=read)[0]

    reach = torch.autograd.functional.jacobian(answers, a["value"]).abs().sum((1, 3))
    past = torch.ones(time, time).tril(0 if read == "after" else -1).bool()
    assert not reach[~past].any()
    assert (reach[past] > 0).all()


def test_alpha_of_zero_forgets_and_has_the_oracle_s_slope():
    memory = matrix(l2)
    a = tokens(memory, 9)
    a["alpha"][:, :, 4] = 0.0
    a["alpha"][0, 0, 2] = 0.0
    assert_same(everything(matrix_scan, memory, a, block=4), everything(scan, memory, a))


def test_values_side_by_side_equal_memories_of_their_own():
    """S10: one kernel for all memories that share keys, eta and alpha."""
    tall = AssociativeMemory(Matrix(4, 6), l2, DeltaGradientDescent())
    one = matrix(l2, "delta")
    a = tokens(tall, 9)
    y, state = matrix_scan(tall, **a, chunk=4)
    for part in (slice(0, 3), slice(3, 6)):
        start = {"model": {"weight": a["state"]["model"]["weight"][..., part, :]}}
        alone, own = matrix_scan(one, **(a | {"value": a["value"][..., part], "state": start}), chunk=4)
        torch.testing.assert_close(alone, y[..., part], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            own["model"]["weight"], state["model"]["weight"][..., part, :], rtol=1e-12, atol=1e-12
        )


@forms
@pytest.mark.parametrize("read", ["after", "before"])
def test_a_step_is_a_chunk_of_the_scan_also_in_pieces(form, read):
    memory = memory_of(form)
    a = tokens(memory, 6)
    y, after = scan(memory, **a, chunk=6, read=read)
    start = {"model": a["state"]["model"], "rule": memory.rule.init(a["state"]["model"])}
    part = {name: t for name, t in a.items() if name != "state"}
    told, state = chunk_step(memory, start, **part, read=read)
    torch.testing.assert_close(told, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["model"], after["model"], rtol=1e-12, atol=1e-12)

    state, pieces = start, []
    for section in (slice(0, 1), slice(1, 6)):
        piece = {name: t[:, :, section] for name, t in part.items()}
        told, state = chunk_step(memory, state, **piece, frozen=start["model"], read=read)
        pieces.append(told)
    torch.testing.assert_close(torch.cat(pieces, 2), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["rule"], after["rule"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["delta", "delta, momentum"])
def test_a_step_answers_for_some_of_the_values_or_for_none(rule):
    memory = matrix(l2, rule)
    a = tokens(memory, 6)
    start = {"model": a["state"]["model"], "rule": memory.rule.init(a["state"]["model"])}
    a = {name: t for name, t in a.items() if name != "state"}
    y, after = matrix_step(memory, start, **a)
    some, state = matrix_step(memory, start, **a, answers=slice(1, 3))
    torch.testing.assert_close(some, y[..., 1:3], rtol=1e-12, atol=1e-12)
    none, written = matrix_step(memory, start, **(a | {"query": None}))
    assert none is None
    for found in (state, written):
        torch.testing.assert_close(found, after, rtol=1e-12, atol=1e-12)


# ----------------------------------------------------------------------------------------------- precision and extremes


@forms
def test_half_precision_comes_back_as_it_came_and_is_computed_in_single(form):
    memory = memory_of(form)
    a = tokens(memory, 20, dtype=torch.bfloat16)
    y, state = matrix_scan(memory, **a, chunk=4)
    with torch.autocast("cpu", torch.bfloat16):  # memories stay in single precision
        again, _ = matrix_scan(memory, **a, chunk=4)
    truth, _ = matrix_scan(memory, **shaped(Tensor.double, a), chunk=4)
    assert y.dtype == torch.bfloat16 and state["model"]["weight"].dtype == torch.float32
    assert torch.equal(y, again)
    torch.testing.assert_close(y.double(), truth, rtol=1e-2, atol=1e-2)


def extreme(kind: str, dtype: torch.dtype, time: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    a = {
        "key": normalize(draw(1, time, 8), dim=-1),
        "value": draw(1, time, 8),
        "query": normalize(draw(1, time, 8), dim=-1),
        "eta": draw(1, time).sigmoid(),
        "alpha": (3 + draw(1, time)).sigmoid(),
    }
    ones = torch.ones(1, time)
    changes = {
        "random": {},
        "constant": {name: a[name][:, :1].expand(1, time, 8) for name in ("key", "value", "query")},
        "zero": {name: torch.zeros(1, time, 8) for name in ("key", "value", "query")},
        "huge": {"value": 1e30 * a["value"]},
        "forgets all": {"alpha": 0 * ones},
        "forgets by turns": {"alpha": (torch.arange(time) % 3 > 0) * ones},
        "forgets almost all": {"alpha": 1e-8 * ones},
        "forgets nothing": {"alpha": ones},
        "writes all": {"eta": ones},
        "writes nothing": {"eta": 0 * ones},
    }
    return shaped(lambda t: t.to(dtype), a | changes[kind])


EXTREMES = [
    *("random", "constant", "zero", "huge", "forgets all", "forgets by turns", "forgets almost all"),
    *("forgets nothing", "writes all", "writes nothing"),
]


LONG = [
    (("l2", "descent"), torch.float32, EXTREMES),
    (("l2", "descent"), torch.bfloat16, EXTREMES),
    (("dot_product", "delta, momentum"), torch.float32, ["random", "constant", "forgets by turns"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "dtype", "kinds"), LONG, ids=str)
def test_sixteen_thousand_tokens_stay_finite(form, dtype, kinds):
    """Every kind a sequence of one batch."""
    memory = AssociativeMemory(Matrix(8, 8), OBJECTIVES[form[0]], RULES[form[1]])
    each = [extreme(kind, dtype, 16_384) for kind in kinds]
    a = {name: torch.cat([one[name] for one in each]).requires_grad_() for name in each[0]}
    y, state = matrix_scan(memory, **a, block=64 if form[1] == "descent" else 128)
    (y.float() / y.detach().float().abs().amax((1, 2), keepdim=True).clamp(min=1)).sum().backward()
    for i, kind in enumerate(kinds):
        found = [y[i], state["model"]["weight"][i], *(t.grad[i] for t in a.values())]
        assert all(t.isfinite().all() for t in found), kind
    if dtype == torch.float32:
        truth, _ = matrix_scan(memory, **shaped(lambda t: t.detach().double(), a))
        ordinary = [i for i, kind in enumerate(kinds) if kind != "huge"]
        torch.testing.assert_close(y.double()[ordinary], truth[ordinary], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", EXTREMES)
def test_chunks_of_a_hundred_tokens_stay_finite_where_eta_is_small_enough(kind):
    """S6 adds up the errors of a chunk, so that eta must stay below about 2 / chunk for keys that repeat."""
    memory = AssociativeMemory(Matrix(8, 8), l2, DeltaGradientDescent())
    a = extreme(kind, torch.float32, 1024)
    y, state = matrix_scan(memory, **(a | {"eta": a["eta"] / 64}), chunk=100)
    assert y.isfinite().all() and state["model"]["weight"].isfinite().all()


# ----------------------------------------------------------------------------------------------------- other machinery


def test_no_token_leaves_the_state_alone():
    memory = matrix(l2, "delta, momentum")
    a = tokens(memory, 0)
    y, state = matrix_scan(memory, **a, chunk=3, window=2)
    truth, expected = scan(memory, **a, chunk=3, window=2)
    assert y.shape == truth.shape
    torch.testing.assert_close(state, expected, rtol=0, atol=0)


def test_memories_without_a_form_are_refused():
    two_sided = matrix(oja, "delta")
    assert not has_matrix_form(two_sided) and not has_parallel_form(two_sided)
    for run in (matrix_scan, parallel_scan):
        with pytest.raises(ValueError, match=r"nestlearn\.ops\.scan runs any memory"):
            run(two_sided, **tokens(two_sided, 3))
    assert not has_matrix_form(mlp(l2))
    with pytest.raises(ValueError, match="block: expected at least 1 row, got 0"):
        matrix_scan(matrix(l2), **tokens(matrix(l2), 3), block=0)


def fake_fla(**seen: object) -> ModuleType:
    """A module in the place of fla-core: its documented recurrence and shapes, [batch, time, heads, dim]."""
    module = ModuleType("fla.ops.gated_delta_rule")

    def chunk_gated_delta_rule(q, k, v, g, beta, scale, initial_state, output_final_state):
        assert scale == 1.0 and output_final_state and initial_state.dtype == torch.float32
        state, answers = initial_state, []
        for t in range(q.shape[1]):
            state = state * g[:, t, :, None, None].exp()
            missing = v[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t].float())
            state = state + torch.einsum("bhk,bhv->bhkv", k[:, t] * beta[:, t, :, None], missing)
            answers.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t].float()))
        return torch.stack(answers, 1).to(q.dtype), state

    module.chunk_gated_delta_rule = chunk_gated_delta_rule
    return module


@pytest.mark.parametrize("form", [("l2", "descent"), ("dot_product", "delta"), ("l2", "delta")], ids=" ".join)
def test_the_kernel_of_fla_is_called_in_its_own_convention(form, monkeypatch):
    """S8, with a module of the same recurrence in its place; the real kernel needs CUDA."""
    monkeypatch.setitem(sys.modules, "fla.ops.gated_delta_rule", fake_fla())
    monkeypatch.setattr(matrix_memory, "is_fused", lambda key: key.dtype == torch.bfloat16)
    memory = memory_of(form)
    a = tokens(memory, 9, dtype=torch.bfloat16)
    y, state = matrix_scan(memory, **a)
    truth, expected = scan(memory, **shaped(Tensor.double, a))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), truth, rtol=3e-2, atol=3e-2)
    weight = state["model"]["weight"]
    torch.testing.assert_close(weight.double(), expected["model"]["weight"], rtol=3e-2, atol=3e-2)


def test_the_cpu_never_asks_for_fla():
    assert not matrix_memory.is_fused(torch.zeros(1, dtype=torch.bfloat16))


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "rule", "backend"), [(8, "delta", "inductor"), (1, "momentum", "aot_eager")])
def test_a_compiled_scan_gives_the_same_numbers(chunk, rule, backend):
    memory = matrix(l2, rule)
    a = tokens(memory, 10, dtype=torch.float32)  # a block and a ragged one: what is unrolled is slow to trace

    def compiled(memory: AssociativeMemory, **arguments: object) -> tuple[Tensor, object]:
        return torch.compile(matrix_scan, fullgraph=True, backend=backend)(memory, **arguments)

    options = {"chunk": chunk, "block": 8}
    assert_same(everything(compiled, memory, a, **options), everything(matrix_scan, memory, a, **options), 1e-4)
