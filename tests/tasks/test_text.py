"""The task on a text file of one's own: where it is looked for, how it is cut, and what is checked."""

import hashlib

import pytest

from nestlearn.tasks import DataFileError, TextTask
from nestlearn.tasks.text import text_splits

SIZE = {"dim": 16, "heads": 2, "context": 8, "batch": 4, "validation_windows": 4, "test_windows": 4}
CONTENT = bytes(block for block in range(100) for _ in range(20))  # the value of a byte is the number of its block


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(CONTENT)
    return path


def test_of_ten_blocks_the_fifth_validates_and_the_tenth_tests(path):
    found = {split: set(part.tolist()) for split, part in text_splits(path).items()}
    assert found["validation"] == set(range(4, 100, 10))
    assert found["test"] == set(range(9, 100, 10))
    assert found["train"] == set(range(100)) - found["validation"] - found["test"]


def test_every_byte_is_in_one_split_whatever_the_length(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes(CONTENT[:1987])
    assert sum(len(part) for part in text_splits(path).values()) == 1987


def test_the_network_sees_the_text_and_no_other(path):
    task = TextTask(file=str(path), **SIZE)
    inputs, targets = next(task.batches(0))
    assert set(inputs.unique().tolist()) <= set(text_splits(path)["train"].tolist())
    assert targets[:, :-1].equal(inputs[:, 1:])


def test_a_path_may_begin_in_the_folder_of_the_environment(path, monkeypatch):
    monkeypatch.setenv("NESTLEARN_DATA", str(path.parent))
    assert len(TextTask(file="mine.txt", **SIZE).text("test")) == 200
    with pytest.raises(DataFileError, match=r"cannot find the text other\.txt: looked at other\.txt and .*other\.txt"):
        TextTask(file="other.txt", **SIZE)


def test_another_content_than_the_pinned_one_is_an_error(path):
    good = hashlib.sha256(CONTENT).hexdigest()
    assert TextTask(file=str(path), sha256=good, **SIZE).sha256 == good
    with pytest.raises(DataFileError, match=f"expected sha256 {'0' * 64}, found {good}"):
        TextTask(file=str(path), sha256="0" * 64, **SIZE)
