"""What is a table and what a map, told from the structure of a model, or an error."""

from __future__ import annotations

import every_model
import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.optim import tables
from nestlearn.tasks.networks import ByteTransformer, VisionTransformer, digit_classifier


def names(model: nn.Module, **settings: object) -> set[str]:
    """The names of the tables."""
    found = set(map(id, tables(model, **settings)))
    return {name for name, parameter in model.named_parameters() if id(parameter) in found}


class Holder(nn.Module):
    """A module that holds whatever it is given."""

    def __init__(self, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)


@pytest.mark.parametrize("case", every_model.CASES)
def test_our_language_models_have_an_embedding_and_a_head(case: str) -> None:
    model = every_model.model(case)
    assert names(model) == {"embedding.weight", *([] if model.tied else ["head.weight"])}


@pytest.mark.parametrize("dim", [16, 64, 256])
def test_a_head_is_found_where_widths_are_those_of_the_vocabulary(dim: int) -> None:
    model = ByteTransformer(dim, 2, 2, 8)
    assert names(model) == {"tokens.weight", "positions.weight", "head.weight"}


def test_a_head_of_the_shape_of_an_embedding_is_found_although_a_layer_reads_its_width() -> None:
    block = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    model = Holder(embed=nn.Embedding(64, 16), block=block, out=nn.Linear(16, 64))
    assert names(model) == {"embed.weight", "out.weight"}


def test_networks_that_classify_end_in_a_table() -> None:
    assert names(digit_classifier()) == {"2.weight"}
    assert names(digit_classifier(), output=()) == set()
    vision = VisionTransformer(28, 7, 16, 2, 2)
    assert names(vision) == {"positions.weight", "head.weight"}
    convolutions = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 10))
    assert names(convolutions) == {"3.weight"}
    assert names(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1))) == {"2.weight"}  # a map of classes
    bags = Holder(bag=nn.EmbeddingBag(9, 8), out=nn.Linear(8, 3))
    assert names(bags) == {"bag.weight", "out.weight"}


def test_the_transformer_of_torch_has_no_output_layer_of_its_own() -> None:
    inner = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    with pytest.raises(ValueError, match=r"decoder\.layers\.0\.linear2, does not look like one\. Pass output="):
        tables(inner)
    assert names(inner, output=()) == set()
    whole = Holder(embed=nn.Embedding(40, 16), inner=inner, positions=torch.ones(8, 16), head=nn.Linear(16, 40))
    assert names(whole) == {"embed.weight", "positions", "head.weight"}
    assert names(nn.Sequential(whole)) == {"0.embed.weight", "0.positions", "0.head.weight"}


def test_a_layer_of_a_transformer_is_not_taken_for_an_output() -> None:
    with pytest.raises(ValueError, match="does not look like one"):
        tables(nn.TransformerEncoderLayer(16, 2, 24))
    with pytest.raises(ValueError, match="does not look like one"):
        tables(nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8)))  # as wide as what it reads
    with pytest.raises(ValueError, match="does not look like one"):
        tables(nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16)))  # an autoencoder


def test_two_outputs_are_asked_for() -> None:
    model = Holder(body=nn.Linear(6, 8), norm=nn.LayerNorm(8), policy=nn.Linear(8, 5), value=nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"it could be policy or value\. Pass output=, .* output=model\.head"):
        tables(model)
    assert names(model, output=[model.policy, "value"]) == {"policy.weight", "value.weight"}
    assert names(model, output=model.policy.weight) == names(model, output="policy.weight") == {"policy.weight"}
    gate = Holder(head=nn.Linear(8, 5), body=nn.Linear(8, 8), gate=nn.Linear(8, 2))  # the head is not the last
    with pytest.raises(ValueError, match="it could be head or gate"):
        tables(gate)


def test_a_replaced_layer_that_is_frozen_does_not_count_beside_its_heir() -> None:
    model = Holder(body=nn.Linear(6, 8), old=nn.Linear(8, 5).requires_grad_(False), new=nn.Linear(8, 5))
    assert names(model) == {"new.weight"}


def test_positions_and_tokens_are_told_by_shape_or_by_name() -> None:
    model = Holder(
        pos_embed=torch.ones(1, 5, 8),
        summary=torch.ones(1, 1, 8),  # one row for each of a batch
        relative_position_bias_table=torch.ones(9, 2),
        latents=torch.ones(4, 8),
        cls_token=torch.ones(8),
        position_proj=torch.ones(8, 8),
        compose=torch.ones(8, 8),
        experts=torch.ones(3, 8, 8),
        prompts=nn.ParameterList([torch.ones(1, 2, 8)]),
        attention=nn.MultiheadAttention(8, 2),
        filter=nn.Conv1d(1, 8, 3),
        memory=nn.LSTM(8, 8),
        head=nn.Linear(8, 5),
    )
    expected = {"pos_embed", "summary", "relative_position_bias_table", "latents", "prompts.0", "head.weight"}
    assert names(model) == expected


def test_what_is_tied_is_found_once() -> None:
    model = Holder(embed=nn.Embedding(9, 8), body=nn.Linear(8, 8), head=nn.Linear(8, 9))
    model.head.weight = model.embed.weight
    assert [tuple(each.shape) for each in tables(model)] == [(9, 8)]


def test_a_model_may_say_where_its_output_is() -> None:
    class Says(Holder):
        def get_classifier(self) -> object:
            return self.answer

    layers = {"head": nn.Linear(8, 5), "other": nn.Linear(8, 5), "body": nn.Linear(8, 8)}
    twice = Says(**layers)
    twice.answer = (twice.head, twice.other)
    assert names(twice) == {"head.weight", "other.weight"}
    assert names(Holder(inner=twice, loss=nn.CrossEntropyLoss())) == {"inner.head.weight", "inner.other.weight"}
    none = Says(body=nn.Linear(8, 8), answer=nn.Identity())
    assert names(none) == set()


def test_wrapped_models_have_the_same_tables() -> None:
    model = every_model.model("transformer")
    expected = list(map(id, tables(model)))
    assert list(map(id, tables(Holder(_orig_mod=model)))) == expected  # by torch.compile
    assert list(map(id, tables(Holder(model=nn.Sequential(model), loss=nn.CrossEntropyLoss())))) == expected


def test_what_output_names_has_to_be_there() -> None:
    model = digit_classifier()
    with pytest.raises(ValueError, match=r"output= has Linear\(.*\), which is no part"):
        tables(model, output=nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"output= has 1, which is no part of the model, or has no parameters"):
        tables(model, output="1")
    with pytest.raises(ValueError, match=r"no layer or parameter '2\.wieght'\. Did you mean '2\.weight'"):
        tables(model, output="2.wieght")
    with pytest.raises(TypeError, match="takes layers, parameters or names of them, got int"):
        tables(model, output=[3])


@pytest.mark.parametrize("given", ["parameters", "named_parameters"])
def test_elementwise_takes_them_with_names_or_without(given: str) -> None:
    model = ByteTransformer(16, 1, 2, 8)
    found = tables(model)
    optimizer = nl.optim.Muon(getattr(model, given)(), lr=0.02, elementwise=found, elementwise_lr=0.003)
    chosen = [name for name, parameter in model.named_parameters() if optimizer.is_elementwise(parameter)]
    assert chosen == ["tokens.weight", "positions.weight", "head.weight"]
    assert "by elementwise=" in repr(optimizer)


def test_frozen_tables_need_not_be_given_to_the_optimizer() -> None:
    model = digit_classifier()
    model[2].requires_grad_(False)
    nl.optim.Muon([each for each in model.parameters() if each.requires_grad], elementwise=tables(model))
    with pytest.raises(ValueError, match="of which no parameter was given"):
        nl.optim.Muon(model[2].parameters(), elementwise=[model[0].weight])
