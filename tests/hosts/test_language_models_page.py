"""docs/huggingface.md: its examples run, on the folder of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from needed import needs
from page_code import run_page
from pages import text
from trained_hope import train_hope


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("transformers", "accelerate", "peft")
    train_hope(tmp_path / "runs" / "hope")
    monkeypatch.chdir(tmp_path)
    found = run_page(text("docs/huggingface.md"), "huggingface.md")
    held = {path.name for path in (tmp_path / "hope").iterdir()}
    assert held >= {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert found["answers"].shape == (2, 35) and (tmp_path / "memory.safetensors").is_file()
