"""The processes that train one run together: what each has of a batch, and what they settle among themselves.

``torchrun`` starts them and says in the environment which is which. All make the same network and the same global
batches from the same seed, and each takes its share of a batch: what the batch is, and what the seed, does not depend
on how many there are. Rank 0 alone reads and writes the run folder.

    with joined("fsdp2", "cpu") as ranks:
        share, weight = ranks.share(batch)
        loss = weight * task.loss(network, share)     # the mean over the ranks is the loss of the batch
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nestlearn.errors import Interrupted, NestlearnError, RankError, SettingsError
from nestlearn.memory.state import leaves
from nestlearn.optim.optimizer import Optimizer
from nestlearn.optim.states import surprises
from nestlearn.training.layouts import gathered, handed_out, handed_out_to, laid_out, outline

__all__ = ["ALONE", "Ranks", "joined"]

Result = TypeVar("Result")

PATIENCE = timedelta(minutes=30)  # for a rank that is there and does not answer; it may write a large checkpoint
LOST = re.compile(r"Connection (closed|reset|refused)( by peer)?|Broken pipe|Timed out|gloo/transport")


@dataclass(eq=False)
class Ranks:
    """This process among those that train a run. With the strategy ``none`` it is alone, and nothing happens here.

    All ranks call each method, in the same order.

    Attributes:
        strategy: ``none``, ``ddp``, ``fsdp2`` or ``hsdp``.
        rank, count: which one this is, and how many there are.
    """

    strategy: str = "none"
    rank: int = 0
    count: int = 1
    _vote: tuple[Tensor, Any] | None = field(default=None, repr=False)

    @property
    def alone(self) -> bool:
        """Whether there is no group of processes."""
        return self.strategy == "none"

    @property
    def first(self) -> bool:
        """Whether this is the one that reads and writes the run folder."""
        return self.rank == 0

    def laid_out(self, model: nn.Module, device: str) -> nn.Module:
        """What is called in the place of ``model``; call it before optimizers are made of the model's parameters."""
        return model if self.alone else laid_out(model, self.strategy, torch.device(device).type)

    def check(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Raise ValueError for an optimizer that cannot act on what lies on this rank."""
        for optimizer in optimizers:
            if self.strategy in ("fsdp2", "hsdp") and getattr(optimizer, "needs_graph", False):
                raise ValueError(
                    f"{type(optimizer).__name__} observes curvature, which needs whole parameters, and the strategy "
                    f"{self.strategy} shards them: take the strategy ddp, or a target or an objective without it"
                )

    def share(self, batch: Any) -> tuple[Any, float]:
        """This rank's share of a batch, and what its mean loss weighs.

        The weighted losses have the loss of the whole batch as their mean over the ranks, whether it divides by them
        or not. A batch without tensors is everyone's.

        Args:
            batch: tensors whose first dimension counts examples, in tuples, lists and dictionaries.

        Raises:
            SettingsError: there are fewer examples than ranks, or tensors that do not agree on how many there are.
        """
        sizes = {len(tensor) for tensor in leaves(batch) if tensor.ndim} if self.count > 1 else set()
        if not sizes:
            return batch, 1.0
        if len(sizes) > 1 or min(sizes) < self.count:
            raise SettingsError(
                f"expected a batch of at least {self.count} examples, one for each rank, that all its tensors count "
                f"in their first dimension, got {' and '.join(map(str, sorted(sizes)))}: take a larger batch or fewer "
                "ranks"
            )
        (size,) = sizes
        own = (size + self.count - 1 - self.rank) // self.count  # as torch.tensor_split divides
        return self._cut(batch), own * self.count / size

    def _cut(self, batch: Any) -> Any:
        if isinstance(batch, Tensor):
            return batch.tensor_split(self.count)[self.rank] if batch.ndim else batch
        if isinstance(batch, Mapping):
            return {name: self._cut(value) for name, value in batch.items()}
        if isinstance(batch, tuple | list):
            parts = [self._cut(value) for value in batch]
            return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
        return batch

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks."""
        if self.count > 1:
            dist.all_reduce(values)
        return values / self.count

    def surprise(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """The latest surprise of each memory, averaged over all parameters, whichever rank remembers it."""
        if not isinstance(optimizer, Optimizer):
            return {name: float(value) for name, value in getattr(optimizer, "surprise", {}).items()}
        mine = {name: [*map(float, tensors)] for name, tensors in surprises(optimizer).items()}
        everyone: list[dict[str, list[float]]] = [mine]
        if self.count > 1:
            everyone = [{}] * self.count
            dist.all_gather_object(everyone, mine)
        names = dict.fromkeys(name for found in everyone for name in found)
        values = {name: [value for found in everyone for value in found.get(name, ())] for name in names}
        return {name: sum(each) / len(each) for name, each in values.items()}

    def any(self, mine: bool) -> bool:
        """Whether any rank has said so, as of the call before: so nobody waits for an answer that is on its way."""
        if self.count == 1:
            return mine
        answer, said = self._answer(), torch.tensor([int(mine)])
        self._vote = said, dist.all_reduce(said, async_op=True)
        return answer

    def _answer(self) -> bool:
        """What came of the last vote, when it is over."""
        vote, self._vote = self._vote, None
        if vote is None:
            return False
        vote[1].wait()
        return bool(vote[0].item())

    def leave(self) -> None:
        """Wait until all are here: what is under way must not outlive the process group."""
        self._answer()
        dist.barrier()

    def at_first(self, act: Callable[[], Result]) -> Result:
        """What rank 0 gets by ``act``, which it alone carries out; the others get an outline, with tensors that have a
        shape alone, and wait until it is done.

        Raises:
            RankError: on the others, what it raised is the cause.
        """
        if self.count == 1:
            return act()
        told: list[Any] = [None, None]
        try:
            result = act() if self.first else None
            told[0] = outline(result)
        except Exception as error:
            told[1] = error if isinstance(error, NestlearnError | OSError) else RankError(repr(error))
            raise
        finally:
            dist.broadcast_object_list(told, 0)
        if self.first:
            return result  # type: ignore[return-value]
        if told[1] is not None:
            raise RankError(f"rank 0 cannot go on: {told[1]}") from told[1]
        answer: Result = told[0]
        return answer

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state as one process has it, on rank 0; on the others without its tensors."""
        found: dict[str, Any] = state if self.alone else gathered(state, keep=self.first)
        return found

    def handed_out(self, held: Any, like: Tensor | None = None) -> Any:
        """The opposite: what rank 0 has of a file, on every rank, sharded as a parameter is."""
        return held if self.alone else handed_out(held, like)

    def handed_out_to(self, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        """The same for the state of an optimizer."""
        return saved if self.alone else handed_out_to(optimizer, saved)

    def command(self, options: str) -> str:
        """The command line that starts as many processes with other options."""
        if self.alone:
            return f"nestlearn train {options}"
        here = os.environ.get("LOCAL_WORLD_SIZE", "")
        nodes = f"--nproc-per-node {here}" if here == str(self.count) else "..."
        return f"torchrun {nodes} -m nestlearn train {options}"


ALONE = Ranks()


@contextmanager
def joined(strategy: str, device: str) -> Iterator[Ranks]:
    """A block in which this process is one of those that torchrun has started; with the strategy ``none`` it is alone.

    Args:
        strategy: ``none``, ``ddp``, ``fsdp2`` or ``hsdp``.
        device: of the run. On ``cuda`` each rank has the GPU of its number on its machine.

    Raises:
        SettingsError: strategy and processes do not go together; the message says how to start them.
        RankError: another rank is gone, so that what all of them have to do cannot be done.
    """
    _check(strategy, device, os.environ)
    if strategy == "none":
        yield ALONE
        return
    try:
        _meet(device)
        try:
            ranks = Ranks(strategy, dist.get_rank(), dist.get_world_size())
            try:
                yield ranks
            except Interrupted:
                ranks.leave()  # all have agreed on it
                raise
            ranks.leave()
        finally:
            dist.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or (LOST.search(str(error)) and not isinstance(error, NestlearnError)):
            raise RankError("another rank is gone, or does not answer") from error
        raise


def _meet(device: str) -> None:
    """Make the process group."""
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.device(device).type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
    # Where torchrun has started all ranks again, the store still has the addresses of those before.
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(again, store)  # type: ignore[attr-defined]  # torch exports it without saying so
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=count)


def _check(strategy: str, device: str, environment: Mapping[str, str]) -> None:
    """Raise SettingsError unless the processes that were started can do what is asked of them."""
    count = int(environment.get("WORLD_SIZE", "1"))
    if strategy == "none":
        if count > 1:
            raise SettingsError(
                f"{count} processes were started for one run, and no strategy says how they share it: add --strategy "
                "fsdp2, hsdp or ddp"
            )
        return
    if "RANK" not in environment:
        raise SettingsError(
            f"the strategy {strategy} is for several processes: start them with torchrun --nproc-per-node 2 -m "
            "nestlearn train ..., or go on in one with --strategy none"
        )
    if strategy == "hsdp" and count % 2:
        raise SettingsError(f"the strategy hsdp has two replicas, so the number of ranks must be even, got {count}")
    if device.startswith("cuda:"):
        raise SettingsError(f"expected the device cuda, of which each rank has one, or cpu, got {device}")
    here = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and here > torch.cuda.device_count():
        raise SettingsError(
            f"{here} processes were started here for {torch.cuda.device_count()} CUDA devices: expected at most one "
            "for each"
        )
