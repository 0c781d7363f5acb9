"""Which parameters of a model are tables rather than maps: embeddings, positions, class tokens, the output layer.

A row of a table is looked up or added, and the row of an output layer is one answer, so their rows have little to do
with one another; rules for matrices, which mix rows, serve them badly. They are found by structure:

- *Embeddings*: what ``nn.Embedding`` and ``nn.EmbeddingBag`` hold, tied to the output layer or not.
- *Positions and tokens*: parameters of no layer of torch's that stand for one row of a batch, [1, ..., n, d], and
  others of two dimensions or more whose name says what they are: ``pos_embed``, ``relative_position_bias_table``,
  ``latents``.
- The *output layer*: what ``get_output_embeddings()`` (transformers, our models) or ``get_classifier()`` (timm) names;
  a layer that has the weight of an embedding; else the one layer at whose answer the model ends, see `_last`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

from nestlearn.errors import did_you_mean
from nestlearn.optim.readable import Convolution, is_turned, weight_of

__all__ = ["Output", "tables"]

Output = nn.Module | Tensor | str | Iterable[nn.Module | Tensor | str]
"""Layers, parameters, or names of either."""


def tables(model: nn.Module, *, output: Output | None = None) -> list[Tensor]:
    """The parameters that should follow the rule for single entries: what ``elementwise=`` takes.

    Args:
        model: whose parameters they are. Call it when the optimizer is made: after parameters were replaced (by
            sharding, by adapters), if any are.
        output: the layer that gives the answer, where the model has it somewhere else than where it is looked for: a
            module, a parameter, the name of one, or several of them; ``()`` for a model without such a layer, which
            gives what it has computed inside.

    Returns:
        Parameters of two dimensions or more, each once, in the order of ``model.parameters()``; frozen ones too, which
        an optimizer need not be given. What has one dimension follows the rule for single entries anyway.

    Raises:
        ValueError: the output layer cannot be told for sure, or ``output`` is no part of the model.

    Example:
        >>> import nestlearn as nl
        >>> model = nl.models.transformer(256, dim=16, depth=1, heads=2)
        >>> len(tables(model))  # the embedding and the head
        2
        >>> optimizer = nl.optim.Muon(model.parameters(), lr=0.02, elementwise=tables(model), elementwise_lr=0.003)

    What it takes for a table is a list like any other: ``[*tables(model), model.more]`` has more.
    """
    found = [*_embeddings(model), *_positions(model)]
    given = _answering(model, found) if output is None else _named(model, output)
    chosen = {id(parameter) for parameter in (*found, *given)}
    return [p for p in model.parameters() if id(p) in chosen and p.ndim >= 2]


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield from module.parameters()


def _positions(model: nn.Module) -> Iterator[Tensor]:
    """Parameters of modules that are no layers, shaped or called like rows that are looked up or added."""
    for module in model.modules():
        if _is_torchs(module):
            continue
        for name, parameter in _bare(module):
            one_of_a_batch = parameter.ndim >= 3 and parameter.shape[0] == 1
            if one_of_a_batch or (parameter.ndim >= 2 and _says_table(name)):
                yield parameter


def _bare(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters that a module holds itself, or in lists and dictionaries of parameters, with their names."""
    yield from module.named_parameters(recurse=False)
    for name, child in module.named_children():
        if isinstance(child, nn.ParameterList | nn.ParameterDict):
            yield from ((name, parameter) for parameter in child.parameters())


def _is_torchs(module: nn.Module) -> bool:
    """Whether torch says what the parameters of a module are for: weights of a layer."""
    return type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.Linear | Convolution)


def _says_table(name: str) -> bool:
    """Whether a name such as ``pos_embed`` ends like a table and not like a map, as ``position_proj`` does."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    if not words or words[-1] in _MAPS:
        return False
    return words[-1] in _TABLES or any(word == "pos" or word.startswith(("position", "embed")) for word in words)


_TABLES = ("token", "tokens", "latent", "latents", "table")
_MAPS = ("weight", "kernel", "proj", "projection", "matrix")


def _named(model: nn.Module, output: Output) -> list[Tensor]:
    """The parameters of the layers that somebody names."""
    several = [output] if isinstance(output, nn.Module | Tensor | str) else list(output)
    own = {id(parameter) for parameter in model.parameters()}
    found: list[Tensor] = []
    for item in several:
        parameters = _parameters(model, item)
        if not parameters or any(id(parameter) not in own for parameter in parameters):
            what = "a parameter" if isinstance(item, Tensor) else str(item)
            raise ValueError(f"tables: output= has {what}, which is no part of the model, or has no parameters")
        found += parameters
    return found


def _parameters(model: nn.Module, item: nn.Module | Tensor | str) -> list[Tensor]:
    if isinstance(item, str):
        places = dict(model.named_modules(remove_duplicate=False))
        places.pop("", None)
        known: dict[str, nn.Module | Tensor] = {**places, **dict(model.named_parameters(remove_duplicate=False))}
        if item not in known:
            raise ValueError(f"tables: the model has no layer or parameter {item!r}.{did_you_mean(item, known)}")
        return _parameters(model, known[item])
    if isinstance(item, nn.Module):
        return list(item.parameters())
    if isinstance(item, Tensor):
        return [item]
    raise TypeError(f"tables: output= takes layers, parameters or names of them, got {type(item).__name__}")


def _answering(model: nn.Module, found: list[Tensor]) -> list[Tensor]:
    """The parameters of the layer that gives the answer, wherever it is said or can be told."""
    said = _said(_unwrapped(model))
    if said is not None:
        return [parameter for layer in said for parameter in layer.parameters()]
    layers = _layers(model)
    if not layers:
        return []
    tied = {id(parameter) for parameter in found}
    if any(id(weight_of(layer)) in tied for layer in layers.values()):
        return []  # found as the embedding
    return list(_last(model, layers).parameters())


def _unwrapped(model: nn.Module) -> nn.Module:
    """What a module holds that has nothing besides: a module is often wrapped, to be compiled or replicated."""
    while not _says(model):
        holding = [child for child in model.children() if any(True for _ in child.parameters())]
        if len(holding) != 1 or any(True for _ in model.parameters(recurse=False)):
            break
        model = holding[0]
    return model


def _says(model: nn.Module) -> bool:
    return any(callable(getattr(model, name, None)) for name in ("get_output_embeddings", "get_classifier"))


def _said(model: nn.Module) -> list[nn.Module] | None:
    """The output layers that a model names itself; None if it names none, which need not mean that it has none."""
    ask: Callable[[], object] | None = getattr(model, "get_output_embeddings", None)
    if callable(ask):
        layer = ask()
        return [layer] if isinstance(layer, nn.Module) else None
    ask = getattr(model, "get_classifier", None)
    if callable(ask):
        given = ask()  # a pair where a distilled model has two; nn.Identity where it has none
        several = given if isinstance(given, tuple | list) else [given]
        return [layer for layer in several if isinstance(layer, nn.Module)]
    return None


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers and convolutions by their names, in the order in which they were registered."""
    return {name: layer for name, layer in model.named_modules() if _is_layer(layer)}


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Convolution) or is_turned(module)


def _last(model: nn.Module, layers: dict[str, nn.Module]) -> nn.Module:
    """The one layer at whose answer a model ends.

    It lies in no block (a module that stands in a list, or beside others of its class), and nothing in the model takes
    an answer as wide as its own: no layer reads that width, no norm or other parameter has it. Or it is as large as an
    embedding, whose rows it compares with. There has to be exactly one such layer, and the last to be registered; a
    frozen one, which an adapter has replaced, does not count beside one that is trained.

    Raises:
        ValueError: it is not so.
    """
    blocks = tuple(f"{name}." for name in _blocks(model))
    shapes, taken = {tuple(weight.shape) for weight in _embeddings(model)}, _taken(model)
    ends, last = [], list(layers)[-1]
    for name, layer in layers.items():
        reads, gives = _widths(layer)
        rows = name == last and (gives, reads) in shapes and gives != reads
        if not f"{name}.".startswith(blocks) and (rows or gives not in taken):
            ends.append(name)
    trained = [name for name in ends if weight_of(layers[name]).requires_grad]
    ends = trained or ends
    if ends == [last]:
        return layers[last]
    seen = f"it could be {' or '.join(ends)}" if ends else f"the last layer, {last}, does not look like one"
    raise ValueError(
        f"tables: cannot tell the output layer of {type(model).__name__}: {seen}. Pass output=, the layer or layers "
        "that give the answer, such as output=model.head, or output=() where there is none"
    )


def _blocks(model: nn.Module) -> Iterator[str]:
    """The names of the modules that are parts of a repetition."""
    for name, module in model.named_modules():
        children = dict(module.named_children())
        kinds = Counter(type(child) for child in children.values() if any(True for _ in child.children()))
        del kinds[nn.Sequential]  # says nothing of what is in it
        for own, child in children.items():
            if isinstance(module, nn.ModuleList) or kinds[type(child)] > 1:
                yield f"{name}.{own}" if name else own


def _widths(layer: nn.Module) -> tuple[int, int]:
    """How wide what a layer reads is, and its answer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Convolution):
        return layer.in_channels, layer.out_channels
    reads, gives = weight_of(layer).shape
    return reads, gives


def _taken(model: nn.Module) -> set[int]:
    """The widths that anything in a model reads or has; the channels of images are none of them."""
    tables = {id(parameter) for parameter in (*_embeddings(model), *_positions(model))}
    found: set[int] = set()
    first = next(iter(_layers(model).values()))
    for module in model.modules():
        if _is_layer(module):
            if module is not first or not isinstance(module, Convolution):
                found.add(_widths(module)[0])
            continue
        for parameter in module.parameters(recurse=False):
            found.update(parameter.shape[-1:] if id(parameter) in tables else parameter.shape)
    return found
