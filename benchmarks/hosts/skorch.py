"""skorch: ``NeuralNet`` makes the optimizer of named parameters, steps with a closure, and keeps it in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hosts.choices import Choice
from benchmarks.hosts.common import LR, ROWS, Mode, bits, claim_same, installed, network, pairs, train_plainly

__all__ = ["MODES"]

BATCHES, CLIP = 3, 0.3


class _Squared(nn.Module):
    """The loss of the other hosts, to the bit."""

    def forward(self, answers: Tensor, targets: Tensor) -> Tensor:
        return (answers - targets).square().mean()


def _net(choice: Choice, seed: int = 0) -> Any:
    skorch, callbacks = installed("skorch"), installed("skorch.callbacks")

    class Net(skorch.NeuralNet):  # type: ignore[misc]
        """Two methods for what needs more than parameters: optimizers that watch layers, and curvature."""

        def initialize_optimizer(self, *args: Any, **keywords: Any) -> Any:
            self.set_params(**{f"optimizer__{name}": value for name, value in choice.keywords(self.module_).items()})
            return super().initialize_optimizer(*args, **keywords)

        def train_step_single(self, batch: Any, **fit: Any) -> Any:
            if not choice.closure:
                return super().train_step_single(batch, **fit)
            answers = self.infer(batch[0], **fit)
            loss = self.get_loss(answers, batch[1], X=batch[0], training=True)
            loss.backward(retain_graph=True)
            return {"loss": loss, "y_pred": answers}

    return Net(
        network(seed),
        criterion=_Squared,
        optimizer=choice.kind,
        lr=LR,
        batch_size=ROWS,
        max_epochs=1,
        train_split=None,
        iterator_train__shuffle=False,
        callbacks=[callbacks.GradientNormClipping(CLIP)],
        verbose=0,
    )


def _resumes(choice: Choice, folder: Path) -> None:
    """What save_params wrote after the first of two epochs, loaded twice into a new net, trains to the same bits; a
    plain loop does too.
    """
    inputs, targets = (torch.stack(side) for side in zip(*pairs(BATCHES), strict=True))
    files = {f"f_{part}": str(folder / part) for part in ("params", "optimizer", "history")}
    whole = _net(choice).initialize()
    whole.partial_fit(inputs, targets)
    whole.save_params(**files)
    end = bits(whole.partial_fit(inputs, targets).optimizer_)
    resumed = _net(choice, seed=99).initialize()
    for _ in range(2):
        resumed.load_params(**files)
    claim_same("the resumed run", bits(resumed.partial_fit(inputs, targets).optimizer_), end)
    model = network()
    optimizer = choice.build(model, lr=LR)
    train_plainly(choice, optimizer, model, [*range(BATCHES)] * 2, CLIP)
    claim_same("a plain loop", bits(optimizer), end)


MODES = (Mode("skorch", "", ("skorch",), _resumes),)
