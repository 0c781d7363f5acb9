"""A model that reads for the page: surprise, movement and states that are cut and restored, beside the model itself."""

import io
import json

import pytest
import torch
from every_model import model
from torch.nn import functional as F
from trained_hope import nestlearn

from nestlearn.cli.own_reader import OwnReader
from nestlearn.cli.reading_job import Desk, reading_job
from nestlearn.memory.state import flatten
from nestlearn.models import ByteTokenizer, load_state, movement, read, save_state
from nestlearn.training import load_trained

TEXT = "Für sieben Jahre, four score."
TOKENS = list(TEXT.encode())


@pytest.fixture
def reader():
    return model("hope", vocab_size=256, depth=1)


@pytest.fixture
def desk(reader, tmp_path):
    return Desk(OwnReader(reader, ByteTokenizer()), tmp_path)


def does(desk, do, **given):
    return list(desk.answer({"do": do, **given}))


def state_of(reader, tokens):
    return read(reader, torch.tensor([tokens]))[1]


def is_at(desk, reader, tokens, path, name="now"):
    """Whether the state that is saved is the one after these tokens."""
    does(desk, "save", name=name)
    saved = flatten(load_state(path / f"{name}.safetensors", reader))
    torch.testing.assert_close(saved, {key: held.detach() for key, held in flatten(state_of(reader, tokens)).items()})


def test_text_is_told_with_its_surprise_and_memories_with_their_movement(desk, reader):
    told = does(desk, "read", text=TEXT, piece=2)  # the first piece ends within a letter
    units = [unit for each in told for unit in each["words"]]
    assert "".join(unit[0] for unit in units) == TEXT and sum(unit[2] for unit in units) == len(TOKENS)
    assert units[0] == ("F", None, 1) and told[0]["words"] == [units[0]]
    with torch.no_grad():
        losses = F.cross_entropy(reader(torch.tensor([TOKENS]))[0, :-1], torch.tensor(TOKENS[1:]), reduction="none")
    assert units[1][1:] == (pytest.approx(float(losses[:2].mean()), rel=1e-5), 2)
    assert units[-1][1] == pytest.approx(float(losses[-1]), rel=1e-5)
    far = movement(state_of(reader, TOKENS[:2]), state_of(reader, TOKENS[:4]))
    assert told[1]["moved"] == pytest.approx({name: float(each) for name, each in far.items()}, rel=1e-5)
    status, start = desk.status(), movement(reader.initial_state(1), state_of(reader, TOKENS))
    assert status["far"] == pytest.approx({name: float(each) for name, each in start.items()}, rel=1e-5)
    assert (status["here"], status["seen"]) == (len(TOKENS), len(TOKENS))
    periods = {each["name"]: each["period"] for each in desk.about()["memories"]}
    assert periods["1.blocks.0"] == 4 and periods["1.blocks.1"] == 8 and periods.keys() == far.keys()


def test_tokens_are_taken_away_and_what_follows_is_read_as_if_they_had_never_been(desk, reader, tmp_path):
    does(desk, "read", text=TEXT, piece=8)
    does(desk, "cut", tokens=7)
    assert desk.status()["here"] == len(TOKENS) - 7
    is_at(desk, reader, TOKENS[:-7], tmp_path)
    (told,) = does(desk, "read", text="xy")
    with torch.no_grad():
        logits = reader(torch.tensor([[*TOKENS[:-7], *b"xy"]]))[0, -3:-1].log_softmax(-1)
    assert [unit[1] for unit in told["words"]] == pytest.approx(
        [-float(logits[0, ord("x")]), -float(logits[1, ord("y")])], rel=1e-5
    )
    does(desk, "cut", tokens=desk.status()["here"])
    assert desk.status()["seen"] == 0


def test_few_states_are_kept_and_all_may_be_gone_back_to(reader, tmp_path):
    desk = Desk(OwnReader(reader, ByteTokenizer()), tmp_path, kept=0)
    does(desk, "read", text=TEXT, piece=1)
    assert len(desk._marks) == 2
    does(desk, "cut", tokens=3)
    is_at(desk, reader, TOKENS[:-3], tmp_path)


def test_a_state_is_restored_another_day(desk, reader, tmp_path):
    save_state(state_of(reader, TOKENS), tmp_path / "old.safetensors", reader)
    does(desk, "restore", name="old")
    assert (desk.status()["here"], desk.status()["seen"]) == (0, len(TOKENS))
    does(desk, "read", text=" And more")
    is_at(desk, reader, [*TOKENS, *b" And more"], tmp_path)
    does(desk, "forget")
    assert desk.status()["seen"] == 0 and not any(desk.status()["far"].values())


@pytest.mark.parametrize("question", ["", "What?"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_question_is_answered_from_the_state_and_leaves_it_unless_it_is_kept(desk, reader, tmp_path, question, keep):
    does(desk, "read", text=TEXT)
    told = does(desk, "ask", question=question, tokens=5, temperature=0, keep=keep)
    asked = [*TOKENS, *question.encode()]
    answer = reader.generate(torch.tensor([asked]), 5)[0].tolist()
    said = "".join(each.get("said", "") for each in told)
    assert said == ByteTokenizer().decode(answer[len(asked) :])
    is_at(desk, reader, answer if keep else TOKENS, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do": "dance"}, "do: expected one of open, read, cut, forget, save, restore, ask, got 'dance'"),
        ({"do": "read", "text": ""}, "text: expected at least one token, got none"),
        ({"do": "read", "text": 3}, "text: expected a text of at most 65,536 characters, got 3"),
        ({"do": "read", "text": "a" * 65537}, "text: expected a text of at most 65,536 characters, got 65,537"),
        ({"do": "read", "text": "a", "piece": 0}, "piece: expected a number from 1 to 256, got 0"),
        ({"do": "read", "text": "a", "piece": float("nan")}, "piece: expected a number from 1 to 256, got nan"),
        ({"do": "cut"}, "nothing was read since the state was begun"),
        ({"do": "ask"}, "question: expected at least one token"),
        ({"do": "save", "name": "../x"}, "name: expected up to 64 letters"),
        ({"do": "restore", "name": "none"}, "there is no state of the name 'none'"),
    ],
)
def test_what_cannot_be_done_is_said(desk, given, message):
    with pytest.raises(ValueError) as error:
        list(desk.answer(given))
    assert message in str(error.value)


def test_a_state_is_never_written_over(desk):
    does(desk, "read", text="a")
    does(desk, "save", name="one")
    with pytest.raises(ValueError, match="there is a state of the name 'one'"):
        does(desk, "save", name="one")
    with pytest.raises(ValueError, match="nestlearn explore --states FOLDER"):
        does(Desk(desk._reader, None), "save", name="one")


def talk(run, *words):
    answers = io.BytesIO()
    reading_job(run, None, io.BytesIO("".join(json.dumps(word) + "\n" for word in words).encode()), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_lines_are_answered_in_their_order_and_a_reading_is_stopped_at_a_piece(run):
    read_it = {"do": "read", "text": "one two", "piece": 2}
    told = talk(run, {"do": "open"}, "stop", read_it, "more", "stop", {"do": "cut", "tokens": 9}, {"do": "forget"})
    assert [sorted(each) for each in told] == [
        ["about", "done"],
        *[["here", "moved", "words"]] * 2,
        ["done"],
        ["error"],
        ["done"],
    ]
    assert told[3]["done"]["here"] == told[3]["done"]["seen"] == 4
    assert told[0]["about"]["vocabulary"] == load_trained(run).model.vocab_size
    assert told[4]["error"] == "tokens: expected a number from 1 to 4, got 9" and told[5]["done"]["seen"] == 0


def test_a_folder_without_a_model_is_said_so(tmp_path):
    (told,) = talk(tmp_path, {"do": "open"})
    assert str(tmp_path) in told["error"]


def test_the_folder_of_states_is_an_option():
    assert "--states" in nestlearn("explore", "--help").output
