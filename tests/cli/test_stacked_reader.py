"""A pretrained model that reads for the page: its states are values, and it writes what `Continuum` writes."""

from __future__ import annotations

import io
import json
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import stacked_model
import torch
from stacked_model import PERIOD, TEXT, stacked, tokenizer
from torch import Tensor

from nestlearn.cli.own_reader import OwnReader
from nestlearn.cli.reading_job import Desk, reading_job
from nestlearn.cli.stacked_reader import StackedReader, Words
from nestlearn.errors import SettingsError
from nestlearn.memory.state import flatten
from nestlearn.models import ByteTokenizer, StateFileError, add_continuum, hope, observe, stream

WORDS = Words(tokenizer())
TOKENS = WORDS.encode(TEXT)


def row(tokens: list[int]) -> Tensor:
    return torch.tensor([tokens])


def desk_of(folder: Path | None, window: int = 2048, kept: int | None = None, **settings: Any) -> Desk:
    return Desk(StackedReader(stacked(**settings), WORDS, window), folder, kept)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return desk_of(tmp_path)


def does(desk: Desk, do: str, **given: Any) -> list[dict[str, Any]]:
    return list(desk.answer({"do": do, **given}))


def saved(desk: Desk, folder: Path, name: str = "now", **settings: Any) -> dict[str, Tensor]:
    """The state that is saved, as a continuum of one's own loads it."""
    does(desk, "save", name=name)
    continuum = stacked(**settings).continuum
    continuum.load(folder / f"{name}.safetensors")
    return flatten(continuum.state())


def surprises(told: list[dict[str, Any]]) -> list[float | None]:
    return [unit[1] for each in told for unit in each.get("words", ())]


@pytest.mark.parametrize(("piece", "window"), [(1, 2048), (1, 7), (3, 7), (256, 2048)])
@pytest.mark.parametrize("settings", [{"blocks": 1}, {"blocks": 1, "rank": 3}, {"objective": "direct", "blocks": 1}])
def test_what_is_written_and_the_surprise_are_those_of_a_continuum_however_the_text_is_cut(
    tmp_path: Path, settings: dict[str, Any], piece: int, window: int
) -> None:
    """Of the last block, whose slopes do not reach back."""
    desk = desk_of(tmp_path, window, **settings)
    told = does(desk, "read", text=TEXT, piece=piece)
    continuum = stacked(**settings).continuum
    losses = continuum.read(row(TOKENS), window=window)[0].tolist()
    torch.testing.assert_close(saved(desk, tmp_path, **settings), flatten(continuum.state()))
    units = [unit for each in told for unit in each["words"]]
    assert "".join(unit[0] for unit in units) == TEXT and [each["here"] for each in told][-1] == len(TOKENS)
    assert max(unit[2] for unit in units) > 1, "no letter was made up of several tokens"
    ends = list(accumulate((unit[2] for unit in units), initial=0))
    known = [losses[max(0, start - 1) : end - 1] for start, end in pairwise(ends)]
    assert surprises(told) == [pytest.approx(sum(each) / len(each), rel=1e-5) if each else None for each in known]
    assert (desk.status()["seen"], desk.status()["here"]) == (len(TOKENS), len(TOKENS))


def test_calls_with_a_cache_write_the_same(tmp_path: Path, desk: Desk) -> None:
    """Of several blocks, whose slopes end with a piece. The last token of a piece is read with the next one."""
    does(desk, "read", text=TEXT, piece=6)
    model, cache = stacked(), None
    for start, end in pairwise([0, *range(5, len(TOKENS) - 1, 6), len(TOKENS) - 1, len(TOKENS)]):
        cache = model(row(TOKENS[start:end]), cache=cache, use_cache=True).cache
    torch.testing.assert_close(saved(desk, tmp_path), flatten(model.continuum.state()))


def test_memories_are_the_matrices_and_move_when_they_are_written(desk: Desk, tmp_path: Path) -> None:
    about = desk.about()
    assert about["vocabulary"] == 300 and about["window"] == 2048
    assert about["memories"] == [
        {"name": f"{block}.down", "layer": "Linear 24 → 16", "period": PERIOD} for block in (1, 2)
    ]
    told = does(desk, "read", text=TEXT, piece=1)
    for name in ("1.down", "2.down"):
        moved = [each["moved"][name] for each in told]
        assert [place for place, far in enumerate(moved) if far] == list(range(PERIOD, len(TOKENS), PERIOD))
    does(desk, "cut", tokens=len(TOKENS) - 2 * PERIOD - 2)
    added = saved(desk, tmp_path)["blocks.2.down.model.weight"][0]
    weight = stacked().model.layers[2].mlp.down_proj.weight.detach()
    size = added.norm() / torch.maximum(weight.norm(), (weight + added).norm())
    assert desk.status()["far"]["2.down"] == pytest.approx(float(size), rel=1e-5)
    does(desk, "forget")
    assert desk.status()["seen"] == 0 and set(desk.status()["far"].values()) == {0}


@pytest.mark.parametrize(
    ("kept", "window", "count"), [(None, 2048, 1), (None, 7, 5), (0, 2048, 11), (0, 7, 6), (0, 2048, 1)]
)
def test_what_is_taken_away_was_never_read(tmp_path: Path, kept: int | None, window: int, count: int) -> None:
    """To the bit: what is read again is read in the same pieces."""
    desk, other = desk_of(tmp_path, window, kept), desk_of(tmp_path, window)
    does(desk, "read", text=TEXT, piece=5)
    does(desk, "cut", tokens=count)
    for _ in other._take(TOKENS[:-count], 5):
        pass
    assert desk.status() == other.status()
    one, two = (flatten(each._marks[-1].state) for each in (desk, other))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert does(desk, "read", text=" and more", piece=4) == does(other, "read", text=" and more", piece=4)
    torch.testing.assert_close(saved(desk, tmp_path), saved(other, tmp_path, "other"), rtol=0, atol=0)
    does(other, "cut", tokens=3)
    does(desk, "cut", tokens=3)
    assert does(desk, "read", text="x") == does(other, "read", text="x")


def test_to_save_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    other = desk_of(tmp_path)
    for each in (desk, other):
        does(each, "read", text=TEXT, piece=6)
    saved(desk, tmp_path)
    assert does(desk, "read", text=" and more") == does(other, "read", text=" and more")
    assert desk.status() == other.status()


def test_a_state_is_restored_another_day_and_attention_begins_anew(desk: Desk, tmp_path: Path) -> None:
    does(desk, "read", text=TEXT)
    before = saved(desk, tmp_path)
    does(desk, "cut", tokens=3)
    does(desk, "restore", name="now")
    assert (desk.status()["here"], desk.status()["seen"]) == (0, len(TOKENS))
    torch.testing.assert_close(saved(desk, tmp_path, "again"), before, rtol=0, atol=0)
    losses = surprises(does(desk, "read", text="four score"))
    continuum = stacked().continuum
    continuum.load(tmp_path / "now.safetensors")
    with continuum.paused():
        logits = continuum.model(row(WORDS.encode("four score"))).logits[0].detach().log_softmax(-1)
    assert losses[:2] == [None, pytest.approx(-float(logits[0, WORDS.encode("four score")[1]]), rel=1e-5)]


@pytest.mark.parametrize("question", ["", "And?"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_question_is_answered_by_reading_on_and_forgotten_unless_it_is_kept(
    desk: Desk, tmp_path: Path, question: str, keep: bool
) -> None:
    does(desk, "read", text=TEXT, piece=4)
    before = saved(desk, tmp_path, "before")
    told = does(desk, "ask", question=question, tokens=6, temperature=0, keep=keep)
    model, cache, tokens = stacked(), None, [*TOKENS, *WORDS.encode(question)]
    if question:
        for start, end in pairwise([0, *range(3, len(TOKENS) - 1, 4), len(TOKENS) - 1]):
            cache = model(row(TOKENS[start:end]), cache=cache, use_cache=True).cache
        asked = row(tokens[len(TOKENS) - 1 :])
        out = model(asked, cache=cache, use_cache=True)
        said = []
        for _ in range(6):
            said.append(int(out.logits[0, -1].argmax()))
            out = model(row(said[-1:]), cache=out.cache, use_cache=True)
        assert "".join(each.get("said", "") for each in told) == WORDS.decode(said)
    assert "".join(each.get("said", "") for each in told)
    after = saved(desk, tmp_path, "after")
    if keep:
        assert desk.status()["here"] == len(tokens) + 6
    else:
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_states_of_other_models_are_refused_in_words(desk: Desk, tmp_path: Path) -> None:
    own = Desk(OwnReader(hope(256, 16, 1, 2, periods=(4, 8)), ByteTokenizer()), tmp_path)
    for each, name in ((desk, "stacked"), (own, "own"), (desk_of(tmp_path, periods=8), "slower")):
        does(each, "read", text=TEXT)
        does(each, "save", name=name)
    words = "expected the format 'nestlearn {} 2', got 'nestlearn {} 2'"
    for each, name, message in (
        (desk, "own", words.format("continuum", "state")),
        (own, "stacked", words.format("state", "continuum")),
        (desk, "slower", "made with other settings: 1.down"),
    ):
        before = each.status()
        with pytest.raises(StateFileError, match=message):
            does(each, "restore", name=name)
        assert each.status() == before
    model = stacked()
    model(torch.tensor([TOKENS, TOKENS]))
    model.continuum.save(tmp_path / "two.safetensors")
    fresh = desk_of(tmp_path)
    does(fresh, "read", text=TEXT)
    for each in (desk, fresh):
        does(each, "read", text="x")
    with pytest.raises(StateFileError, match=r"expected the state of 1 text .* got \[2\]"):
        does(desk, "restore", name="two")
    assert does(desk, "read", text=" and more") == does(fresh, "read", text=" and more")


def test_nothing_is_saved_where_nothing_was_read(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no state to save"):
        does(desk, "save", name="nothing")
    assert list(tmp_path.iterdir()) == []


def test_other_tokens_and_positions_are_refused() -> None:
    model = stacked()
    with pytest.raises(SettingsError, match="the tokenizer has 280 tokens, the model knows 200"):
        model.config.vocab_size = 200
        StackedReader(model, WORDS)
    model.config.vocab_size = 300
    model.config.max_position_embeddings = 9
    assert StackedReader(model, WORDS).window == 9
    for positions in (0, True, "many", None):
        model.config.__dict__["max_position_embeddings"] = positions
        with pytest.raises(SettingsError, match="max_position_embeddings: expected a number of tokens"):
            StackedReader(model, WORDS)


def test_blocks_that_keep_something_else_than_keys_are_refused() -> None:
    model = stacked()
    model.config.layer_types = ["full_attention", "sliding_attention", "linear_attention"]
    with pytest.raises(SettingsError, match="a block with 'linear_attention' keeps something else"):
        StackedReader(model, WORDS)


def test_numbers_without_a_token_are_replacement_characters() -> None:
    assert WORDS.decode([*WORDS.encode("a🐋b"), 299, -1]) == "a🐋b\ufffd\ufffd"
    assert WORDS.decode(WORDS.encode("🐋")[:-1]).strip("\ufffd") == ""


def test_a_model_without_a_rate_writes_nothing_and_reads(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, inner_lr=0)
    losses = surprises(does(desk, "read", text="four score", piece=3))
    tokens = WORDS.encode("four score")
    logits = stacked(inner_lr=0)(row(tokens)).logits[0, :-1].log_softmax(-1)
    assert losses[1:] == pytest.approx((-logits.gather(1, row(tokens[1:]).mT)[:, 0]).tolist(), rel=1e-5)
    assert set(desk.status()["far"].values()) == {0} and desk.status()["seen"] == len(tokens)


def test_a_model_without_a_rate_reads_on_from_what_another_has_written(desk: Desk, tmp_path: Path) -> None:
    does(desk, "read", text=TEXT)
    before = saved(desk, tmp_path)
    frozen = desk_of(tmp_path, inner_lr=0)
    does(frozen, "restore", name="now")
    far = frozen.status()["far"]
    assert all(0 < each < 1 for each in far.values())
    does(frozen, "read", text=TEXT, piece=3)
    assert frozen.status()["far"] == far and frozen.status()["seen"] == 2 * len(TOKENS)
    torch.testing.assert_close(saved(frozen, tmp_path, "after"), before, rtol=0, atol=0)


def test_a_model_whose_attention_slides_reads_as_without_a_cache() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MistralConfig(vocab_size=300, num_key_value_heads=1, sliding_window=5, **sizes)
    model = MistralForCausalLM(config).double().eval()
    continuum = add_continuum(model, periods=PERIOD, inner_lr=0.02, blocks=1)
    readings = list(observe(StackedReader(model, WORDS, 9), row(TOKENS), piece=3))
    continuum.reset()
    losses = torch.cat([reading.losses for reading in readings], 1)[:, 1:]
    torch.testing.assert_close(losses.float(), continuum.read(row(TOKENS), window=9))


def test_it_reads_and_answers_as_our_own_models_do() -> None:
    """`observe` and `stream` of the library take it, in batches too."""
    reader = StackedReader(stacked(), WORDS)
    tokens = torch.tensor([TOKENS[:9], TOKENS[9:18]])
    *_, last = observe(reader, tokens, piece=4)
    assert last.logits.shape == (2, 300) and torch.isfinite(last.losses).all()
    new = [token for (token, _), _ in zip(stream(reader, tokens, state=None), range(2), strict=False)]
    assert torch.equal(new[0], last.logits.argmax(-1))


def talk(folder: Path, *questions: dict[str, Any]) -> list[dict[str, Any]]:
    answers = io.BytesIO()
    lines = "".join(json.dumps(each) + "\n" + '"more"\n' * 20 for each in questions)
    reading_job(folder, None, io.BytesIO(lines.encode()), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_the_folder_of_a_model_is_opened_and_one_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = stacked_model.folder(tmp_path / "mine", inner_lr=0.5)
    opened, *pieces, done = talk(folder, {"do": "open"}, {"do": "read", "text": TEXT})
    assert [each["name"] for each in opened["about"]["memories"]] == ["1.down", "2.down"]
    assert "".join(text for piece in pieces for text, _, _ in piece["words"]) == TEXT
    assert done["done"]["seen"] == len(TOKENS) and done["done"]["far"]["1.down"] > 0
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (told,) = talk(folder)
    assert told["error"] == f"{folder} holds no tokenizer: expected that of the model, which reads the text"


def test_no_code_of_a_folder_is_run(tmp_path: Path) -> None:
    folder, ran = stacked_model.folder(tmp_path / "mine"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: ...\n")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": auto}))
    (told,) = talk(folder)
    assert "cannot load the model" in told["error"] and not ran.exists()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    torch.save({"evil": torch.zeros(1)}, folder / "pytorch_model.bin")
    (told,) = talk(folder)
    assert "cannot load the model" in told["error"] and "safetensors" in told["error"]
