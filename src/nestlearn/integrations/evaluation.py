"""The tasks of lm-eval for any causal model of transformers, ours among them, in this process and without a network.

    scores = evaluate(NestlearnForCausalLM.from_run(run), tokenizer_of(run.tokenizer), ["letters"], include="tasks")

A task is a YAML file of lm-eval, one of its own or one in a folder of yours; with ``dataset_path: json`` and
``data_files`` its questions are a file too, and nothing is asked of any server.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestlearn.errors import MissingPackageError, SettingsError, did_you_mean
from nestlearn.foreign import foreign
from nestlearn.models import Continuum, LanguageModel

__all__ = ["Score", "evaluate", "unigrams"]

LINE_END = "\n"
DRAWS = 1000  # for the standard errors of those metrics that are no means


@dataclass(frozen=True)
class Score:
    """One number of one task.

    Attributes:
        task, metric: their names; a filter that lm-eval lays over the answers stands behind the metric.
        value: the mean over the questions, in the metric's own unit.
        error: its standard error; None where lm-eval has none.
        higher: whether more is better.
    """

    task: str
    metric: str
    value: float
    error: float | None
    higher: bool


def evaluate(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    include: str | Path | None = None,
    limit: int | None = None,
    batch: int = 8,
    context: int = 2048,
) -> list[Score]:
    """The scores of a model.

    A text without anything before it is asked for behind the tokenizer's first token, or else behind the end of a line.

    Every question begins a text of its own, to a model with memories too: nothing of one question is known in another.
    A stacked model (``model.continuum``) learns within a question, from the tokens before the one that is asked for;
    within ``model.continuum.paused()`` it answers all of them from what it has read and learns nothing.

    Args:
        model: of transformers, a `nestlearn.models.huggingface.NestlearnForCausalLM` or a stacked one for two.
        tokenizer: of transformers, with an ``eos_token``.
        tasks: names of tasks, groups or tags.
        include: a folder with tasks of your own, which are looked at first.
        limit: the first so many questions of each task; None for all.
        batch: questions that are asked side by side.
        context: tokens that are read for a question, its last ones.

    Raises:
        SettingsError: no such task, or what it asks cannot be had.
        ValueError: a stacked model that is in the middle of a text, which the questions would end, or one that is
            paused and has read several texts side by side.
        MissingPackageError: lm-eval is not installed.

    Example:
        >>> scores = evaluate(model, tokenizer, ["letters"], include="tasks")
        >>> scores[0].metric, scores[0].value
        ('acc', 0.5)
    """
    host, models = _installed("lm_eval"), _installed("lm_eval.models.huggingface")
    kind = models.HFLM if getattr(model, "continuum", None) is None else _stacked(models.HFLM, model.continuum)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(tasks, include)
    first = tokenizer.bos_token_id
    if first is None:
        first = tokenizer(LINE_END, add_special_tokens=False)["input_ids"][-1]
    with foreign(SettingsError, f"the tasks {', '.join(tasks)} cannot be had"):
        manager.load(list(tasks))
    adapter = kind(
        pretrained=model.eval(),
        backend="causal",
        tokenizer=tokenizer,
        batch_size=batch,
        max_length=context,
        prefix_token_id=first,
    )
    found = host.simple_evaluate(
        model=adapter, tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=DRAWS, log_samples=False
    )
    return [each for task in sorted(found["results"]) for each in _scores(task, found)]


def _stacked(base: Any, continuum: Continuum) -> Any:
    """The class that asks a stacked model."""
    if continuum.is_paused:
        if continuum.texts > 1:
            raise ValueError(f"all questions are asked of one text: expected the state of one, got {continuum.texts}")
        return base
    if continuum.texts:
        raise ValueError(
            "the model is in the middle of a text: continuum.reset() ends it, so that every question is a text of its "
            "own, and within continuum.paused() all are asked of it"
        )

    class Stacked(base):  # type: ignore[misc]
        """Every call begins other texts."""

        batch_size_per_gpu: int

        def _model_call(self, *args: Any, **given: Any) -> Any:
            try:
                return super()._model_call(*args, **given)
            finally:
                continuum.reset()

        def _model_generate(self, *args: Any, **given: Any) -> Any:
            try:
                return super()._model_generate(*args, **given)
            finally:
                continuum.reset()

        def generate_until(self, *args: Any, **given: Any) -> Any:
            # What fills up a question on its left writes nothing, but would put its writes elsewhere.
            before, self.batch_size_per_gpu = self.batch_size_per_gpu, 1
            try:
                return super().generate_until(*args, **given)
            finally:
                self.batch_size_per_gpu = before

    return Stacked


def unigrams(counts: Tensor) -> Any:
    """The model that knows how often each token comes, and nothing of what stands before it.

    Of tokens that come equally often the shortest answer is the likeliest.

    Args:
        counts: [vocab_size], of each token; all above 0, as an answer that cannot be has no probability to compare.

    Raises:
        ValueError: a token that never comes.

    Example:
        >>> model = unigrams(torch.tensor([1.0, 3.0]))
        >>> model(torch.tensor([[0, 1]])).logits.softmax(-1)[0, 1].detach()
        tensor([0.2500, 0.7500])
    """
    if not bool((counts > 0).all()):
        raise ValueError(f"counts: expected numbers above 0, got {counts.min().item():g}; add one to each")
    huggingface = import_module("nestlearn.models.huggingface")
    model = LanguageModel(len(counts), 1, [])
    with torch.no_grad():
        # Of one number the norm leaves its sign, so that the head's weights are the logits.
        model.embedding.weight.fill_(1.0)
        share = counts.double() / counts.sum()
        torch.nn.init.ones_(model.norm.weight)
        model.head.weight.copy_(share.log().unsqueeze(1))  # type: ignore[union-attr]
    return huggingface.NestlearnForCausalLM.of(model)


def _manager(tasks: Sequence[str], include: str | Path | None) -> Any:
    """Who knows the tasks: those of the folder alone, if they are all there, as lm-eval's own are many thousands."""
    if include is None:
        known = _shipped()
    else:
        manager = _installed("lm_eval.tasks").TaskManager
        if not Path(include).is_dir():
            raise SettingsError(f"{include} is no folder: expected one with the YAML files of tasks")
        own = manager(include_path=str(include), include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
        known = manager(include_path=str(include))
    for task in tasks:
        if task not in known.all_tasks:
            hint = did_you_mean(task, known.all_tasks)
            raise SettingsError(f"unknown task {task!r:.200}: expected one of lm-eval, or of a folder of yours.{hint}")
    return known


@cache
def _shipped() -> Any:
    """Who knows the tasks of lm-eval alone: to find them takes seconds, and every model of a command asks."""
    return _installed("lm_eval.tasks").TaskManager()


def _scores(task: str, found: Any) -> list[Score]:
    """What lm-eval calls "acc,none" and "acc_stderr,none"."""
    held, better = found["results"][task], found.get("higher_is_better", {}).get(task, {})
    scores = []
    for key, value in held.items():
        metric, _, way = key.partition(",")
        if not way or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = held.get(f"{metric}_stderr,{way}")
        name = metric if way == "none" else f"{metric} ({way})"
        scores.append(
            Score(
                task,
                name,
                float(value),
                error if isinstance(error, int | float) else None,
                bool(better.get(metric, True)),
            )
        )
    return scores


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'tasks of lm-eval need {error.name}, which is not installed: pip install "nestlearn[eval]"',
            name=error.name,
        ) from error
