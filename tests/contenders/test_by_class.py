import pytest
import torch
from torch import nn

from nestlearn.contenders import CONTENDERS, find_contender, find_contenders
from nestlearn.contenders.by_class import optimizer_classes


def made(name: str, **settings) -> list[torch.optim.Optimizer]:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    return find_contender(name).make(model, 0.1, tables=[model[0].weight], elementwise_lr=0.2, **settings)


@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders_come_before_classes_of_the_same_name(name: str) -> None:
    assert find_contender(name.lower()) is CONTENDERS[name]


MATRICES_ONLY = {"torch.optim.Muon"}


@pytest.mark.parametrize("name", sorted(set(optimizer_classes()) - MATRICES_ONLY))
def test_every_class_can_be_named_and_put_on_a_model(name: str) -> None:
    (optimizer,) = made(name)
    assert type(optimizer) is optimizer_classes()[name] and optimizer.param_groups[0]["lr"] == 0.1
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_a_class_that_cannot_have_the_whole_model_says_so() -> None:
    with pytest.raises(ValueError, match="only supports 2D parameters"):
        made("torch.optim.Muon")


def test_ours_leave_tables_to_the_elementwise_rule() -> None:
    (optimizer,) = made("nl.optim.Muon")
    (group,) = optimizer.param_groups
    table, matrix = (optimizer.fresh_state(parameter, group) for parameter in group["params"][:2])
    assert group["elementwise_lr"] == 0.2
    assert any(name.startswith("second_moment") for name in table), "the table has no Adam"
    assert not any(name.startswith("second_moment") for name in matrix)


def test_short_and_full_names() -> None:
    assert find_contender("sgd").name == find_contender("torch.optim.SGD").name == "torch.optim.SGD"
    assert find_contender("AdamW") is CONTENDERS["AdamW"]
    assert find_contender("torch.optim.adamw").name == "torch.optim.AdamW"
    assert find_contender("nl.optim.Adam").name == "nestlearn.optim.Adam"
    with pytest.raises(ValueError, match="Did you mean 'RMSprop'"):
        find_contender("RMSpro")


def test_a_class_alone_has_no_grids_and_no_place_in_a_comparison() -> None:
    assert [contender.name for contender in find_contenders(["muon", "AdamW"])] == ["AdamW", "Muon"]
    with pytest.raises(ValueError, match="unknown optimizer 'SGD': expected one of Adam, AdamW"):
        find_contenders(["Muon", "SGD"])


def test_settings_are_those_of_the_signature_without_the_rates() -> None:
    assert find_contender("SGD").takes()["momentum"] == 0
    deep = find_contender("DeepMomentum2").takes()
    assert deep["hidden"] == 64 and {"retention", "weight_decay", "period", "skip_retention"} <= set(deep)
    assert find_contender("AdamW").takes() == {"retention": 0.9, "weight_decay": 0.0}
    for name in CONTENDERS:
        assert not {"lr", "params", "model", "elementwise", "elementwise_lr"} & set(find_contender(name).takes())
