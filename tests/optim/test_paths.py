"""What an optimizer prints: which path writes which parameters."""

from __future__ import annotations

import torch
from torch import nn

import nestlearn as nl
from nestlearn.optim.fused import FusedLane
from nestlearn.optim.lanes import SMALL
from nestlearn.optim.paths import MOST_LINES, paths


def weights(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(shape)) for shape in shapes]


def test_every_path_has_a_line() -> None:
    params = [*weights((6, 4), (6, 4), (4, 6), (3,), ()), nn.Parameter(torch.ones(3, dtype=torch.bfloat16))]
    assert paths(nl.optim.Muon(params)) == [
        "3 parameters (2 of 6x4, 4x6): chain(average(0.95, nesterov=True, name='momentum'), orthogonal()), "
        "batched matrices",
        "2 parameters (3, 1): chain(average(corrected=True, name='momentum'), second_moment()), fused by torch",
        "1 parameter (3) of bfloat16: chain(average(corrected=True, name='momentum'), second_moment()), "
        "composed, joined",
    ]


def test_large_parameters_without_a_kernel_are_walked_or_compiled() -> None:
    for compiles, how in ((False, "composed, in blocks"), (True, "compiled")):
        optimizer = nl.optim.DeltaMomentum(weights((SMALL,), (3,)), compile=compiles)
        assert [line.rpartition("), ")[2] for line in paths(optimizer)] == [how, "composed, joined"]


def test_what_is_said_is_what_happens() -> None:
    params = weights((6, 4), (SMALL,), (3,), (5,))
    optimizer = nl.optim.Muon(params)
    said = paths(optimizer)
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    fused = [lane for lane in optimizer._plan._lanes if isinstance(lane, FusedLane)]
    assert [len(lane.parameters) for lane in fused] == [3]
    assert said[1].startswith("3 parameters") and said[1].endswith("fused by torch")
    assert paths(optimizer) == said


def test_a_thousand_parameters_are_counted() -> None:
    params = weights(*[(1 + place % 50, 3) for place in range(1000)])
    (line,) = paths(nl.optim.Adam(params))
    assert line.startswith("1,000 parameters (20 of 1x3, 20 of 2x3, 20 of 3x3, 20 of 4x3, 46 more shapes): ")
    groups = [{"params": [each], "retention": 0.5 + place / 100} for place, each in enumerate(weights(*[(3,)] * 40))]
    lines = paths(nl.optim.Momentum(groups))
    assert len(lines) == MOST_LINES + 1
    assert lines[-1] == "28 more rules and paths"


def test_names_say_which_parameters_follow_which_rule() -> None:
    blocks = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(12))
    model = nn.ModuleDict({"table": nn.Embedding(9, 4), "blocks": blocks, "norm": nn.LayerNorm(4)})
    optimizer = nl.optim.Muon(model.named_parameters(), elementwise=["table.*"])
    assert [line.partition(": ")[0] for line in paths(optimizer)] == [
        "1 parameter (table.weight 9x4) by elementwise=",
        "12 parameters (12 of blocks.*.weight 4x4)",
        "2 parameters (norm.weight 4, norm.bias 4)",
    ]


def test_a_model_of_many_names_has_few_words() -> None:
    layers = nn.ModuleDict({f"{kind}{each}": nn.Linear(4, 4) for kind in "qkv" for each in "abcdefgh"})
    optimizer = nl.optim.Muon(nn.ModuleList([layers] * 1 + [nn.Linear(4, 4)] * 1).named_parameters())
    words = repr(optimizer)
    assert "25 parameters (" in words and ", 21 more names): chain(" in words
    assert len(words.splitlines()) < 30


def test_it_is_a_part_of_what_is_printed() -> None:
    words = repr(nl.optim.GradientDescent(weights((3,))))
    assert words.endswith("\nWritten\n    1 parameter (3): gradient(), fused by torch\n)")
    assert "Parameter Group 0" in words
