"""Which files a text is, what of their bytes is kept, and that a large one is never in memory."""

import bz2
import codecs
import gzip
import json
import lzma
import os
import random
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from nestlearn.models import FileTokenizer
from nestlearn.tasks import DataFileError, text_files, text_tokens
from nestlearn.tasks.text_files import find_texts, text_pieces
from nestlearn.tasks.text_tokens import TextPart, open_text

PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nestlearn" / "text"


def texts(folder: Path, **contents: bytes) -> Path:
    for name, content in contents.items():
        path = folder / name.replace("_", ".").replace("..", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def names(given, folder: Path) -> list[str]:
    return [str(file.path.relative_to(folder)) for file in find_texts(given)]


def content(given, form: str = "kept") -> bytes:
    tokens = open_text(find_texts(given), form)
    return bytes(tokens.read(0, tokens.count).tolist())


def test_a_name_means_a_file_a_folder_or_a_pattern(tmp_path, monkeypatch):
    folder = texts(tmp_path / "t", b_txt=b"b", a_txt=b"a", sub__c_txt=b"c")
    (folder / ".hidden").write_bytes(b"h")
    (folder / "a[1].txt").write_bytes(b"1")
    monkeypatch.chdir(folder)
    assert names("b.txt", folder) == ["b.txt"]
    assert names(".", folder) == ["a.txt", "a[1].txt", "b.txt", "sub/c.txt"]
    assert names("*.txt", folder) == ["a.txt", "a[1].txt", "b.txt"]
    assert names("**/c.*", folder) == ["sub/c.txt"]
    assert names("a[1].txt", folder) == ["a[1].txt"]
    assert names(["sub", "*.txt", "b.txt"], folder) == ["sub/c.txt", "a.txt", "a[1].txt", "b.txt"]
    monkeypatch.setenv("HOME", str(folder))
    assert names("~/b.txt", folder) == ["b.txt"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "expected files for the task text, got none"),
        ([], "expected files for the task text, got none"),
        (12, "expected files for the task text, got 12"),
        (["a", 3], r"expected files for the task text, got \['a', 3\]"),
        ("none.txt", r"cannot find the text none\.txt"),
        ("*.none", r"cannot find the text \*\.none"),
        ("a,b", r"Several files are a list: \[a, b\]\."),
        ("empty", "expected files in the folder .*empty and below, found none"),
        (os.devnull, "which is neither"),
    ],
)
def test_what_is_no_text_is_said(tmp_path, monkeypatch, given, said):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataFileError, ValueError), match=said):
        find_texts(given)


@pytest.mark.parametrize("suffix", PACKED)
def test_packed_files_are_unpacked_and_damaged_ones_are_said(tmp_path, suffix):
    plain, path = random.Random(0).randbytes(5000), tmp_path / f"text{suffix}"
    pack = PACKED[suffix]
    path.write_bytes(pack(plain[:2000]) + pack(plain[2000:]))  # as `cat` joins them
    assert content(str(path)) == plain
    for broken in (pack(plain)[:-9], b"no archive at all", pack(plain)[:500] + b"\0" * 400 + pack(plain)[900:]):
        path.write_bytes(broken)
        with pytest.raises(DataFileError, match=rf"cannot unpack the text .*text{suffix}, which is damaged"):
            content(str(path))
    assert [file.name for file in (tmp_path / "cache/nestlearn/text").iterdir() if file.name.startswith(".")] == []


def test_zst_needs_a_package_and_says_which(tmp_path, monkeypatch):
    path = tmp_path / "text.zst"
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        zstd = text_files._zst()
    except ModuleNotFoundError:
        zstd = None
    if zstd is not None:
        path.write_bytes(zstd.compress(b"one ") + zstd.compress(b"two"))
        assert content(str(path)) == b"one two"
        path.write_bytes(zstd.compress(b"one " * 99)[:-3])
        with pytest.raises(DataFileError, match=r"text\.zst, which is damaged"):
            content(str(path))
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "nestlearn\[zst\]"'):
        content(str(path))


def test_between_two_files_stand_two_line_ends_and_empty_ones_are_left_out(tmp_path):
    folder = texts(tmp_path / "t", a=b"one\r\n", b=b"", c=gzip.compress(b""), d=b"two")
    (folder / "c").rename(folder / "c.gz")
    assert content(str(folder)) == b"one\r\n\n\ntwo"
    assert content(str(folder), "unix") == b"one\n\n\ntwo"


@pytest.mark.parametrize("piece", [1, 2, 3, 1 << 20])
def test_marks_and_line_ends_are_kept_or_normalised(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(text_files, "PIECE", piece)
    spoken = "Grüße\r\n\r世界\r"
    expected = "Grüße\n\n世界\n".encode()
    for number, raw in enumerate(
        (
            spoken.encode(),
            codecs.BOM_UTF8 + spoken.encode(),
            codecs.BOM_UTF16_LE + spoken.encode("utf-16-le"),
            codecs.BOM_UTF16_BE + spoken.encode("utf-16-be"),
            codecs.BOM_UTF32_LE + spoken.encode("utf-32-le"),
        )
    ):
        path = tmp_path / f"text{number}"
        path.write_bytes(raw)
        assert content(str(path)) == raw
        assert content(str(path), "unix") == expected
    path.write_bytes(b"\xff\xfea\0\xd8")  # half a character
    assert content(str(path), "unix").startswith(b"a")
    path.write_bytes(bytes(range(256)))
    assert content(str(path), "unix") == bytes(range(256)).replace(b"\r", b"\n")


def byte_level(path: Path) -> FileTokenizer:
    """A vocabulary in which every byte has a number: its tokens do not depend on where a text is cut."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    library = Tokenizer(models.BPE(vocab=letters, merges=[]))
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    library.save(str(path))
    return FileTokenizer(path)


def test_a_long_text_is_cut_into_tokens_piece_by_piece(tmp_path, monkeypatch):
    """Into those that it has as a whole, however it is cut; lines, words and neither."""
    monkeypatch.setattr(text_tokens, "LENGTH", 50)
    monkeypatch.setattr(text_tokens, "TOGETHER", 3)
    monkeypatch.setattr(text_files, "PIECE", 7)
    words = byte_level(tmp_path / "tokenizer.json")
    spoken = "Grüße, 世界 🙂\n" * 20 + "word " * 40 + "x" * 333
    path = tmp_path / "text"
    path.write_text(spoken, encoding="utf-8")
    tokens = open_text(find_texts(str(path)), tokenizer=words)
    found = tokens.read(0, tokens.count).tolist()
    assert found == words.encode(spoken) and words.decode(found) == spoken
    assert tokens.tokens_a_byte == 1.0


def test_a_cut_is_where_a_line_or_a_word_begins(monkeypatch):
    monkeypatch.setattr(text_tokens, "LENGTH", 10)
    assert list(text_tokens._cut([b"one two three", b"\nfour five\nsix"])) == [
        "one two",
        " three\n",
        "four five\n",
        "six",
    ]
    assert list(text_tokens._cut([b"x" * 23])) == ["x" * 10, "x" * 10, "x" * 3]


@pytest.mark.parametrize("count", [256, 1 << 16, (1 << 16) + 1])
def test_numbers_of_every_size_come_back(tmp_path, count):
    largest = f"w{count - 1}"
    library = Tokenizer(models.WordLevel({"w0": 0, largest: count - 1}, unk_token="w0"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text").write_text(f"{largest} w0 {largest}")
    tokens = open_text(find_texts(str(tmp_path / "text")), tokenizer=FileTokenizer(tmp_path / "tokenizer.json"))
    assert tokens.read(0, 3).tolist() == [count - 1, 0, count - 1]


def test_what_was_made_of_a_text_is_made_once_and_again_when_it_changes(tmp_path, cache, monkeypatch):
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(b"first"))
    assert content(str(path)) == b"first"
    made = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    monkeypatch.setattr(text_tokens, "text_pieces", lambda *given: pytest.fail("read again"))
    assert content(str(path)) == b"first"
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    (tokens,) = cache.glob("*.tokens")
    tokens.write_bytes(b"fir")  # cut short by whatever
    assert content(str(path)) == b"first"
    (facts,) = cache.glob("*.json")
    for broken in ("", "[]", '{"size": "x"}', json.dumps({"size": 5})):
        facts.write_text(broken)
        assert content(str(path)) == b"first"
    assert len(list(cache.iterdir())) == len(made) == 2
    path.write_bytes(gzip.compress(b"another"))
    assert content(str(path)) == b"another"


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "taken").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    (tmp_path / "text").write_bytes(b"x\r\n")
    with pytest.raises(DataFileError, match=r"cannot write the tokens .* Set XDG_CACHE_HOME to a folder"):
        content(str(tmp_path / "text"), "unix")


def test_a_text_that_is_changed_while_it_is_read_is_said_and_kills_nothing(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"x" * 5000)
    tokens = open_text(find_texts(str(path)))
    path.write_bytes(b"y")
    with pytest.raises(DataFileError, match="was changed while it was read"):
        tokens.read(100, 10)
    with pytest.raises(DataFileError, match="was changed while it was read"):
        tokens.read(0, 1)


def test_ten_gigabytes_are_read_by_place_in_no_memory(tmp_path):
    """A sparse file, with something at its end."""
    path, size = tmp_path / "huge", 10 * 10**9
    with path.open("wb") as file:
        file.seek(size - 5)
        file.write(b"there")
    tracemalloc.start()
    try:
        tokens = open_text(find_texts(str(path)))
        part = TextPart(tokens, ((0, 10), (size - 20, size)))
        assert tokens.count == size
        assert bytes(part.windows(torch.tensor([5, 20]), 10)[1].tolist()) == b"\0" * 5 + b"there"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_packed_text_is_made_into_tokens_in_the_memory_of_a_few_pieces(tmp_path, monkeypatch):
    """Ten million bytes in a file of some thousand."""
    monkeypatch.setattr(text_files, "PIECE", 1 << 16)
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(b"one line of a text\r\n" * 500_000, compresslevel=1))
    tracemalloc.start()
    try:
        assert open_text(find_texts(str(path)), "unix").count == 19 * 500_000
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_the_pieces_of_a_text_are_told_as_they_lie_in_the_files(tmp_path):
    told = []
    path = tmp_path / "text"
    path.write_bytes(b"a\r\nb")
    assert b"".join(text_pieces(find_texts(str(path)), "unix", told.append)) == b"a\nb"
    assert b"".join(told) == b"a\r\nb"
