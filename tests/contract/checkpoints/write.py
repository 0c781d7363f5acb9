"""Writes an archive with a checkpoint file a member, as the library on the path makes them; README.md here says how.

The test that reads the files builds its problems with the functions here, so they may not change either.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nestlearn as nl

from ..members import MEMBERS, Member
from ..problems import advance

__all__ = ["RUNS", "Problem", "capability", "made", "real", "train", "weights"]

RUNS = {1: (3, 4), 3: (4, 5)}
"""Period -> steps before the checkpoint and steps after it. Both checkpoints lie between two renewals of what is
renewed every other write, the second also in the middle of a period."""

SPECIAL = {"lr": 0.0078125, "weight_decay": 0.1, "elementwise_lr": 0.00390625}
"""What the second group has of its own."""


class Problem(nn.Module):
    """A matrix, a convolution, a vector, a scalar and a complex table: alone, or as the parts of a small network.

    Args:
        layers: whether members that watch layers are to train it. If not, every gradient is computed entry by entry,
            with additions and products alone, so that all processors agree on it.
    """

    def __init__(self, layers: bool) -> None:
        super().__init__()
        self.layers = layers
        self.conv = nn.Conv2d(2, 3, 2, bias=False, dtype=torch.float64)
        self.hidden = nn.Linear(12, 4, dtype=torch.float64)
        self.head = nn.Linear(4, 3, bias=False, dtype=torch.float64)
        self.tone = nn.Parameter(torch.empty(4, 3, dtype=torch.complex128))
        self.gain = nn.Parameter(torch.empty((), dtype=torch.float64))
        with torch.no_grad():
            for place, parameter in enumerate(self.parameters()):
                parameter.copy_(draw(place, parameter))
            self.gain.fill_(1.5)

    def losses(self, steps: Sequence[int]) -> list[Any]:
        """One loss a step, each of data of its own."""
        one = self.error if self.layers else self.distance
        return [lambda step=step: one(step) for step in steps]

    def distance(self, step: int) -> Tensor:
        """Each entry's gap to a place of this step, squared, with a little of its fourth power."""
        total = torch.zeros((), dtype=torch.float64)
        for place, parameter in enumerate(self.parameters()):
            gap = real(parameter) - real(draw(1000 + 10 * step + place, parameter))
            total = total + (0.125 * gap * gap + 0.03125 * gap * gap * gap * gap).sum()
        return total

    def error(self, step: int) -> Tensor:
        """The mean squared error of the network on a batch of this step."""
        images, goals = torch.empty(8, 2, 3, 3).double(), torch.empty(8, 3).double()
        hidden = self.hidden(self.conv(draw(1000 + 2 * step, images)).tanh().flatten(1)).tanh()
        answer = self.gain * self.head(hidden) + (hidden.to(self.tone) @ self.tone).imag
        return (answer - draw(1001 + 2 * step, goals)).square().mean()


def real(tensor: Tensor) -> Tensor:
    """A complex tensor [...] seen as a real one [..., 2]."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def draw(seed: int, like: Tensor) -> Tensor:
    """Uniform numbers between -1 and 1: unlike normal ones, they are the same on every processor."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(like.shape, generator=generator, dtype=like.dtype) - (1 + 1j if like.is_complex() else 1)


def groups(problem: Problem) -> list[dict[str, Any]]:
    """Two groups: the first with the settings of the optimizer, the second with some of its own."""
    special = [problem.head.weight, problem.gain]
    owned = {id(parameter) for parameter in special}
    rest = [parameter for parameter in problem.parameters() if id(parameter) not in owned]
    return [{"params": rest}, {"params": special, **SPECIAL}]


def made(member: Member, **settings: Any) -> tuple[Problem, torch.optim.Optimizer]:
    """A fresh problem and a fresh optimizer."""
    problem = Problem(layers=member.model)
    return problem, member.build(problem, groups(problem), **settings)


def train(member: Member, problem: Problem, optimizer: torch.optim.Optimizer, steps: Sequence[int]) -> None:
    """One step of the optimizer a step of the problem."""
    advance(member, optimizer, problem.losses(steps))


def trained(member: Member, period: int) -> dict[str, Any]:
    """A checkpoint as a training script writes it, and the weights that this library reached later."""
    before, after = RUNS[period]
    problem, optimizer = made(member, period=period)
    train(member, problem, optimizer, range(before))
    # A deep copy keeps what shares a storage together, as a file of that moment would.
    checkpoint = copy.deepcopy({"model": problem.state_dict(), "optimizer": optimizer.state_dict()})
    train(member, problem, optimizer, range(before, before + after))
    return {"period": period, **checkpoint, "later": weights(problem)}


def weights(problem: Problem) -> Tensor:
    """All weights end to end, complex ones as two: [entries]."""
    return torch.cat([real(parameter.detach()).reshape(-1) for parameter in problem.parameters()])


def file_name(member: Member) -> str:
    """A name for the file of a member: its class and settings."""
    return f"{str(member).replace('=', '_')}.pt"


def arguments(member: Member) -> dict[str, Any]:
    """What is needed to build the same optimizer again."""
    return {
        "name": member.name,
        "settings": dict(member.settings),
        "model": member.model,
        "closure": member.closure,
        "extra": member.extra,
    }


def capability() -> str:
    """The instructions that torch uses here: others fuse products and sums differently."""
    return torch.backends.cpu.get_cpu_capability()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="named after the commit; it must not exist")
    path: Path = parser.parse_args().archive
    if path.exists():
        parser.error(f"{path} is there, and what an old commit wrote is not replaced")
    print("the library is", Path(inspect.getfile(nl)).parent)
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member in MEMBERS:
            runs = [trained(member, period) for period in RUNS if period == 1 or member.collects]
            # Through a stream: torch.save puts the name of a file into the name of each tensor in it.
            stream = io.BytesIO()
            torch.save({"member": arguments(member), "capability": capability(), "runs": runs}, stream)
            # A fixed date, so that the same commit writes the same bytes.
            archive.writestr(zipfile.ZipInfo(file_name(member)), stream.getvalue(), zipfile.ZIP_DEFLATED, 9)


if __name__ == "__main__":
    main()
