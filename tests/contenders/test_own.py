"""An optimizer of one's own, from a module in the working directory to its place in a comparison."""

import pytest
import torch

from nestlearn.contenders import find_contender, find_contenders
from nestlearn.tasks import DigitsTask

MODULE = '''
import torch

def plain(named_parameters, lr=0.3):
    """Steps downhill."""
    return torch.optim.SGD(named_parameters, lr)

def remembers(named_parameters, lr=0.1, *, retention=0.9, weight_decay=0.0, inner_lr=0.2, memory=True):
    return torch.optim.SGD(named_parameters, lr, momentum=retention if memory else 0.0, weight_decay=weight_decay)

def shy(named_parameters, lr):
    return torch.optim.SGD(named_parameters, lr)

number = 3
'''


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    name = "my_optimizers_for_this_test"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_its_signature_says_what_is_tuned_and_what_the_control_is(module) -> None:
    plain, remembers = find_contender(f"{module}:plain"), find_contender(f"{module}:remembers")
    assert (plain.lr, plain.tuned, plain.control, plain.about) == (0.3, (), None, "Steps downhill.")
    assert remembers.tuned == ("retention", "weight_decay", "inner_lr") and remembers.inner_lr == 0.2
    assert remembers.control == {"memory": False} and remembers.control_tuned == ("retention", "weight_decay")
    chosen = find_contenders([f"{module}:plain", "muon"])
    assert [contender.name for contender in chosen] == ["Muon", f"{module}:plain"]


def test_it_gets_the_hidden_matrices_and_adam_the_rest(module) -> None:
    model = DigitsTask().build(0)
    own, adam = find_contender(f"{module}:plain").make(model, 0.3, tables=[], elementwise_lr=1e-2)
    assert isinstance(own, torch.optim.SGD)
    assert [tuple(p.shape) for p in own.param_groups[0]["params"]] == [(128, 64), (10, 128)]
    assert [tuple(p.shape) for p in adam.param_groups[0]["params"]] == [(128,), (10,)]


def test_a_class_of_torch_will_do() -> None:
    rmsprop = find_contender("torch.optim:RMSprop")
    assert rmsprop.lr == 0.01 and rmsprop.tuned == ("weight_decay",) and rmsprop.about


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:shy", "expected an argument `lr` with a default above zero"),
        ("{}:number", "no function 'number' for the optimizer"),
        ("{}:nothing", "no function 'nothing'"),
        ("no_such_module_at_all:make", "cannot import the module of the optimizer"),
    ],
)
def test_what_cannot_be_used_is_a_clear_error(module, name, message) -> None:
    with pytest.raises(ValueError, match=message):
        find_contender(name.format(module))
