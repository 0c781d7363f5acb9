"""Gradients that arrive late, as in asynchronous training: the speeches again, with nothing else changed."""

from __future__ import annotations

from dataclasses import dataclass

from nestlearn.tasks.about import AboutDelayedGradients
from nestlearn.tasks.speeches import SpeechesTask
from nestlearn.tasks.task import size

__all__ = ["DelayedGradientsTask"]


@dataclass(frozen=True, kw_only=True)
class DelayedGradientsTask(AboutDelayedGradients, SpeechesTask):
    """The speeches with gradients that arrive ``delay`` steps late. Figures: as for the speeches.

    The training loop carries the delay out: step t applies the gradient that was measured at step t - ``delay``, at
    the weights of that time, and the first ``delay`` steps change nothing. What an optimizer has to make up for is the
    way that the weights have gone in between (O19 carries gradients along it).
    """

    delay: int = size(4)
