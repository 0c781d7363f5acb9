"""The language models of `nestlearn.models` as models of transformers: whoever imports this module can load them.

    import nestlearn.models.huggingface                     # from here on AutoModelForCausalLM knows them

    model = AutoModelForCausalLM.from_pretrained("hope")
    model.generate(**tokenizer(["Fellow citizens"], return_tensors="pt"), max_new_tokens=50)

``model.model`` is the `LanguageModel`, with its weights under its own names; the rest of this file is what transformers
asks beyond it. The cache is the state (`StateCache`). A mask says which tokens count: the others are not read and write
nothing, so a batch that is filled up on the left continues each text as it would alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nestlearn.errors import MissingPackageError
from nestlearn.models.huggingface_cache import StateCache
from nestlearn.models.huggingface_card import card
from nestlearn.models.huggingface_tokenizer import tokenizer_of
from nestlearn.models.language_model import LanguageModel

__all__ = ["NestlearnConfig", "NestlearnForCausalLM", "Run", "StateCache", "tokenizer_of"]

try:
    transformers: Any = import_module("transformers")
except ModuleNotFoundError as error:
    raise MissingPackageError(
        'nestlearn.models.huggingface needs transformers: pip install "nestlearn[hf]"', name=error.name
    ) from error

CausalLMOutput: Any = import_module("transformers.modeling_outputs").CausalLMOutputWithPast
# ``past_key_values`` in the first versions of transformers 5; an output of another name is dropped without a word.
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutput)} else "past_key_values"
FOR_THE_LOSS = ("num_items_in_batch",)


class Run(Protocol):
    """What `NestlearnForCausalLM.from_run` takes, as `nestlearn.training.load_trained` returns it."""

    @property
    def model(self) -> nn.Module:
        """The trained model."""

    @property
    def tokenizer(self) -> Path | None:
        """The file of its vocabulary; None for bytes."""


class NestlearnConfig(transformers.PreTrainedConfig):  # type: ignore[misc]
    """The arguments of a `LanguageModel`, as ``config.json`` holds them.

    Args:
        vocab_size, dim, blocks, tied: of the model; without ``blocks`` it has none and tells by the embedding alone.
        use_cache: whether a forward pass that is neither training nor given labels returns what it has read.
        **settings: of every configuration of transformers.

    Example:
        >>> import nestlearn as nl
        >>> config = NestlearnConfig(**nl.models.hope(256, 16, 1, 2).config)
        >>> config.hidden_size, config.num_hidden_layers
        (16, 1)
    """

    model_type = "nestlearn"
    attribute_map = {"dim": "hidden_size", "tied": "tie_word_embeddings"}  # noqa: RUF012 - transformers' own form
    keys_to_ignore_at_inference = ["cache", "past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 256,
        dim: int = 128,
        blocks: Any = (),
        tied: bool = False,
        use_cache: bool = True,
        **settings: Any,
    ) -> None:
        # In config.json two have the names that tools for transformers look for, and what follows from the blocks too.
        told = {"hidden_size": dim, "tie_word_embeddings": tied, "num_hidden_layers": 0, "num_attention_heads": 0}
        dim, tied, *_ = (settings.pop(name, value) for name, value in told.items())
        super().__init__(**settings)
        self.vocab_size, self.hidden_size, self.tie_word_embeddings = vocab_size, dim, tied
        self.blocks = [[[name, dict(chosen)] for name, chosen in block] for block in blocks]
        self.num_hidden_layers, self.use_cache = len(self.blocks), use_cache
        heads = [chosen["heads"] for block in self.blocks for _, chosen in block if "heads" in chosen]
        self.num_attention_heads = heads[0] if heads else 1

    @property
    def arguments(self) -> dict[str, Any]:
        """``LanguageModel(**config.arguments)`` is the model with new weights."""
        return {
            "vocab_size": self.vocab_size,
            "dim": self.hidden_size,
            "blocks": self.blocks,
            "tied": self.tie_word_embeddings,
        }


class NestlearnForCausalLM(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[misc]
    """A `LanguageModel` with the forward pass, ``generate``, saving and loading of transformers.

    Args:
        config: of the architecture; the weights are new. `of` and `from_run` take a model that is there.

    Attributes:
        model: the `LanguageModel`.

    Example:
        >>> import nestlearn as nl
        >>> model = NestlearnForCausalLM.of(nl.models.hope(256, 16, 1, 2))
        >>> model.generate(torch.tensor([[72, 105]]), max_new_tokens=3, do_sample=False).shape
        torch.Size([1, 5])
    """

    config_class = NestlearnConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _is_stateful = True  # what was read cannot be taken back, so drafts of an assistant are refused
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = LanguageModel(**config.arguments)
        self.post_init()

    @classmethod
    def of(cls, model: LanguageModel) -> Any:
        """A model that is there, with the very weights that it has.

        Raises:
            TypeError: another class, whose methods transformers could not be told of.
        """
        if type(model) is not LanguageModel:
            raise TypeError(f"expected a nestlearn.models.LanguageModel, got {type(model).__name__}")
        with torch.device("meta"):
            found = cls(NestlearnConfig(**model.config))
        found.model = model
        found.config.dtype = model.embedding.weight.dtype
        return found.train(model.training)

    @classmethod
    def from_run(cls, run: Run) -> Any:
        """The model of a run folder, from ``nestlearn.training.load_trained(folder)``.

        Raises:
            TypeError: the run trained something else than a `LanguageModel`; the message says which run does instead.
        """
        if type(run.model) is not LanguageModel:
            raise TypeError(
                f"expected a run that trained a nestlearn.models.LanguageModel, got one of a {type(run.model).__name__}"
                f"{_why_not(run.model)}. Of the tasks on text all networks but 'transformer' are one; the nearest to "
                "it is trained with --set task.network=rotary"
            )
        found = cls.of(run.model)
        found.generation_config.pad_token_id = tokenizer_of(run.tokenizer).pad_token_id
        return found

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """As everywhere in transformers, but a folder that lacks a weight is refused: nobody wants random ones.

        Raises:
            ValueError: a weight is missing, or none of the model's.
        """
        folder = pretrained_model_name_or_path
        model, info = super().from_pretrained(folder, *args, output_loading_info=True, **kwargs)
        wrong = {kind: sorted(map(str, info.get(f"{kind}_keys", ()))) for kind in ("missing", "unexpected")}
        if any(wrong.values()):
            raise ValueError(f"{folder}: expected the weights that its config.json says, got {wrong}")
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As everywhere in transformers, with a model card where there is none."""
        readme = Path(save_directory) / "README.md"
        if not readme.exists() and kwargs.get("is_main_process", True):
            readme.parent.mkdir(parents=True, exist_ok=True)
            count = sum(each.numel() for each in self.model.parameters())
            readme.write_text(card(self.config.arguments, count, self.dtype), encoding="utf-8")
        super().save_pretrained(save_directory, *args, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        cache: StateCache | None = None,
        past_key_values: StateCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **others: Any,
    ) -> Any:
        """Logits, with labels the loss, and with ``use_cache`` the cache.

        Args:
            input_ids: tokens [batch, time].
            attention_mask: [batch, time] or, with a cache, of all columns that were ever read; 0 for what fills up.
            inputs_embeds: [batch, time, dim] in the place of tokens.
            labels: tokens [batch, time], -100 for those that are not judged.
            cache: what was read before, written in place; ``past_key_values`` in earlier versions of transformers.
            use_cache: whether to return it; None for what the configuration says, and not in training nor with labels.
            logits_to_keep: of so many of the last tokens, or of these places [n]; 0 for all.
            return_dict: False for a tuple.

        Raises:
            TypeError: another cache, an argument that no model of this library has.
            ValueError: what the model cannot do or give; what `LanguageModel` raises.
        """
        self._check(others)
        cache = _one(cache, past_key_values)
        given = input_ids if inputs_embeds is None else inputs_embeds
        time = 0 if given is None else given.shape[1]
        mask = attention_mask
        if mask is not None and mask.ndim == 2 and cache is not None:
            mask = mask[:, -time:]  # of the columns before these nothing is left to decide
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and labels is None
        read = {"inputs_embeds": inputs_embeds, "mask": mask}
        if use_cache or cache is not None:
            cache = StateCache() if cache is None else cache
            logits, cache.state = self.model(input_ids, cache.state, return_state=True, **read)
            cache.seen += time
        else:
            logits = self.model(input_ids, **read)
        loss = None
        if labels is not None:
            count = {name: others[name] for name in FOR_THE_LOSS if name in others}
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **count)
        if not isinstance(logits_to_keep, int):
            logits = logits[:, logits_to_keep]
        elif logits_to_keep:
            logits = logits[:, -logits_to_keep:]
        output = CausalLMOutput(loss=loss, logits=logits, **{CACHE: cache if use_cache else None})
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        cache: StateCache | None = None,
        past_key_values: StateCache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool = False,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Of all tokens so far those that the cache has not read.

        Raises:
            ValueError: a prompt that is filled up behind its last token, or one that the given cache has read.
        """
        cache = _one(cache, past_key_values)
        if is_first_iteration and attention_mask is not None and not bool(attention_mask[:, -1].all()):
            raise ValueError(
                "attention_mask: a text goes on behind its last column, which is no token of some: expected prompts "
                "that are filled up on the left, tokenizer(texts, padding=True, padding_side='left')"
            )
        embeds = inputs_embeds if is_first_iteration else None
        if cache is not None and not is_first_iteration:
            input_ids = input_ids[:, -1:]
        elif cache is not None and cache.seen:
            given = input_ids if embeds is None else embeds
            total = given.shape[1] if attention_mask is None else attention_mask.shape[1]
            if total <= cache.seen:
                raise ValueError(
                    f"expected the whole text, of which the cache has read {cache.seen} columns, or a mask over all of "
                    f"it, got {total} columns"
                )
            input_ids, embeds = input_ids[:, cache.seen - total :], None if embeds is None else embeds[:, cache.seen :]
        taken = {"input_ids": input_ids} if embeds is None else {"input_ids": None, "inputs_embeds": embeds}
        rest = {"attention_mask": attention_mask, "use_cache": use_cache, "logits_to_keep": logits_to_keep}
        # Under the old name it is found by libraries that have not heard of the new one.
        given_rest = {name: value for name, value in rest.items() if value is not None}
        return taken | given_rest | ({} if cache is None else {"past_key_values": cache})

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Whether ``generate`` may begin with keys and values of attention; the cache is made in the forward pass."""
        return False

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the tokens."""
        return self.model.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Another embedding, of another number of tokens perhaps."""
        self.model.embedding = value
        self._count(value.num_embeddings)

    def get_output_embeddings(self) -> nn.Module:
        """What gives the logits: the head, or the embedding that is one."""
        return self.model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        """Another head; a tied model has none of its own, and takes its embedding alone."""
        if self.model.head is not None:
            self.model.head = new_embeddings
        elif new_embeddings is not self.model.embedding:
            raise ValueError("the head of a tied model is its embedding: set_input_embeddings changes both")

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks are computed again in the backward pass; transformers switches it."""
        model = self._modules.get("model")
        return model is not None and bool(model.checkpointing)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, chosen: bool) -> None:
        function = getattr(self, "_gradient_checkpointing_func", None)
        if chosen and getattr(function, "keywords", {}).get("use_reentrant"):
            raise ValueError("use_reentrant: blocks are computed again without re-entering: expected False, got True")
        self.model.checkpointing = bool(chosen)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: a `LanguageModel` begins with weights of its own, and a folder has all of them."""

    def _count(self, tokens: int) -> None:
        self.model.vocab_size = self.config.vocab_size = tokens
        self.model.config = {**self.model.config, "vocab_size": tokens}

    def _check(self, others: Mapping[str, Any]) -> None:
        asked = {name for name, value in others.items() if value is not None and value is not False}
        if unknown := sorted(asked - {*FOR_THE_LOSS, "cache_position"}):
            raise TypeError(
                f"{', '.join(unknown)}: expected nothing but tokens or their embeddings, a mask, labels and a cache. "
                "Places in a text follow from its mask, and no attentions or hidden states are kept"
            )


def _why_not(model: nn.Module) -> str:
    """What keeps a network of another class from being a `LanguageModel`, if it reads text at all."""
    context = getattr(model, "context", None)
    if not isinstance(context, int):
        return ""
    return f", which has learned positions for {context} tokens where a LanguageModel goes on from a state"


def _one(cache: StateCache | None, before: StateCache | None) -> StateCache | None:
    """The cache under either of its names."""
    found = before if cache is None else cache
    if found is not None and not isinstance(found, StateCache):
        raise TypeError(
            f"cache: expected a nestlearn.models.huggingface.StateCache, or None to begin, got {type(found).__name__}"
        )
    return found


transformers.AutoConfig.register(NestlearnConfig.model_type, NestlearnConfig, exist_ok=True)
transformers.AutoModelForCausalLM.register(NestlearnConfig, NestlearnForCausalLM, exist_ok=True)
