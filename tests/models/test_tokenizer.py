"""Bytes and tokenizers files, and text that appears as its tokens come."""

import sys

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from nestlearn.models import ByteTokenizer, FileTokenizer, TextStream, load_tokenizer

SPOKEN = "Grüße, 世界 🙂 and more"


@pytest.fixture
def word_file(tmp_path):
    """A tokenizer.json of whole words, whose decoder drops the space before the first one."""
    words = {"[UNK]": 0, "▁my": 1, "▁fellow": 2, "▁citizens": 3}
    library = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    path = tmp_path / "tokenizer.json"
    library.save(str(path))
    return path


def test_bytes_are_tokens_and_back():
    tokens = ByteTokenizer().encode(SPOKEN)
    assert bytes(tokens).decode() == SPOKEN == ByteTokenizer().decode(tokens)
    assert load_tokenizer(None).vocab_size == 256


def test_a_tokenizers_file_is_read(word_file):
    words = load_tokenizer(word_file)
    assert words.vocab_size == 4
    assert words.encode("my fellow citizens") == [1, 2, 3]
    assert words.decode([1, 2, 3]) == "my fellow citizens"


def test_characters_appear_whole_and_only_once():
    text = TextStream(ByteTokenizer())
    shown = [text.push(token) for token in ByteTokenizer().encode(SPOKEN)]
    assert "".join(shown) == SPOKEN and "\ufffd" not in "".join(shown)
    assert text.rest() == ""
    assert text.push(0xF0) == "" and text.rest() == "\ufffd"


def test_bytes_that_are_no_text_are_shown_after_a_while():
    text = TextStream(ByteTokenizer())
    shown = "".join(text.push(0x9F) for _ in range(20))
    assert 8 <= len(shown) <= 20


def test_spaces_between_words_are_kept(word_file):
    text = TextStream(FileTokenizer(word_file))
    assert "".join(text.push(token) for token in (1, 2, 3)) == "my fellow citizens"


def test_files_that_cannot_be_read_and_a_library_that_is_missing_are_clear_errors(tmp_path, monkeypatch):
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cannot read the tokenizer .*broken\.json"):
        load_tokenizer(tmp_path / "broken.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "nestlearn\[tokenizers\]"'):
        load_tokenizer(tmp_path / "broken.json")
