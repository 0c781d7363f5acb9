"""Parameters of any shape, layout and kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from .members import EVERY, MEMBERS, OPEN, Member
from .problems import Bag, advance, assert_close, flat_state, network, quadratic, regression, snapshot
from .selections import MANY_KINDS, fast_for

EACH = fast_for(MANY_KINDS, MEMBERS)

SHAPES: list[tuple[int, ...]] = [
    (),
    (1,),
    (7,),
    (1, 1),
    (5, 3),
    (3, 5),
    (4, 4),
    (1, 6),
    (6, 1),
    (2, 3, 4),
    (4, 3, 2, 2),
    (2, 1, 3, 2, 2),
    (0,),
    (0, 3),
    (3, 0),
]


def values(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def train(member: Member, tensors: list[Tensor], steps: int = 3) -> Bag:
    """A bag of `tensors` after `steps` steps towards fixed random targets."""
    module = Bag([tensor.clone(memory_format=torch.preserve_format) for tensor in tensors])
    targets = [values(tuple(tensor.shape), seed=50) for tensor in tensors]
    advance(member, member.build(module), quadratic(module, steps, targets))
    return module


@pytest.mark.parametrize(**EVERY)
def test_every_shape_trains(member: Member) -> None:
    start = [values(shape, seed=index) for index, shape in enumerate(SHAPES)]
    module = train(member, start)
    for parameter, old in zip(module.parameters(), start, strict=True):
        assert parameter.isfinite().all()
        assert parameter.numel() == 0 or not torch.equal(parameter, old), parameter.shape


@pytest.mark.parametrize(**EACH)
def test_together_is_as_alone(member: Member) -> None:
    """A parameter's path does not depend on which other shapes the optimizer holds."""
    start = [values(shape, seed=index) for index, shape in enumerate(SHAPES)]
    together = list(train(member, start).parameters())
    for tensor, expected in zip(start, together, strict=True):
        (alone,) = train(member, [tensor]).parameters()
        torch.testing.assert_close(alone, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(**EVERY)
def test_a_convolution_is_a_matrix_of_its_output_channels(member: Member) -> None:
    weight = values((4, 3, 2, 2))
    target = values((4, 3, 2, 2), seed=1)
    kernel, matrix = Bag([weight.clone()]), Bag([weight.flatten(1).clone()])
    advance(member, member.build(kernel), quadratic(kernel, 4, [target]))
    advance(member, member.build(matrix), quadratic(matrix, 4, [target.flatten(1)]))
    torch.testing.assert_close(kernel.p0.detach().flatten(1), matrix.p0.detach(), rtol=1e-9, atol=1e-11)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "strided": lambda t: torch.stack([t, t], dim=-1)[..., 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(**EACH)
def test_the_layout_of_a_parameter_does_not_matter(member: Member, layout: str) -> None:
    start = [values(shape, seed=index) for index, shape in enumerate([(5, 3), (3, 5), (4, 4), (4, 3, 2, 2)])]
    strange = []
    for tensor in start:
        other = LAYOUTS[layout](tensor)
        assert torch.equal(other, tensor)
        strange.append(other)
    contiguous, module = Bag([t.clone() for t in start]), Bag(strange)
    assert not any(parameter.is_contiguous() for parameter in module.parameters())
    for bag in (contiguous, module):
        advance(member, member.build(bag), quadratic(bag, 3))
    assert_close(module, contiguous)


@pytest.mark.parametrize(**EVERY)
def test_channels_last_does_not_matter(member: Member) -> None:
    weight = values((4, 3, 2, 2))
    modules = []
    for layout in (torch.contiguous_format, torch.channels_last):
        module = Bag([weight.clone(memory_format=layout)])
        advance(member, member.build(module), quadratic(module, 3))
        modules.append(module)
    assert modules[1].p0.is_contiguous(memory_format=torch.channels_last)
    assert_close(modules[1], modules[0])


@pytest.mark.parametrize(**OPEN)
def test_the_layout_of_a_gradient_does_not_matter(member: Member) -> None:
    ends = []
    for expanded in (False, True):
        module = Bag([values((4, 3)), values((5,), seed=1)])
        optimizer = member.build(module)
        for _ in range(3):
            advance(member, optimizer, [])
            for parameter in module.parameters():
                grad = torch.full((), 0.5, dtype=torch.float64).expand(parameter.shape)
                parameter.grad = grad if expanded else grad.contiguous()
            optimizer.step()
        ends.append(module)
    assert_close(ends[1], ends[0])


@pytest.mark.parametrize(**EVERY)
def test_convolutional_layers_train(member: Member) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)).double()
    inputs, targets = values((8, 2, 4, 4)), values((8, 2), seed=1)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    losses = [lambda: (module(inputs) - targets).square().mean()] * 3
    advance(member, member.build(module), losses)
    for parameter, old in zip(module.parameters(), start, strict=True):
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, old)


@pytest.mark.parametrize(**OPEN)
def test_sparse_gradients_work_or_are_refused(member: Member) -> None:
    dense, sparse = (nn.Embedding(6, 3, sparse=flag, dtype=torch.float64) for flag in (False, True))
    sparse.load_state_dict(dense.state_dict())
    rows = torch.tensor([0, 2, 2])
    reference, optimizer = member.build(dense), member.build(sparse)
    dense(rows).square().sum().backward()
    sparse(rows).square().sum().backward()
    before = snapshot(optimizer)
    reference.step()
    try:
        optimizer.step()
    except (RuntimeError, ValueError, TypeError) as error:
        assert "sparse" in str(error)
        after = snapshot(optimizer)
        assert all(torch.equal(after[key], value) for key, value in before.items())
    else:
        assert_close(sparse, dense)


@pytest.mark.parametrize(**EVERY)
def test_complex_parameters_work_or_are_refused(member: Member) -> None:
    start = [torch.complex(values((4, 3)), values((4, 3), 1)), torch.complex(values((5,)), values((5,), 1))]
    module = Bag([tensor.clone() for tensor in start])
    try:
        losses = advance(member, member.build(module, lr=0.01), quadratic(module, 20))
    except (RuntimeError, ValueError, TypeError) as error:
        assert "complex" in str(error)
        assert all(torch.equal(p, old) for p, old in zip(module.parameters(), start, strict=True))
    else:
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(**EVERY)
def test_an_optimizer_of_empty_parameters_steps(member: Member) -> None:
    module = Bag([torch.zeros(0), torch.zeros(0, 4), torch.zeros(4, 0)])
    optimizer = member.build(module)
    advance(member, optimizer, quadratic(module, 2))
    assert all(value.isfinite().all() for state in flat_state(optimizer) for value in state.values())


@pytest.mark.parametrize(**EVERY)
def test_mixed_precisions_share_an_optimizer(member: Member) -> None:
    module = Bag([torch.ones(4, 3, dtype=dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)])
    advance(member, member.build(module, lr=0.05), quadratic(module, 3))
    assert [p.dtype for p in module.parameters()] == [torch.float64, torch.float32, torch.bfloat16]
    assert all(not torch.equal(p, torch.ones_like(p)) and p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(**EVERY)
def test_shared_weights_are_one_parameter(member: Member) -> None:
    module = network(widths=(4, 4, 4))
    module[2].weight = module[0].weight
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    assert module[2].weight is module[0].weight
    assert [int(state["step"]) for state in flat_state(optimizer)] == [3, 3, 3]
