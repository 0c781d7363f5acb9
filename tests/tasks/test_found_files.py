"""Files that are found or downloaded: the order of the places, the check of what is in them, and the messages."""

import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nestlearn.tasks.data_file import DataFileError
from nestlearn.tasks.found_files import FoundFile

CONTENT = b"\x00\x00\x08\x01 numbers"
PACKED = gzip.compress(CONTENT, mtime=0)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FoundFile:
    """A file that is nowhere yet, all its places below the temporary folder."""
    monkeypatch.delenv("NESTLEARN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return FoundFile(
        name="images.gz",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        source="a test",
        licence="none",
        collection="pictures",
        folder=tmp_path / "package",
        package="dataset-pictures",
        mirrors=(),
    )


def put(path: Path, content: bytes = PACKED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


PLACES = ["given/pictures/images.gz", "given/images.gz", "package/images.gz", "cache/nestlearn/pictures/images.gz"]


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_places_are_searched_in_order(first, file, tmp_path, monkeypatch):
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("NESTLEARN_DATA", str(tmp_path / "given"))
    put(tmp_path / PLACES[first])
    for later in PLACES[first + 1 :]:
        put(tmp_path / later, b"not looked at")
    assert file.read() == CONTENT


def test_without_the_variable_the_cache_in_the_home_folder_is_used(file, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    put(tmp_path / "home/.cache/nestlearn/pictures/images.gz")
    assert file.read() == CONTENT


def test_an_unpacked_file_will_do_and_other_packing_too(file, tmp_path):
    path = put(tmp_path / "package/images", CONTENT)
    assert file.read() == CONTENT
    path.unlink()
    other = gzip.compress(CONTENT, compresslevel=1, mtime=12345)
    assert other != PACKED
    put(tmp_path / "package/images.gz", other)
    assert file.read() == CONTENT


def says_how(message: str, tmp_path: Path) -> bool:
    """Whether a message names the three ways to get the data."""
    ways = ("set NESTLEARN_DATA", "Debian package dataset-pictures", str(tmp_path / "cache/nestlearn/pictures"))
    return all(way in message for way in ways)


def test_other_content_is_an_error_that_names_file_both_hashes_and_the_three_ways(file, tmp_path):
    path = put(tmp_path / "package/images.gz", gzip.compress(b"other"))
    with pytest.raises(DataFileError) as caught:
        file.read()
    message = str(caught.value)
    assert str(path) in message and file.sha256 in message and hashlib.sha256(b"other").hexdigest() in message
    assert says_how(message, tmp_path)


@pytest.mark.parametrize("damaged", [PACKED[:-6], PACKED[:12] + b"\xff\xff" + PACKED[14:]], ids=["short", "changed"])
def test_a_damaged_file_is_an_error_that_says_to_delete_it(damaged, file, tmp_path):
    path = put(tmp_path / "package/images.gz", damaged)
    with pytest.raises(DataFileError, match=r"images\.gz is damaged .* delete it") as caught:
        file.read()
    assert str(path) in str(caught.value) and says_how(str(caught.value), tmp_path)


def test_a_variable_that_names_no_folder_is_an_error(file, tmp_path, monkeypatch):
    monkeypatch.setenv("NESTLEARN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataFileError, match=r"NESTLEARN_DATA is '.*nowhere', which is no folder"):
        file.read()


def test_a_file_that_cannot_be_had_is_an_error_that_names_hash_ways_and_what_was_tried(file, tmp_path):
    closed = replace(file, mirrors=("http://127.0.0.1:9/data",))  # nothing listens at the port "discard"
    with pytest.raises(DataFileError, match=r"images\.gz.*Tried: http://127\.0\.0\.1:9/data/images\.gz: ") as caught:
        closed.read()
    assert file.sha256 in str(caught.value) and says_how(str(caught.value), tmp_path)


# ----------------------------------------------------------------------------------------------------------- download


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server on the loopback interface for the folder "served": its address, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=tmp_path / "served")

        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}", asked
        found.shutdown()
        thread.join()


def test_a_download_is_checked_and_kept_and_the_next_read_asks_nobody(file, server, tmp_path):
    address, asked = server
    put(tmp_path / "served/good/images.gz")
    put(tmp_path / "served/bad/images.gz", gzip.compress(b"other"))
    remote = replace(file, mirrors=(f"{address}/none", f"{address}/bad", f"{address}/good"))
    assert remote.read() == CONTENT
    tried = ["/none/images.gz", "/bad/images.gz", "/good/images.gz"]
    assert list(dict.fromkeys(asked)) == tried
    asked.clear()
    assert [path.name for path in (tmp_path / "cache/nestlearn/pictures").iterdir()] == ["images.gz"]
    assert remote.read() == CONTENT and not asked


def test_wrong_downloads_leave_nothing_behind_and_the_message_has_both_hashes(file, server, tmp_path):
    put(tmp_path / "served/images.gz", gzip.compress(b"other"))
    with pytest.raises(DataFileError) as caught:
        replace(file, mirrors=(server[0],)).read()
    assert file.sha256 in str(caught.value) and hashlib.sha256(b"other").hexdigest() in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_a_clear_error(file, server, tmp_path):
    put(tmp_path / "served/images.gz")
    put(tmp_path / "cache", b"a file where a folder should be")
    with pytest.raises(DataFileError, match=r"cannot write .*images\.gz") as caught:
        replace(file, mirrors=(server[0],)).read()
    assert says_how(str(caught.value), tmp_path)


def test_an_interrupted_write_leaves_nothing_behind(file, server, tmp_path, monkeypatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    put(tmp_path / "served/images.gz")
    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        replace(file, mirrors=(server[0],)).read()
    assert list((tmp_path / "cache/nestlearn/pictures").iterdir()) == []
