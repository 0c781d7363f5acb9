"""What a run keeps of its language model: enough to make it again, and nothing where that would be another."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn

import nestlearn as nl
from nestlearn.models import MODELS, LanguageModel
from nestlearn.tasks.networks import ByteTransformer
from nestlearn.training.kept import keep, kept_model, kept_tokenizer
from nestlearn.training.run_folder import RunFolderError

ALL = {name: lambda name=name: MODELS[name](300, 16, 1, 2) for name in MODELS}
ALL |= {"next token": lambda: nl.models.hope(256, 16, 1, 2, objective="next_token")}
ALL |= {"tied": lambda: nl.models.titans(300, 16, 1, 2, tied=True), "plain": lambda: ByteTransformer(16, 1, 2, 8)}


@pytest.mark.parametrize("name", ALL)
def test_every_language_model_is_made_again_from_data(name, tmp_path):
    model = ALL[name]()
    keep(tmp_path, model)
    again = kept_model(tmp_path, model.state_dict(), "cpu", torch.float64)
    tokens = torch.randint(256, (1, 8))
    assert type(again) is type(model) and again.embedding.weight.dtype == torch.float64
    assert again(tokens).equal(model.double()(tokens))
    assert kept_tokenizer(tmp_path) is None


class Louder(LanguageModel):
    def forward(self, *given, **named):
        return 2 * super().forward(*given, **named)


class Named(LanguageModel):
    """Only made in another way."""

    def __init__(self):
        super().__init__(256, 16, [[("attention", {"heads": 2})]])


def test_what_data_cannot_say_is_not_kept(tmp_path):
    changed = nl.models.titans(256, 16, 1, 2)
    changed.head = nn.Sequential(nn.Linear(16, 256))
    for model in (nn.Linear(2, 2), changed, Louder(256, 16, [])):
        keep(tmp_path, model)
        assert list(tmp_path.iterdir()) == [] and kept_model(tmp_path, {}, "cpu", torch.float32) is None
    keep(tmp_path, Named())
    assert kept_model(tmp_path, Named().state_dict(), "cpu", torch.float32) is not None


def test_the_tokenizer_that_a_model_names_is_kept_with_it(tmp_path):
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "mine.json"))
    model = nl.models.transformer(1, 16, 1, 2)
    model.tokenizer = str(tmp_path / "mine.json")
    folder = tmp_path / "run"
    folder.mkdir()
    keep(folder, model)
    assert kept_tokenizer(folder).read_bytes() == (tmp_path / "mine.json").read_bytes()
    model.tokenizer = str(tmp_path / "gone.json")
    with pytest.raises(RunFolderError, match=r"cannot keep the tokenizer .*gone\.json"):
        keep(folder, model)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe", b"{", b"[]", b"{}", b'{"format": "nestlearn model 1", "kind": "Linear"}',
        json.dumps({"format": "nestlearn model 1", "kind": "LanguageModel", "config": {"dim": 16}}).encode(),
        json.dumps({"format": "nestlearn model 1", "kind": "LanguageModel", "config": 3}).encode(),
        json.dumps({"format": "nestlearn model 1", "kind": ["LanguageModel"], "config": {}}).encode(),
    ],
)  # fmt: skip
def test_a_broken_file_is_said_with_its_name(tmp_path, content):
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"model\.json"):
        kept_model(tmp_path, {}, "cpu", torch.float32)


def test_weights_of_another_model_allocate_nothing(tmp_path):
    keep(tmp_path, nl.models.transformer(256, 16, 1, 2))
    content = json.loads((tmp_path / "model.json").read_text())
    content["config"]["dim"] = 10**6 * 2  # a head of 2 GB, attention of 16 TB
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(RuntimeError, match=r"size mismatch for embedding\.weight"):
        kept_model(tmp_path, nl.models.transformer(256, 16, 1, 2).state_dict(), "cpu", torch.float32)
