"""The playground as a file: whole, small, and silent."""

import re

import pytest
from typer.testing import CliRunner

from nestlearn.cli import play as verb
from nestlearn.cli.main import build_entry
from nestlearn.play import page, write_page


def test_it_is_one_small_file_that_names_no_other():
    text = page()
    assert len(text.encode()) < 300_000
    assert "import {" not in text and "export " not in text and "{{" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert set(re.findall(r"https?://[^\s'\"]+", text)) == {"http://www.w3.org/2000/svg"}  # names of XML, not addresses


def test_only_its_own_script_and_style_may_run():
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page())
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "*" not in policy
    assert not re.search(r"\son[a-z]+=|\sstyle=", page())


def test_the_verb_writes_it_and_says_where(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(verb.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    call = CliRunner().invoke(build_entry(), ["play", "--out", str(tmp_path / "below" / "page.html")])
    assert call.exit_code == 0 and call.output.strip() == str(tmp_path / "below" / "page.html")
    assert (tmp_path / "below" / "page.html").read_text(encoding="utf-8") == page() and not opened


@pytest.mark.parametrize("screen", [True, False])
def test_the_verb_opens_it_where_there_is_a_screen(tmp_path, monkeypatch, screen):
    opened = []
    monkeypatch.setattr(verb.webbrowser, "open", opened.append)
    monkeypatch.setattr(verb, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(verb.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if screen:
        monkeypatch.setenv("DISPLAY", ":0")
    assert CliRunner().invoke(build_entry(), ["play"]).output.strip() == str(tmp_path / "playground.html")
    assert opened == ([(tmp_path / "playground.html").as_uri()] if screen else [])


def test_who_reads_a_file_that_is_written_anew_sees_the_old_one_whole(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("the page before")
    with file.open() as opened:
        write_page(file)
        assert opened.read() == "the page before"


def test_writing_makes_the_folder(tmp_path):
    assert write_page(tmp_path / "a" / "b.html").is_file()
