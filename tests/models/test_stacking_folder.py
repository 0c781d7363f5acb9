"""A stacked model as a folder (C5): what is written is loaded, and whatever else lies there is one error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from needed import needs
from tiny_llama import tiny_llama
from torch import Tensor

import nestlearn as nl
from nestlearn.errors import MissingPackageError, SettingsError
from nestlearn.models import add_continuum, load_stacked
from nestlearn.models.stacking_settings import read_settings

SETTINGS: dict[str, Any] = {
    "periods": [4, 8],
    "inner_lr": 0.3,
    "blocks": [1, 2],
    "matrices": ["up", "down"],
    "writer": {"chain": {"links": [{"average": {"retention": 0.5}}, {"orthogonal": {}}]}},
    "retention": 0.9,
    "rank": 3,
    "gate": 0.1,
    "objective": "next_token",
    "seed": 5,
}


def text(time: int, batch: int = 1) -> Tensor:
    return torch.randint(40, (batch, time), generator=torch.Generator().manual_seed(1))


def stacked(**settings: Any) -> Any:
    model = tiny_llama()
    add_continuum(model, **settings)
    return model


def plain(folder: Path, content: str = "{}") -> Path:
    tiny_llama().save_pretrained(folder)
    (folder / "continuum.json").write_text(content, encoding="utf-8")
    return folder


def test_what_is_saved_reads_as_it_did(tmp_path: Path) -> None:
    needs("transformers")
    from nestlearn.models.huggingface import tokenizer_of

    writer = nl.rules.from_data(SETTINGS["writer"])
    model = stacked(**{**SETTINGS, "writer": writer})
    assert model.continuum.settings == SETTINGS
    before = model(text(21, 2)).logits
    model.continuum.save(tmp_path / "state")
    model.continuum.save_pretrained(tmp_path / "deep" / "mine", tokenizer_of())
    assert json.loads((tmp_path / "deep" / "mine" / "continuum.json").read_text(encoding="utf-8")) == SETTINGS
    after = model(text(9, 2)).logits
    again, tokenizer = load_stacked(tmp_path / "deep" / "mine")
    assert tokenizer("ab", add_special_tokens=False)["input_ids"] == [97, 98]
    assert again.continuum.settings == SETTINGS and again.continuum.time == 0 and not again.training
    close = {"rtol": 0, "atol": 1e-14}  # weights out of a file lie elsewhere in memory, where sums may round otherwise
    torch.testing.assert_close(again(text(21, 2)).logits, before, **close)
    again.continuum.load(tmp_path / "state")  # the weights and the directions are the same
    torch.testing.assert_close(again(text(9, 2)).logits, after, **close)
    again.continuum.remove()
    for name, weight in tiny_llama().state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)


def test_a_file_written_by_hand_names_what_it_changes(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine", '{"blocks": 2, "writer": "muon(0.9)"}')
    model, tokenizer = load_stacked(folder)
    expected = stacked(blocks=2, writer=nl.rules.muon(0.9)).continuum.settings
    assert model.continuum.settings == expected and tokenizer is None
    (folder / "continuum.json").write_text('{"blocks": 1, "writer": null}')
    assert load_stacked(folder)[0].continuum.settings == stacked(blocks=1).continuum.settings


def test_type_and_place_are_chosen(tmp_path: Path) -> None:
    model, _ = load_stacked(plain(tmp_path / "mine", '{"blocks": 1}'), dtype=torch.float32, device="cpu")
    assert model(text(3)).logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"period": 4}', r"continuum.json: unknown setting 'period': .* Did you mean 'periods'"),
        ('{"periods": true}', "periods: expected a whole number or a list of them, got True"),
        ('{"periods": [4, "8"]}', "periods: expected a whole number or a list"),
        ('{"inner_lr": "fast"}', r"inner_lr: expected a number up to 1e\+30, got 'fast'"),
        ('{"inner_lr": 1e999}', r"inner_lr: expected a number up to 1e\+30, got inf"),
        ('{"inner_lr": -1.0}', "at least 0"),
        ('{"blocks": 1000000000000}', "from 0 to 2"),
        ('{"matrices": "down"}', "matrices: expected a list of names"),
        ('{"writer": "adam"}', "writer: 'adam' in 'adam' is neither"),
        ('{"writer": {"momentun": {}}}', "writer: unknown rule 'momentun'"),
        ('{"writer": {"os:system": {}}}', "writer: 'os:system' is somebody's own"),
        ('{"writer": {"parallel": {"rules": [{"gradient": {}}], "combine": "os:system"}}}', "somebody's own"),
        ('{"writer": "parallel(gradient(), combine=\'os:system\')"}', "somebody else's"),
        ('{"writer": {"delta_inputs": {}}}', "nobody here measures"),
        (json.dumps({"writer": {"chain": {"links": [{"average": {}}] * 33}}}), "at most 32 parts"),
        (
            '{"writer": "parallel(gradient(), gradient(), weights=(1, 1e999))"}',
            r"expected numbers up to 1e\+30, got inf",
        ),
        ('{"rank": 1e3}', "rank: expected a whole number or null"),
        ('{"seed": 9007199254740992}', "seed: expected a whole number"),
        ("[]", "expected a JSON object"),
        ('{"blocks": NaN}', "expected JSON"),
        ("[" * 9000, "nested too deeply"),
        ("{" + " " * 70000 + "}", "expected at most 65,536 bytes"),
        ("{", "line 1: expected JSON"),
    ],
)
def test_what_no_settings_are_is_one_error(tmp_path: Path, content: str, words: str) -> None:
    folder = plain(tmp_path / "mine", content)
    with pytest.raises(SettingsError, match=words) as caught:
        load_stacked(folder)
    assert str(folder) in str(caught.value) and len(str(caught.value)) < 2000


def test_a_folder_that_is_none_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        load_stacked(tmp_path / "none")
    with pytest.raises(SettingsError, match=r"no continuum\.json; {} in it takes the defaults"):
        load_stacked(tmp_path)
    (tmp_path / "continuum.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"expected a config\.json beside"):
        load_stacked(tmp_path)
    folder = plain(tmp_path / "mine")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="cannot load the model"):  # a pickle is not read
        load_stacked(folder)
    (folder / "continuum.json").unlink()
    os.mkfifo(folder / "continuum.json")
    with pytest.raises(SettingsError, match="no regular file"):
        load_stacked(folder)


@pytest.mark.parametrize("kind", ["llama", "evil"])
def test_code_in_the_folder_is_not_run(tmp_path: Path, kind: str) -> None:
    needs("transformers")
    from nestlearn.models.huggingface import tokenizer_of

    folder = tmp_path / "mine"
    stacked(blocks=1).continuum.save_pretrained(folder, tokenizer_of())
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        held = json.loads((folder / name).read_text())
        told = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
        held |= {"auto_map": told, "model_type": kind, "tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(held))
    with pytest.raises(SettingsError, match="cannot load the model"):
        load_stacked(folder)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    folder = plain(tmp_path / "mine")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(SettingsError, match="holds an adapter: expected a whole model"):
        load_stacked(folder)


def test_a_folder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = plain(tmp_path / "mine")
    held = load_file(folder / "model.safetensors")
    held.pop("model.layers.2.mlp.down_proj.weight")
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingsError, match=r"lacks the weights .*down_proj"):
        load_stacked(folder)


def test_a_model_without_such_blocks_is_refused(tmp_path: Path) -> None:
    needs("transformers")
    from nestlearn.models.huggingface import NestlearnForCausalLM

    NestlearnForCausalLM.of(nl.models.transformer(40, 8, 1, 2)).save_pretrained(tmp_path)
    (tmp_path / "continuum.json").write_text("{}")
    with pytest.raises(SettingsError, match="does not fit the model: TypeError: expected a model whose blocks"):
        load_stacked(tmp_path)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stacked(blocks=1)
    (tmp_path / "empty").mkdir()
    model.continuum.save_pretrained(tmp_path / "empty")
    kept = sorted(path.name for path in (tmp_path / "empty").iterdir())
    assert {"config.json", "continuum.json", "model.safetensors"} <= set(kept)
    with pytest.raises(FileExistsError, match="expected a folder that is empty or not there yet"):
        model.continuum.save_pretrained(tmp_path / "empty")

    def full(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        model.continuum.save_pretrained(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_who_may_look_into_a_folder_is_for_the_umask_to_say(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        stacked(blocks=1).continuum.save_pretrained(tmp_path / "mine")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        (nl.memory.GradientDescent(), "expected a rule of nl.rules, which can be written down, got GradientDescent"),
        (nl.rules.parallel(nl.rules.gradient(), combine="statistics:mean"), "what is in the library alone"),
    ],
)
def test_a_writer_that_no_file_can_hold_is_said_before_anything_is_written(
    tmp_path: Path, writer: Any, words: str
) -> None:
    model = stacked(blocks=1, writer=writer)
    with pytest.raises(TypeError, match=words):
        model.continuum.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_without_transformers_the_message_has_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    folder = plain(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert read_settings(folder / "continuum.json") == {}
    with pytest.raises(MissingPackageError, match=r'pip install "nestlearn\[hf\]"'):
        load_stacked(folder)
