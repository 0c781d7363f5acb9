"""Your own memory in an optimizer: waves in the place of an MLP, as the momentum of a network, beside its control.

    python examples/own_memory.py

The MLP of `DeepMomentum` cannot bend towards an odd target (docs/findings.md says why); sines are odd, and can. On this
task that is worth a hundredth of the surprise, and nothing to the loss: without the third line, the control, one would
not know.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.rules import average, chain, deep, orthogonal
from nestlearn.tasks import make_task

__all__ = ["Waves", "main"]


@cache
def directions(waves: int, dim: int) -> Tensor:
    """Omega [waves, dim], fixed and random."""
    return torch.randn(waves, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@dataclass(frozen=True)
class Waves(nl.memory.Model):
    """M(k) = W sin(Omega k) / sqrt(waves): keys [*B, n, dim], W [*B, dim, waves]."""

    dim: int
    waves: int = 64

    def sized(self, width: int) -> "Waves":
        """The same for rows of another width."""
        return replace(self, dim=width)

    def init(self, batch_shape=(), *, dtype=None, device=None, generator=None) -> dict[str, Tensor]:
        """W = 0: a memory that knows nothing answers nothing."""
        return {"weight": torch.zeros((*batch_shape, self.dim, self.waves), dtype=dtype, device=device)}

    def batch_ndim(self, parameters: Mapping[str, Tensor]) -> int:
        """Dimensions of W before its own two."""
        return parameters["weight"].ndim - 2

    def phase(self, key: Tensor) -> Tensor:
        """Omega k."""
        return key @ directions(self.waves, self.dim).to(key).mT

    def trace(self, parameters: Mapping[str, Tensor], key: Tensor) -> tuple[Tensor, Any]:
        """The answer, and the waves, which the slope needs as well."""
        wave = self.phase(key).sin() / math.sqrt(self.waves)
        return wave @ parameters["weight"].mT, wave

    def pullback(self, parameters: Mapping[str, Tensor], key: Tensor, error: Tensor, trace: Any) -> dict[str, Tensor]:
        """The slope of <M(k), error> in W."""
        return {"weight": error.mT @ trace}

    def transpose(self, parameters: Mapping[str, Tensor], key: Tensor, error: Tensor) -> Tensor:
        """Its slope in k."""
        back = error @ parameters["weight"] * self.phase(key).cos() / math.sqrt(self.waves)
        return back @ directions(self.waves, self.dim).to(key)

    def inputs(self, parameters: Mapping[str, Tensor], key: Tensor) -> dict[str, Tensor]:
        """What W sees."""
        return {"weight": self.trace(parameters, key)[1]}


def main(steps: int = 100) -> dict[str, tuple[float, float]]:
    """Train with an MLP, with waves, and without either; the late loss and the late surprise of each."""
    beside = average(0.8)
    rules = {
        "MLP": chain(deep(64, inner_lr=1.5, beside=beside), orthogonal()),
        "waves": chain(deep(model=Waves(1), inner_lr=1.5, beside=beside), orthogonal()),
    }
    rules["control"] = rules["waves"].without("deep")
    task, found = make_task("digits", {}, "cpu", "float32"), {}
    for name, rule in rules.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32, bias=False), nn.Tanh(), nn.Linear(32, 10, bias=False))
        optimizer = nl.optim.Optimizer(model.parameters(), lr=0.05, matrix=rule)
        losses, surprises = [], []
        for _, (images, labels) in zip(range(steps), task.batches(seed=0)):  # noqa: B905  # batches never end
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            surprises.append(optimizer.surprise["deep"].item() if "deep" in optimizer.surprise else math.nan)
        late = steps // 4 or 1
        found[name] = sum(losses[-late:]) / late, sum(surprises[-late:]) / late
        print(f"{name}: loss {found[name][0]:.3f}, surprise {found[name][1]:.3f}")
    print(nl.describe(nl.optim.Optimizer([nn.Parameter(torch.zeros(4, 3))], lr=0.05, matrix=rules["waves"])))
    return found


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--steps", type=int, default=100)
    main(**vars(arguments.parse_args()))
