"""What is measured of optimizers, against numbers worked out by hand or from the tensors themselves."""

import math

import pytest
import torch
from torch import distributed as dist
from torch import nn

import nestlearn as nl
from nestlearn.integrations.places import copies, places, unwrapped
from nestlearn.integrations.scalars import scalars


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 5)).double()


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(7, 1, 4, 4, dtype=torch.float64)).square().sum().backward()
    optimizer.step()


def test_a_step_of_gradient_descent_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64))
    bias = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight, bias], lr=0.5)
    before = copies(optimizer)
    weight.grad = torch.tensor([[2.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    bias.grad = torch.tensor([1.0, 0.0], dtype=torch.float64)
    optimizer.step()  # changes the matrix by diag(1, 2), singular values 2 and 1, and the vector by (0.5, 0)
    shares = (0.2, 0.8)
    assert scalars(optimizer, before) == pytest.approx(
        {
            "size/1/matrix": math.sqrt((4 + 4) / 4),
            "update/1/matrix": math.sqrt(5 / 25),
            "spectrum/1/matrix/top": 2.0,
            "spectrum/1/matrix/stable_rank": 1.25 / 2,
            "spectrum/1/matrix/effective_rank": math.exp(-sum(p * math.log(p) for p in shares)) / 2,
            "size/1/element": math.sqrt((0.25 + 1) / 2),
            "update/1/element": math.sqrt(0.25 / 2),
        }
    )


def test_an_orthogonal_step_has_all_directions_alike_and_the_rate_for_its_length() -> None:
    layer = nn.Linear(4, 4, bias=False).double()
    optimizer = nl.optim.GradientDescent(layer.parameters(), lr=0.25)
    before = copies(optimizer)
    layer.weight.grad = 3 * torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    optimizer.step()
    found = scalars(optimizer, before)
    assert found["spectrum/1/matrix/top"] == pytest.approx(0.75)
    assert found["spectrum/1/matrix/stable_rank"] == pytest.approx(1.0)
    assert found["spectrum/1/matrix/effective_rank"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["DeepMomentum", "Nested", "SOAP", "M3", "Adam"])
def test_all_numbers_are_those_of_the_tensors_one_by_one(name: str) -> None:
    model = network()
    optimizer = getattr(nl.optim, name)(model.parameters())
    for _ in range(2):
        step(model, optimizer)
    before = copies(optimizer, memories=True)
    step(model, optimizer)
    found = scalars(optimizer, before)

    memories = {memory.name: memory for memory in nl.describe(optimizer).memories}
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    expected: dict[str, float] = {}
    level = memories["weights"].level
    expected[f"size/{level}/matrix"] = rms([parameter.detach() for parameter in matrices])
    changes = [parameter.detach() - before[id(parameter), ""] for parameter in matrices]
    expected[f"update/{level}/matrix"] = rms(changes) / rms([before[id(parameter), ""] for parameter in matrices])
    expected |= spectra(f"spectrum/{level}/matrix", [change.flatten(1) for change in changes])
    for role in set(memories) - {"weights"}:
        keys = [key for key in optimizer.state[matrices[0]] if key.startswith(f"{role}.model.")]
        held = [optimizer.state[parameter][key] for parameter in matrices for key in keys]
        where = f"{memories[role].level}/matrix.{role}"
        expected[f"size/{where}"] = rms(held)
        then = [before[id(parameter), key] for parameter in matrices for key in keys]
        if rms(then):
            expected[f"update/{where}"] = rms([a - b for a, b in zip(held, then, strict=True)]) / rms(then)
        if memories[role].holds == "map":
            expected |= spectra(f"spectrum/{where}", held)
        if memories[role].surprise is not None:
            expected[f"surprise/{where}"] = optimizer.surprise[role].item()
    own = {key: value for key, value in found.items() if "/matrix" in key}
    assert own == pytest.approx(expected, rel=1e-9)
    assert any(key.endswith("/element") for key in found)


def rms(tensors: list[torch.Tensor]) -> float:
    return torch.cat([tensor.reshape(-1).double() for tensor in tensors]).square().mean().sqrt().item()


def spectra(name: str, matrices: list[torch.Tensor]) -> dict[str, float]:
    each = []
    for matrix in matrices:
        values = torch.linalg.svdvals(matrix)
        shares = values**2 / (values**2).sum()
        ranks = 1 / shares[0], torch.special.entr(shares).sum().exp()
        each.append([values[0].item(), *(rank.item() / min(matrix.shape) for rank in ranks)])
    top, stable, effective = torch.tensor(each, dtype=torch.float64).mean(0).tolist()
    return {f"{name}/top": top, f"{name}/stable_rank": stable, f"{name}/effective_rank": effective}


def test_the_surprises_are_those_that_the_optimizer_says() -> None:
    model = network()
    optimizer = nl.optim.DeepMomentum(model.parameters(), levels=2)
    step(model, optimizer)
    found = {key: value for key, value in scalars(optimizer).items() if key.startswith("surprise/")}
    own = optimizer.surprise  # the memory behind each part of another one has its own name there, and one role here
    parts = [value.item() for name, value in own.items() if name.startswith("momentum.rule.")]
    assert found == pytest.approx(
        {
            "surprise/2/matrix.momentum": own["momentum"].item(),
            "surprise/3/matrix.momentum.momentum": sum(parts) / len(parts),
        }
    )
    assert len(parts) == 2


def test_levels_are_those_of_the_description_where_groups_have_their_own_pace() -> None:
    model = network()
    optimizer = nl.optim.M3(model.parameters())
    step(model, optimizer)
    names = {memory.name: memory.level for memory in nl.describe(optimizer).memories}
    assert {f"size/{names[name]}/matrix.{name}" for name in ("fast", "slow")} <= set(scalars(optimizer))
    assert f"size/{names['weights']}/matrix" in scalars(optimizer)


def test_chosen_tables_count_as_elements() -> None:
    table = nn.Embedding(6, 4)
    optimizer = nl.optim.Muon(table.parameters(), elementwise=[table])
    assert set(scalars(optimizer)) == {"size/1/element"}


def test_torchs_own_and_unknown_optimizers_are_measured_too() -> None:
    class Odd(torch.optim.SGD):
        def step(self, closure=None):  # type: ignore[no-untyped-def]
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["odd"] = torch.full((3,), 2.0)

    model = network()
    adamw, odd = torch.optim.AdamW(model.parameters()), Odd(model.parameters())
    step(model, adamw)
    step(model, odd)
    assert {"size/2/matrix.momentum", "size/2/element.second_moment"} <= set(scalars(adamw))
    assert scalars(odd)["size/2/matrix.odd"] == pytest.approx(2.0)


def test_what_nothing_defines_is_left_out_and_what_is_not_finite_says_so() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    before = copies(optimizer)
    assert scalars(optimizer, before) == {"size/1/matrix": 0.0, "spectrum/1/matrix/top": 0.0}
    weight.data[0, 0] = math.nan
    found = scalars(optimizer, before)
    assert math.isnan(found["size/1/matrix"]) and math.isnan(found["spectrum/1/matrix/top"])
    assert scalars(torch.optim.SGD([nn.Parameter(torch.zeros(0, 3))])) == {}


def test_bfloat16_weights_are_measured_in_single_precision_and_complex_ones_by_their_parts() -> None:
    narrow = torch.optim.SGD([nn.Parameter(torch.full((1000,), 1.0, dtype=torch.bfloat16))])
    assert scalars(narrow)["size/1/element"] == pytest.approx(1.0, rel=1e-6)
    parts = torch.optim.SGD([nn.Parameter(torch.tensor([3 + 4j]))])
    assert scalars(parts)["size/1/element"] == pytest.approx(math.sqrt(25 / 2))


def test_nothing_is_written_or_drawn() -> None:
    model = network()
    optimizer, unseen = nl.optim.DeepMomentum(model.parameters()), nl.optim.DeepMomentum(network().parameters())
    step(model, optimizer)
    drawn = torch.get_rng_state()
    held = {key: tensor.clone() for key, tensor in optimizer.state[model[0].weight].items()}
    scalars(optimizer, copies(optimizer, memories=True))
    scalars(unseen)
    assert torch.equal(torch.get_rng_state(), drawn) and not unseen.state
    assert all(torch.equal(optimizer.state[model[0].weight][key], held[key]) for key in held)


def test_optimizers_of_hosts_are_looked_into() -> None:
    inner = torch.optim.SGD([nn.Parameter(torch.ones(2))])
    outer = torch.optim.SGD([nn.Parameter(torch.ones(2))])
    outer.optimizer = inner  # type: ignore[attr-defined]
    assert unwrapped(outer) is inner and places(unwrapped(outer))[0].parameter is inner.param_groups[0]["params"][0]


def test_a_rank_measures_its_shard_and_no_spectrum_of_it() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        whole = torch.tensor([[3.0, 3.0], [3.0, 3.0], [7.0, 7.0], [7.0, 7.0]])
        mesh = init_device_mesh("cpu", (2,))
        weight = nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None))
        optimizer = torch.optim.SGD([weight], lr=0.5)
        before = copies(optimizer)
        weight.data.to_local().mul_(2)
        assert scalars(optimizer, before) == pytest.approx({"size/1/matrix": 6.0, "update/1/matrix": 1.0})
    finally:
        dist.destroy_process_group()
