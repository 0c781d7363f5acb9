"""The parts of the sequence benchmark that need no quiet machine."""

import pytest
import torch
from torch import nn

from benchmarks.optim.timing import Unit, interleave
from benchmarks.peers.libraries import Library, installed
from benchmarks.sequence.gate import MIXED, TOKEN, mixing, tiny
from benchmarks.sequence.measure import against
from benchmarks.sequence.models import OURS, count, network
from benchmarks.sequence.oracle import slow
from benchmarks.sequence.rows import DECODING, GROWTH, PEERS, TRANSFORMER, Row
from benchmarks.sequence.theirs import LIBRARIES, THEIRS


def test_the_tables_name_models_and_libraries_that_exist():
    assert {row.ours for row in (*TRANSFORMER, *PEERS, *GROWTH)} | {name for name, _ in DECODING} <= OURS.keys()
    assert {row.theirs for row in PEERS} == THEIRS.keys()
    assert {library for library, _ in THEIRS.values()} == LIBRARIES.keys()


def test_a_missing_library_is_said():
    found = installed({"none": Library("no-such-distribution", "none")})
    assert found == {"none": {"version": None, "problem": "not installed"}}


class Sum(nn.Module):
    """Every position sees the whole text."""

    def forward(self, tokens):
        return tokens.double().cumsum(1).unsqueeze(-1) + tokens.double().sum()


def test_mixing_finds_what_does_not_mix_and_what_sees_the_future():
    assert mixing(nn.Embedding(256, 4)) == MIXED - TOKEN - 1
    assert mixing(Sum()) == TOKEN
    assert mixing(network("transformer")) == 0


@pytest.mark.parametrize("memory", ["matrix", "mlp"])
def test_the_oracle_takes_gradients_at_the_start_of_a_chunk(memory):
    layer = tiny(memory).parts["0"]
    x = torch.randn(1, 11, 16, dtype=torch.float64)
    before = layer(x)
    torch.testing.assert_close(slow(layer, x), before, rtol=1e-10, atol=1e-11)
    layer.chunk = layer.projection_chunk = 2
    assert (slow(layer, x) - before).abs().max() > 1e-3


def test_a_slow_reference_runs_as_often_as_was_asked_for():
    runs = {"ours": 0, "reference": 0}

    def counted(name):
        runs[name] += 1
        sum(range(100_000))

    units = [Unit(lambda name=name: counted(name), lambda: None) for name in runs]
    measured = interleave(*units, device="cpu", rounds=2, cycle=1, target_ms=0, warm=1)
    assert (measured.runs_per_round, runs) == (1, {"ours": 3, "reference": 3})


@pytest.mark.slow
def test_a_row_is_judged_by_its_bar_unless_it_is_quick():
    found = [against(Row("gated DeltaNet", "", 64, bar), quick=False, rounds=2) for bar in (100.0, 0.0)]
    assert [row["passed"] for row in found] == [True, False]
    row = against(Row("gated DeltaNet", "", 64, 100.0), quick=True, rounds=2)
    assert (row["shape"], row["bar"], row["passed"]) == ("B=4 T=128", None, None)
    assert row["quartiles"][0] <= row["ratio"] <= row["quartiles"][1]
    assert row["ours_parameters"] == count(network("gated DeltaNet"))
    assert row["reference_parameters"] == pytest.approx(row["ours_parameters"], rel=0.06)
