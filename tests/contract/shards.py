"""What every rank does in ``test_sharded.py``: python -m contract.shards FOLDER, in tests/."""

from __future__ import annotations

import contextlib
import datetime
import io
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from forked import forked
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.flop_counter import FlopCounterMode

import nestlearn as nl

from .members import MEMBERS, Member
from .ranks import CLASSES

__all__ = ["HALF", "LAYOUTS", "MEASURING", "OBSERVING", "SHARING", "members", "stack"]

LAYOUTS = {1: (), 2: ("fsdp2", "tp"), 3: (), 4: ("hsdp", "fsdp2 and tp")}
"""How parameters lie, by the number of ranks."""

SAVED = (
    "Adam",
    "Muon",
    "Nested-refresh=2",
    "DeepMomentum-hidden=4",
    "LayerMomentum-refresh=2-model",
    "Nested, averaged",
)
"""Whose checkpoints two ranks write, and any number reads."""

MEASURING = {str(member): member for member in MEMBERS if member.closure}
"""Those that measure curvature, of whole parameters."""

HALF = ("Adam", "Muon", "Nested-refresh=2")
"""Whose parameters are bfloat16 too."""

SHARING = ("Muon", "Nested", "SOAP", "DeepMomentum")
"""Whose work ranks share out."""

STEPS = 4


def members(layout: str = "") -> dict[str, Member]:
    """One of every class, and settings that a distributed run meets; of the two layouts of four ranks each has half."""
    found = {name: member for name, member in CLASSES.items() if not member.closure}
    found |= {
        "Adam, groups, period": Member("Adam", {"period": 2}),
        "Muon, period": Member("Muon", {"period": 2, "elementwise_lr": 0.001}),
        "Nested, averaged": Member("Nested", {"averaged_weights": 0.5}),
    }
    if layout in LAYOUTS[4]:
        return dict(list(found.items())[LAYOUTS[4].index(layout) :: 2])
    return found


OBSERVING = {name for name, member in members().items() if member.model}
"""Those that look at layers, which tensor parallelism splits."""


def network() -> nn.Module:
    """Layers whose rows do not divide by the ranks, one with fewer rows than ranks, a norm, and one that is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3))
    model.append(nn.Linear(3, 3)).double()
    return model


def build(member: Member, model: nn.Module) -> torch.optim.Optimizer:
    first, *others = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": [first], "lr": 0.03}, {"params": others, "weight_decay": 0.2}]
    return member.build(model, groups, lr=0.02)


def batch(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(12, 6, generator=generator, dtype=torch.float64)


def train(
    model: nn.Module, optimizer: Any, steps: range, share: Callable[[Tensor], Tensor] = lambda x: x, clip: bool = False
) -> None:
    """Some steps; torch clips no gradients that lie in more than one mesh, or beside plain ones."""
    for step in steps:
        optimizer.zero_grad()
        (model(share(batch(step))) - 1).square().mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()


def laid_out(layout: str, model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The model as a layout has it, and a rank's share of a batch."""
    ranks = dist.get_world_size()
    if layout == "tp":
        mesh = init_device_mesh("cpu", (ranks,))
        return split(model, mesh), lambda x: x
    if layout == "fsdp2 and tp":
        mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("data", "model"))
        return sharded(split(model, mesh["model"]), mesh["data"]), lambda x: x.tensor_split(2)[mesh.get_local_rank(0)]
    if layout == "hsdp":
        mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicas", "shards"))
    else:
        mesh = init_device_mesh("cpu", (ranks,))
    return sharded(model, mesh), lambda x: x.tensor_split(ranks)[dist.get_rank()]


def sharded(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def split(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def gathered(model: nn.Module) -> Tensor:
    found = [parameter.detach() for parameter in model.parameters()]
    return torch.cat([(each.full_tensor() if isinstance(each, DTensor) else each).flatten() for each in found])


def frozen(model: nn.Module) -> nn.Module:
    model[6].requires_grad_(False)
    return model


def tried(scenario: Callable[[], Any]) -> Any:
    try:
        return scenario()
    except Exception as error:  # noqa: BLE001 - told, whatever it is
        return f"{type(error).__name__}: {error}"


def as_alone(layout: str, member: Member, alone: Tensor) -> float:
    """The largest difference of a weight to those of one process on the whole batch."""
    model, share = laid_out(layout, frozen(network()))
    optimizer = build(member, model)
    train(model, optimizer, range(STEPS), share, clip="tp" not in layout)
    return float((gathered(model) - alone).abs().max())


def saved_and_resumed(member: Member, folder: Path) -> tuple[bool, bool]:
    """Two steps, a checkpoint, two more: whether a run that is resumed from it ends in the same weights to the bit, and
    whether every rank knew the names of its state before the first step.
    """
    model, share = laid_out("fsdp2", frozen(network()))
    optimizer = build(member, model)
    train(model, optimizer, range(2), share, clip=True)
    dcp.save(dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True)), checkpoint_id=folder)
    train(model, optimizer, range(2, STEPS), share, clip=True)
    resumed = loaded("fsdp2", member, folder)
    fresh, _ = laid_out("fsdp2", frozen(network()))
    states = get_optimizer_state_dict(fresh, build(member, fresh))["state"]
    names = {name: sorted(state) for name, state in states.items()}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, names)
    return torch.equal(gathered(model), resumed), all(each == everyone[0] for each in everyone)


def loaded(layout: str, member: Member, folder: Path) -> Tensor:
    """The weights of a run that goes on from a checkpoint."""
    plain = frozen(network())
    model, share = laid_out(layout, plain) if layout else (plain, lambda x: x)
    optimizer = build(member, model)
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    train(model, optimizer, range(2, STEPS), share, clip=True)
    return gathered(model)


def from_one_process(member: Member, alone: Tensor) -> float:
    """A checkpoint that one process wrote by torch.save goes on in shards."""
    plain = frozen(network())
    optimizer = build(member, plain)
    train(plain, optimizer, range(2), clip=True)
    options = StateDictOptions(full_state_dict=True)
    file = io.BytesIO()
    torch.save(get_state_dict(plain, optimizer, options=options), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    model, share = laid_out("fsdp2", frozen(network()))
    optimizer = build(member, model)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state, options=options)
    train(model, optimizer, range(2, STEPS), share, clip=True)
    return float((gathered(model) - alone).abs().max())


def poisoned() -> str:
    """A gradient that is infinite on one rank's shard alone."""
    model, share = laid_out("fsdp2", network())
    optimizer = nl.optim.Adam(model.parameters())
    model(share(batch(0))).square().mean().backward()
    if dist.get_rank() == 1:
        next(model.parameters()).grad.to_local().fill_(torch.inf)
    before = gathered(model)
    try:
        optimizer.step()
    except FloatingPointError as error:
        return "nothing was written" if torch.equal(gathered(model), before) else str(error)
    return "no error"


def grown() -> float:
    """Groups that were added one by one, each rank given what was free then, and a load that failed."""

    def trained(model: nn.Module, share: Callable[[Tensor], Tensor]) -> Tensor:
        optimizer = nl.optim.Muon([model[0].weight, model[5].weight], lr=0.02)
        train(model, optimizer, range(1), share)
        optimizer.add_param_group({"params": [model[2].weight]})  # more work than either
        train(model, optimizer, range(1, 2), share)
        with contextlib.suppress(ValueError):
            optimizer.load_state_dict({"state": {}, "param_groups": []})
        train(model, optimizer, range(2, STEPS), share)
        return gathered(model)

    model, share = laid_out("fsdp2", network())
    return float((trained(model, share) - trained(network(), lambda x: x)).abs().max())


def in_bfloat16(name: str) -> float:
    """The largest difference of a bfloat16 weight to those of one process, over the farthest that one has gone."""

    def gone(wrap: Callable[[nn.Module], tuple[nn.Module, Callable[[Tensor], Tensor]]]) -> Tensor:
        model, share = wrap(frozen(network()).bfloat16())
        optimizer = build(members()[name], model)
        for step in range(STEPS):
            optimizer.zero_grad()
            (model(share(batch(step).bfloat16())) - 1).square().mean().backward()
            optimizer.step()
        return gathered(model).float() - gathered(network().bfloat16()).float()

    alone, sharded_too = gone(lambda model: (model, lambda x: x)), gone(lambda model: laid_out("fsdp2", model))
    return float((alone - sharded_too).abs().max() / alone.abs().max())


def stack() -> nn.Module:
    """Matrices of three shapes, as many as a small transformer has."""
    torch.manual_seed(0)
    widths = [16, 16, 16, 16, 48, 16, 16, 16, 16, 48, 16]
    return nn.Sequential(*(nn.Linear(one, two, bias=False) for one, two in pairwise(widths))).double()


def work_shared_out(name: str) -> tuple[float, float]:
    """(FLOPs of this rank, bytes sent by all ranks) of five steps, over those of one process and of the weights."""
    counted, messages = [], []
    exchanged = dist.all_to_all_single

    def watched(received: Tensor, message: Tensor, theirs: list[int], mine: list[int], **how: Any) -> Any:
        messages.append(sum(mine) - mine[dist.get_rank()])
        return exchanged(received, message, theirs, mine, **how)

    def stepped(model: nn.Module) -> None:
        optimizer = getattr(nl.optim, name)(model.parameters(), lr=0.02)
        for step in range(5):
            optimizer.zero_grad()
            model(torch.randn(4, 16, generator=torch.Generator().manual_seed(step)).double()).square().mean().backward()
            with FlopCounterMode(display=False) as counter:
                optimizer.step()
            counted[-1] += counter.get_total_flops()

    for model in (stack(), sharded(stack(), init_device_mesh("cpu", (dist.get_world_size(),)))):
        counted.append(0)
        dist.all_to_all_single = watched
        try:
            stepped(model)
        finally:
            dist.all_to_all_single = exchanged
    sent = torch.tensor(sum(messages) / 5)
    dist.all_reduce(sent)
    return counted[1] / counted[0], float(sent) / sum(8 * parameter.numel() for parameter in stack().parameters())


def measured(member: Member) -> str:
    """What is said to a rule that measures curvature."""
    model, share = laid_out("fsdp2", network())
    optimizer = member.build(model)
    before = gathered(model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(share(batch(0))) - 1).square().mean()
        loss.backward(create_graph=True)
        return loss

    try:
        optimizer.step(closure)
    except RuntimeError as error:
        return str(error) if torch.equal(gathered(model), before) else "something was written"
    return "no error"


def by_itself() -> dict[tuple[str, bool], Tensor]:
    """The weights of one process on the whole batch, by member and by whether gradients are clipped."""
    alone = {}
    for name, member in members().items():
        for clip in (True, False):
            model = frozen(network())
            train(model, build(member, model), range(STEPS), clip=clip)
            alone[name, clip] = gathered(model)
    return alone


def run(rank: int, ranks: int, folder: Path, alone: dict[tuple[str, bool], Tensor]) -> dict[Any, Any]:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / f'meeting{ranks}'}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=60),
    )
    results: dict[Any, Any] = {
        (layout, name): tried(lambda m=member, y=layout, a=alone[name, "tp" not in layout]: as_alone(y, m, a))
        for layout in LAYOUTS[ranks]
        for name, member in members(layout).items()
    }
    for name in SAVED:
        member, whole, place = members()[name], alone[name, True], folder / name.replace(" ", "")
        if ranks == 2:
            results["resumed", name] = tried(lambda m=member, f=place: saved_and_resumed(m, f))
            results["from one process", name] = tried(lambda m=member, a=whole: from_one_process(m, a))
        else:
            layout = {1: "", 3: "fsdp2", 4: "hsdp"}[ranks]
            results["resumed", name] = tried(
                lambda m=member, f=place, y=layout, a=whole: float((loaded(y, m, f) - a).abs().max())
            )
    if ranks in (2, 4):
        results |= {("work", name): tried(lambda n=name: work_shared_out(n)) for name in SHARING}
    if ranks == 2:
        results |= {("bfloat16", name): tried(lambda n=name: in_bfloat16(n)) for name in HALF}
        results |= {("measured", name): tried(lambda m=member: measured(m)) for name, member in MEASURING.items()}
        results["grown"] = tried(grown)
        results["poisoned"] = tried(poisoned)
    dist.destroy_process_group()
    return results


def main(folder: Path) -> None:
    """Two ranks, which write the checkpoints that one, three and four read after them."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    alone = by_itself()

    def work(rank: int, ranks: int) -> None:
        (folder / f"{ranks}ranks{rank}").write_bytes(pickle.dumps(run(rank, ranks, folder, alone)))

    for numbers in ((2,), (1, 3, 4)):
        forked([partial(work, rank, ranks) for ranks in numbers for rank in range(ranks)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
