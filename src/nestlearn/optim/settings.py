"""The settings of an optimizer: the keywords that all share, groups that hold them, and names used elsewhere.

A parameter group is a dictionary, as in ``torch.optim``. What torch calls ``momentum`` is called ``retention`` here,
since it is the share of a memory that is kept; torch's cyclic schedulers write ``group["momentum"]``, so a group
answers to both names.
"""

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from torch import Tensor, nn, optim

from nestlearn.errors import did_you_mean

if TYPE_CHECKING:
    from _typeshed import SupportsKeysAndGetItem

__all__ = [
    "COMMON",
    "Common",
    "Elementwise",
    "Group",
    "Settings",
    "default_of",
    "hashable",
    "refuse_unknown",
    "structure",
]

Group = dict[str, Any]
"""A parameter group, or settings of one: whatever lies under a name, as in ``torch.optim``."""

_TORCHS = ("params", "param_names", "lr", "initial_lr")
"""Keys of a group that are no settings of a rule."""

Elementwise = Iterable[Tensor | nn.Module | str] | Callable[[str, Tensor], bool]


class Common(TypedDict, total=False):
    """Keywords that every optimizer takes.

    Keys:
        weight_decay: decoupled, as in AdamW: weights shrink by ``lr * weight_decay`` a step (default 0).
        maximize: climb instead of descend (default False).
        period: C of C4. Gradients of ``period`` steps are summed and written together (default 1).
        elementwise: matrices (embeddings, heads) that the element-wise rule should have, not the matrix rule:
            parameters, modules, or shell patterns of parameter names; or a function (name, parameter) -> bool.
        elementwise_lr: learning rate of the element-wise rule while ``lr`` is what it was when the group was made; it
            follows ``lr`` in proportion, under a scheduler say. None (default) means ``lr``.
        averaged_weights: retention of an average of the weights beside them, which ``eval()`` puts into the model and
            ``train()`` takes out again; 1 averages all of them alike. None (default) keeps none. It costs one more copy
            of the weights, and is ``nl.rules.averaged_weights`` behind whatever rule a parameter has.
        nonfinite: "raise" (default) stops with FloatingPointError at NaN or infinite gradients, before anything is
            written, which costs one read of the gradients and, on an accelerator, one synchronisation; "ignore" lets
            them in and warns once, on an accelerator one step later, where gradients are large within 32 steps.
        unreadable: what becomes of matrices whose rule looks at layers (``model=``) where nothing can be read: "raise"
            (default), or "elementwise", which gives them the element-wise rule and says so once.
        compile: torch.compile the element-wise rules that torch has no fused kernel for (default False).
    """

    weight_decay: float
    maximize: bool
    period: int
    elementwise: Elementwise | None
    elementwise_lr: float | None
    averaged_weights: float | None
    nonfinite: str
    unreadable: str
    compile: bool


COMMON: Mapping[str, object] = {
    "weight_decay": 0.0,
    "maximize": False,
    "period": 1,
    "elementwise_lr": None,
    "averaged_weights": None,
    "nonfinite": "raise",
}
"""The shared keywords that are settings of a group, with their defaults."""


Given: TypeAlias = "SupportsKeysAndGetItem[str, object] | Iterable[tuple[str, object]]"
"""What a dictionary can be updated with."""


class Settings(Group):
    """A parameter group, or the defaults of one, that answers to ``momentum`` where it holds a ``retention``.

    One value is kept, whoever writes it last, and saved as ``retention``. Where there are ``betas``, torch's schedulers
    write those, and ``momentum`` is nobody's name. The settings of a composed rule are kept by their paths, and the end
    of a path stands for it where no other ends alike: ``group["retention"]`` for ``"matrix.average.retention"``.
    """

    @staticmethod
    def of(values: Group, defaults: Group) -> "Settings":
        """``values`` as settings, under the names that ``defaults`` have.

        Raises:
            ValueError: the end of a path that more than one path has.
        """
        known, settings = Settings(defaults), Settings()
        for name, value in values.items():
            place = name if name in _TORCHS else known._name(name, strict=True)
            dict.__setitem__(settings, place, value)
        return settings

    def _name(self, name: str, *, strict: bool = False) -> str:
        """The key that a name stands for: itself, that of a momentum, or the only path that ends like it."""
        if dict.__contains__(self, name) or not isinstance(name, str):
            return name
        wanted = "retention" if name == "momentum" and not dict.__contains__(self, "betas") else name
        if dict.__contains__(self, wanted):
            return wanted
        paths = [key for key in self if isinstance(key, str) and key.endswith(f".{wanted}")]
        if len(paths) > 1 and strict:
            raise ValueError(f"the setting {name!r} could be any of {', '.join(paths)}: give its path")
        return paths[0] if len(paths) == 1 else name

    def __missing__(self, name: str) -> Any:
        wanted = self._name(name)
        if wanted == name:
            raise KeyError(name)
        return dict.__getitem__(self, wanted)

    def __setitem__(self, name: str, value: object) -> None:
        dict.__setitem__(self, self._name(name), value)

    def __contains__(self, name: object) -> bool:
        return dict.__contains__(self, self._name(name) if isinstance(name, str) else name)

    def get(self, name: str, default: object = None) -> Any:
        return dict.get(self, self._name(name), default)

    def setdefault(self, name: str, default: object = None) -> Any:
        return dict.setdefault(self, self._name(name), default)

    def pop(self, name: str, *default: object) -> Any:
        return dict.pop(self, self._name(name), *default)

    def __delitem__(self, name: str) -> None:
        dict.__delitem__(self, self._name(name))

    def __ior__(self, other: Given) -> "Settings":  # type: ignore[override, misc]
        self.update(other)
        return self

    def update(self, *others: Given, **more: object) -> None:
        for name, value in dict(*others, **more).items():
            self[name] = value


def default_of(optimizer: optim.Optimizer, name: str) -> object:
    """What a setting was before it existed: the default of the class, else what this optimizer was made with."""
    if name in COMMON:
        return COMMON[name]
    parameter = inspect.signature(type(optimizer).__init__).parameters.get(name)
    if parameter is None or parameter.default is inspect.Parameter.empty:
        return optimizer.defaults[name]
    return parameter.default


def structure(settings: Mapping[str, object]) -> dict[str, object]:
    """What of a rule's settings decides which memories it has and what it computes: all but the size of numbers."""
    return {name: _form(value) for name, value in settings.items()}


def hashable(value: object) -> Hashable:
    """Settings, which may lie in one another, as a key; what is no plain value is equal to itself alone."""
    if isinstance(value, Mapping):
        return tuple((name, hashable(item)) for name, item in value.items())
    if isinstance(value, tuple | list):
        return tuple(map(hashable, value))
    return value if isinstance(value, Hashable) else id(value)


def _form(value: object) -> object:
    if isinstance(value, tuple | list):
        return tuple(_form(item) for item in value)
    # A number of zero may leave out a memory, so zero is a form of its own.
    return (float, bool(value == 0)) if isinstance(value, float) else value


_CALLED_HERE = {
    "momentum": ("betas", "retention"),
    "betas": ("retention",),
    "beta": ("betas", "retention"),
    "beta1": ("betas", "retention"),
    "beta2": ("betas", "second_retention"),
    "alpha": ("retention",),
    "momentum_decay": ("retention",),
    "shampoo_beta": ("covariance_retention",),
    "ns_steps": ("steps",),
    "adjust_lr_fn": ("scale",),
    "precondition_frequency": ("refresh", "target_period"),
    "update_freq": ("refresh", "target_period"),
    "learning_rate": ("lr",),
    "wd": ("weight_decay",),
    "lambd": ("weight_decay",),
}
"""Names that other optimizers use, and what the same is called here, the first that an optimizer has."""

_NOT_NEEDED = {
    "foreach": "parameters of one shape are written in one batch anyway",
    "fused": "rules that torch has a fused kernel for are written by it anyway",
    "capturable": "step counts stay on the CPU",
    "differentiable": "a step is no part of a graph; nl.memory has writes that are",
    "amsgrad": "there is no such memory here",
    "dampening": "averages here weigh a new gradient with 1 - retention, sums with 1",
    "ns_coefficients": "Newton-Schulz has its own",
    "decoupled_weight_decay": "decay is always decoupled",
    "momentum": "nothing is remembered here",
    "betas": "nothing is remembered here",
}


def refuse_unknown(who: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for a keyword that an optimizer does not have, with the name used here.

    Args:
        who: name of the optimizer.
        given: keywords that nobody has taken.
        known: the keywords that it has.
    """
    known = sorted(known)
    for name in sorted(given):
        here = next((word for word in _CALLED_HERE.get(name, ()) if word in known), None)
        if here is not None:
            hint = f": it is called {here} here"
        elif name in _NOT_NEEDED:
            hint = f": {_NOT_NEEDED[name]}, leave it out"
        else:
            hint = f".{did_you_mean(name, known)}"
        raise TypeError(f"{who}() got an unexpected keyword argument {name!r}{hint}")
