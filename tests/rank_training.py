"""What each of two ranks does in ``training/test_many_ranks.py``, and a task of which a rank dies on the way.

python -m torch.distributed.run --nproc-per-node 2 -m rank_training FOLDER
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nestlearn.contenders import CONTENDERS, Variant
from nestlearn.errors import RankError, RunFolderError
from nestlearn.training import RunSpec, Training
from nestlearn.training.layouts import outline
from nestlearn.training.ranks import ALONE, Ranks, joined

__all__ = ["CASES", "STEPS", "mortal"]

STEPS, STOP = 6, 3
SIZE = {"dim": 16, "heads": 2, "depth": 2, "context": 16, "validation_windows": 4, "test_windows": 4}
CASES = {
    "hope, fsdp2": ("hope", "Nested", {"batch": 5}),  # one rank has three windows, the other two
    "hope, next token, ddp": ("hope", "DeepMomentum", {"batch": 4, "objective": "next_token"}),
    "hope, next token, fsdp2": ("hope", "DeepMomentum", {"batch": 4, "objective": "next_token"}),
    "titans, hsdp": ("titans", "Muon", {"batch": 4}),
    "transformer, fsdp2": ("transformer", "LayerMomentum", {"batch": 5, "delay": 2}),
    "transformer, ddp": ("transformer", "SecantMomentum", {"batch": 5}),
    "transformer, torch's, fsdp2": ("transformer", "AdamW", {"batch": 4}),
}
"""Network, contender, and fields of the task, by the strategy at the end of the name."""


def spec_of(case: str) -> RunSpec:
    network, contender, size = CASES[case]
    return RunSpec(
        "speeches",
        Variant(contender),
        (("lr", CONTENDERS[contender].lr),),
        seed=1,
        steps=STEPS,
        points=2,
        size=tuple({**SIZE, "network": network, **size}.items()),
        dtype="float64",
    )


def begun(spec: RunSpec, ranks: Ranks, state: dict[str, Any] | None = None, steps: int = STEPS) -> Training:
    """A training after so many steps, from a state if there is one."""
    training = Training(spec, rows=STEPS, ranks=ranks)
    if state is not None:
        training.load_state_dict(state)
    while training.steps_taken < steps:
        training.step()
    return training


def numbers(training: Training) -> list[float]:
    """All losses and figures of a run."""
    result = training.result()
    surprises = [value for _, _, value in result.surprises]
    return [
        *(point.loss for point in (*result.train, *result.curve)),
        *surprises,
        *result.validation.values(),
        *result.test.values(),
    ]


def outcome(case: str, ranks: Ranks) -> dict[str, Any]:
    """The numbers of both ranks, and of a run that one process begins and both go on with; a state of both."""
    spec, many = spec_of(case), Ranks(case.rpartition(" ")[2], ranks.rank, ranks.count)
    one, both = (begun(spec, each, steps=STOP).state_dict() for each in (ALONE, many))
    found = {"both": numbers(begun(spec, many))}
    found["one, both"] = numbers(begun(spec, many, one if ranks.first else outline(one)))
    return found | {"state": both}


def refuses() -> None:
    raise RunFolderError("the folder is taken")


def settled(ranks: Ranks) -> dict[str, Any]:
    """What the ranks settle among themselves."""
    first = ranks.at_first(lambda: {"rank": ranks.rank, "tensor": torch.ones(2)})
    try:
        ranks.at_first(refuses)
    except (RankError, RunFolderError) as error:
        refused = f"{type(error).__name__}: {error}"
    votes = [ranks.any(ranks.rank == step == 1) for step in range(4)]
    share, weight = ranks.share((torch.arange(5), {"x": torch.arange(10).view(5, 2)}))
    return {
        "at first": (first["rank"], str(first["tensor"].device)),
        "refused": refused,
        "votes": votes,
        "share": (share[0].tolist(), share[1]["x"].tolist(), weight),
        "mean": ranks.mean(torch.tensor([1.0 + ranks.rank, 0.0])).tolist(),
    }


def mortal() -> tuple[Any, ...]:
    """A task of one's own, with an end to rank $DIES at batch number $DIES_AT."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(6, 4, generator=generator), torch.randn(6, 2, generator=generator)) for _ in range(9)]

    def batches():
        for number in itertools.count():
            if os.environ.get("DIES_AT") == str(number) and os.environ.get("RANK") == os.environ["DIES"]:
                os.kill(os.getpid(), signal.SIGKILL)
            yield pairs[number % 7]

    loss = lambda model, batch: F.mse_loss(model(batch[0]), batch[1])  # noqa: E731
    return model, batches(), loss, {"validation": pairs[7:8], "test": pairs[8:]}


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with joined("fsdp2", "cpu") as ranks:
        found: dict[str, Any] = {case: outcome(case, ranks) for case in CASES}
        settlement = settled(ranks)
    # Alone in the end: in a group what layers have seen would be added over all ranks.
    for case in CASES if ranks.first else ():
        found[case]["one"] = numbers(begun(spec_of(case), ALONE))
        found[case]["both, one"] = numbers(begun(spec_of(case), ALONE, found[case].pop("state")))
    found["settled"] = settlement
    (folder / f"rank{ranks.rank}").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
