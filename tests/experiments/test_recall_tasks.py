"""The texts of the recall experiments: each question has one answer in its text, and judges know a right answer."""

import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.sequence import mqar, needle, recall
from experiments.sequence.mqar.task import FILLER, AssociativeRecall, recall_texts
from experiments.sequence.needle.task import BYTES, NEEDLES, Haystack, needle_texts
from experiments.sequence.recall import CONTENDERS, PIECE, UNASKED, Plan, build, read_out, tuned
from nestlearn.tasks.data import speeches

TASKS = [AssociativeRecall(cells=((4, 64), (16, 1024))), Haystack(lengths=(64, 1024))]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("pairs", "length"), [(1, 4), (4, 16), (16, 64), (64, 256)])
def test_every_question_has_its_one_answer_among_the_pairs(pairs: int, length: int) -> None:
    tokens, targets = recall_texts(seeded(), 5, pairs, length)
    assert tokens.shape == targets.shape == (5, length)
    for text, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        shown = dict(zip(text[: 2 * pairs : 2], text[1 : 2 * pairs : 2], strict=True))
        assert len(shown) == pairs and min(shown) >= FILLER and set(target[: 2 * pairs]) == {UNASKED}
        asked = [place for place in range(length) if target[place] != UNASKED]
        assert len(asked) == (length - 2 * pairs) // 2
        assert all(shown[text[place]] == target[place] for place in asked)
        # Nothing else after the pairs says anything: no value, and no key that is not asked for.
        assert all(text[place] < FILLER for place in range(2 * pairs, length) if place not in asked)


@pytest.mark.parametrize("length", [12, 16, 64, 301])
def test_every_needle_lies_in_its_part_and_is_asked_for_once(length: int) -> None:
    tokens, targets, parts = needle_texts(seeded(), 20, length, "train")
    assert tokens.shape == targets.shape == (20, length) and parts.sort(1).values.equal(torch.arange(4).expand(20, 4))
    size = (length - NEEDLES) // NEEDLES
    assert (targets[:, :-NEEDLES] == UNASKED).all()
    for text, target, part in zip(tokens.tolist(), targets.tolist(), parts.tolist(), strict=True):
        assert sum(token >= BYTES for token in text) == 3 * NEEDLES  # keys twice, values once
        for key, answer, number in zip(text[-NEEDLES:], target[-NEEDLES:], part, strict=True):
            place = text.index(key)
            assert text.count(key) == 2 and text[place + 1] == answer
            assert number * size <= place and place + 1 < (number + 1) * size


def test_needles_lie_anywhere_in_their_part() -> None:
    tokens, _, _ = needle_texts(seeded(), 500, 32, "train")
    first = {next(place for place in range(7) if text[place] >= BYTES) for text in tokens.tolist()}
    assert first == set(range(6))


def test_the_haystack_is_text_of_the_split() -> None:
    tokens, _, _ = needle_texts(seeded(), 3, 200, "test")
    source = bytes(speeches()["test"].tolist())
    for text in tokens.tolist():
        looked_for = b"".join(re.escape(bytes([token])) if token < BYTES else b"." for token in text)
        assert re.search(looked_for, source, re.DOTALL)


def test_texts_are_those_of_their_seed() -> None:
    for make in (lambda g: recall_texts(g, 3, 4, 32), lambda g: needle_texts(g, 3, 64, "train")):
        one, same, other = (make(seeded(seed)) for seed in (0, 0, 1))
        assert all(a.equal(b) for a, b in zip(one, same, strict=True))
        assert not one[0].equal(other[0])


def test_texts_that_cannot_be_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 to 64 pairs"):
        recall_texts(seeded(), 1, 65, 500)
    with pytest.raises(ValueError, match="got 4 in 9"):
        recall_texts(seeded(), 1, 4, 9)
    with pytest.raises(ValueError, match="at least 12"):
        needle_texts(seeded(), 1, 11, "train")


def test_training_grows_from_the_easiest_texts_to_the_longest() -> None:
    recalled, hay = TASKS
    for task, shortest in ((recalled, 8), (hay, 16)):
        first = [task.training(seeded(seed), 0.0)[0].shape for seed in range(30)]
        last = [task.training(seeded(seed), 0.99)[0].shape for seed in range(60)]
        assert min(length for _, length in first) == shortest and max(length for _, length in first) <= 16
        assert max(length for _, length in last) == task.longest
        assert {texts * length for texts, length in first + last} == {task.tokens}
    pairs = {int((recalled.training(seeded(seed), 0.99)[0] >= FILLER + 64).sum(1)[0]) for seed in range(60)}
    assert pairs == {2, 4, 8, 16}


class Reader:
    """In the place of a model: it looks a token up among the last ``span`` that it has read."""

    def __init__(self, span: int) -> None:
        self.span = span

    def __call__(self, tokens: Tensor, state: Any = None, return_state: bool = True) -> Any:
        past = tokens[:, :0] if state is None else state["past"]
        whole = torch.cat([past, tokens], 1)
        answers = torch.zeros_like(tokens)
        for row, text in enumerate(whole.tolist()):
            for place in range(past.shape[1], len(text)):
                seen = text[max(0, place - self.span) : place]
                if text[place] in seen[:-1]:
                    answers[row, place - past.shape[1]] = seen[seen.index(text[place]) + 1]
        return F.one_hot(answers, 512).float(), {"past": whole, "time": torch.tensor(whole.shape[1])}


@pytest.mark.parametrize("task", TASKS)
def test_whoever_reads_everything_is_always_right(task: Any) -> None:
    figures = task.judge(Reader(10_000))
    right = {name: value for name, value in figures.items() if not name.startswith("bytes")}
    assert len(right) >= 2 and set(right.values()) == {1.0}
    assert figures["bytes at 64"] == 8 * 64 and figures["bytes at 1024"] == 8 * 1024  # int64, the clock left out


def test_whoever_reads_the_end_alone_knows_the_last_needle_alone() -> None:
    figures = Haystack(lengths=(1024,)).judge(Reader(255))
    assert figures["at 1024, part 4"] == 1.0 > figures["at 1024, part 3"]
    assert figures["at 1024, part 1"] == figures["at 1024, part 2"] == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_contenders_have_equal_parameters(task: Any) -> None:
    counts = {name: sum(p.numel() for p in build(name, task, 0).parameters()) for name in CONTENDERS}
    assert max(counts.values()) < 1.01 * min(counts.values()), counts


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.slow
def test_reading_in_pieces_is_reading(name: str) -> None:
    model = build(name, TASKS[0], 0)
    tokens = torch.randint(TASKS[0].vocabulary, (2, PIECE + 40), generator=seeded())
    answers, bytes_at_end = read_out(model, tokens)
    with torch.no_grad():
        whole = model(tokens).argmax(-1)
    assert (answers == whole).double().mean() > 0.99  # rounding may turn a tie
    assert (read_out(model, tokens[:, :40])[1] < bytes_at_end) == (name == "transformer")


@pytest.mark.slow
def test_a_run_that_was_begun_is_continued(tmp_path: Any) -> None:
    task, plan = AssociativeRecall(cells=((4, 64),), tokens=64), Plan((0.001, 0.01), (0, 1), 4, 0.5)
    (row,) = tuned(task, ["linear"], plan, tmp_path, 1)
    lines = (tmp_path / "runs.jsonl").read_text()
    assert len(lines.splitlines()) == 4 and set(row.trials) == {0.001, 0.01}
    assert row.rate == min(row.trials, key=row.trials.__getitem__) and len(row.runs) == 2
    (tmp_path / "runs.jsonl").write_text("\n".join(lines.splitlines()[:3]) + "\n")
    (again,) = tuned(task, ["linear"], plan, tmp_path, 1)
    assert again.runs == row.runs and again.trials == row.trials
    assert len([json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]) == 4


def test_sizes_name_contenders_that_exist() -> None:
    for module in (mqar, needle):
        assert all(set(names) <= set(recall.CONTENDERS) for _, names, _ in module.SIZES.values())
