"""The task on texts of one's own: how they are cut, what a network sees of them, and what is refused."""

import hashlib
import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from nestlearn.models import LanguageModel
from nestlearn.tasks import DataFileError, TextTask, make_task
from nestlearn.tasks.data import SPLITS
from nestlearn.tasks.networks import ByteTransformer

SIZE = {"dim": 16, "heads": 2, "context": 3, "batch": 4, "validation_windows": 4, "test_windows": 4}
CONTENT = bytes(block for block in range(100) for _ in range(20))  # the value of a byte is the number of its block


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nestlearn" / "text"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(CONTENT)
    return path


def whole(task: TextTask, split: str) -> list[int]:
    """All tokens of a split, by windows that stand side by side and one at the end."""
    step, length = task.context + 1, task.length(split)
    starts = torch.tensor([*range(0, length - step, step), length - step])
    tokens = [0] * length
    for start, window in zip(starts.tolist(), task.windows(split, starts).tolist(), strict=True):
        tokens[start : start + step] = window
    return tokens


def test_of_ten_blocks_the_fifth_validates_and_the_tenth_tests(path):
    task = TextTask(files=str(path), **SIZE)
    found = {split: set(whole(task, split)) for split in SPLITS}
    assert found["validation"] == set(range(4, 100, 10))
    assert found["test"] == set(range(9, 100, 10))
    assert found["train"] == set(range(100)) - found["validation"] - found["test"]


@pytest.mark.parametrize("length", [50, 117, 1987])
def test_every_byte_is_in_one_split_whatever_the_length(tmp_path, length):
    """And a short text has fewer blocks, so that a window is mostly of one."""
    path = tmp_path / "odd.txt"
    path.write_bytes(bytes(place % 251 for place in range(length)))
    task = TextTask(files=str(path), **SIZE)
    assert sum(task.length(split) for split in SPLITS) == length
    assert sum(map(sum, (whole(task, split) for split in SPLITS))) == sum(path.read_bytes())
    assert len(task._parts["test"].pieces) == min(10, max(1, length // 160))


def test_the_network_sees_the_text_and_no_other(path):
    task = TextTask(files=str(path), **SIZE)
    inputs, targets = next(task.batches(0))
    assert set(inputs.unique().tolist()) <= set(whole(task, "train"))
    assert targets[:, :-1].equal(inputs[:, 1:])
    again = [batch for _, batch in zip(range(5), TextTask(files=str(path), **SIZE).batches(3), strict=False)]
    assert next(task.batches(3, start=4))[0].equal(again[4][0])


def test_a_path_may_begin_in_the_folder_of_the_environment(path, monkeypatch):
    monkeypatch.setenv("NESTLEARN_DATA", str(path.parent))
    assert TextTask(files="mine.txt", **SIZE).length("test") == 200
    with pytest.raises(DataFileError, match=r"cannot find the text other\.txt: looked at other\.txt and .*other\.txt"):
        TextTask(files="other.txt", **SIZE)


def test_another_content_than_the_pinned_one_is_an_error(path):
    good = hashlib.sha256(CONTENT).hexdigest()
    for more in ({}, {"form": "unix"}):  # read in place, and from the cache
        assert TextTask(files=str(path), sha256=good, **more, **SIZE).sha256 == good
        with pytest.raises(DataFileError, match=f"expected sha256 {'0' * 64}, found {good}"):
            TextTask(files=str(path), sha256="0" * 64, **more, **SIZE)


def test_a_text_that_is_too_short_says_how_long_it_has_to_be(path, tmp_path):
    with pytest.raises(ValueError, match=r"has 2,000 bytes, .* context=199 expected at least 2,010.* at most 198\."):
        TextTask(files=str(path), **SIZE | {"context": 199})
    assert TextTask(files=str(path), **SIZE | {"context": 198}).length("test") == 200
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="it has 0 bytes"):
        TextTask(files=str(tmp_path / "empty"), **SIZE)


def test_the_word_that_records_have_for_files_is_understood(path):
    assert make_task("text", {"file": str(path), **SIZE}, "cpu", "float32").files == str(path)
    with pytest.raises(ValueError, match="unknown field of the task text 'flie'"):
        make_task("text", {"flie": str(path)}, "cpu", "float32")


def test_a_text_in_tokens_has_a_network_of_their_number_and_bits_of_a_byte(tmp_path):
    words = {"[UNK]": 0, "ab": 1, "cde": 2, "gone": 9}  # numbers with a gap: 10 rows are needed
    library = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text").write_text("ab cde gone " * 40)
    for network, kind in (("transformer", ByteTransformer), ("rotary", LanguageModel), ("titans", LanguageModel)):
        task = TextTask(
            files=str(tmp_path / "text"), tokenizer=str(tmp_path / "tokenizer.json"), network=network, **SIZE
        )
        model = task.build(0)
        assert isinstance(model, kind) and model.vocab_size == 10 == task.vocab_size
        assert model.tokenizer == str(tmp_path / "tokenizer.json")
    assert task._tokens.read(0, 120).tolist() == [1, 2, 9] * 40
    found = task.evaluate(model, "test")
    assert found["bits"] == pytest.approx(found["loss"] / math.log(2) * 120 / 480)
