"""Attention by torch's kernels, with slopes of every order: those of torch's plain form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.func import hessian, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from nestlearn.ops.attention import attention

CASES = pytest.mark.parametrize(("seen", "time"), [(0, 5), (0, 1), (3, 4), (3, 1)])


def drawn(seen: int, time: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 2, time, 4), (2, 2, seen + time, 4), (2, 2, seen + time, 4)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def plain(query: Tensor, key: Tensor, value: Tensor, seen: int) -> Tensor:
    """torch's own form in single operations, which is the truth here."""
    mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril(seen)
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def close(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("seen", "time"), [(3, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, 5), (0, 1), (3, 4)))]
)
def test_slopes_of_both_orders_are_those_of_the_plain_form(seen: int, time: int) -> None:
    given = drawn(seen, time)

    def found(form: Callable[..., Tensor], graph: bool) -> list[Tensor]:
        return list(torch.autograd.grad(form(*given, seen).sin().sum(), given, create_graph=graph))

    close(found(attention, False), found(plain, False))
    close(found(attention, True), found(plain, True))
    second = [torch.autograd.grad(sum(x.sin().sum() for x in found(form, True)), given) for form in (attention, plain)]
    close(*second)
    assert gradcheck(attention, (*given, seen))
    assert gradgradcheck(attention, (*given, seen))


@CASES
def test_transforms_are_those_of_the_plain_form(seen: int, time: int) -> None:
    given = [x.detach() for x in drawn(seen, time)]

    def loss(form: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *given: form(*given, seen).sin().sum()

    close(vmap(lambda *one: attention(*one, seen))(*given), plain(*given, seen))
    tangents = tuple(x.flip(-1) for x in given)
    close(*(jvp(loss(form), tuple(given), tangents) for form in (attention, plain)))
    close(*(hessian(loss(form), (0, 1, 2))(*given) for form in (attention, plain)))


def test_dual_numbers_of_torch_are_transforms_too() -> None:
    given = drawn(0, 5)
    assert gradcheck(lambda *x: attention(*x, 0), given, check_forward_ad=True)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(given[0], torch.ones_like(given[0]))
        assert forward_ad.unpack_dual(attention(dual, *given[1:], 0)).tangent is not None


def test_slopes_come_from_the_kernel_and_nothing_is_kept_twice() -> None:
    """Where no second slopes are wanted: the numbers that are kept, by their memory, are as many as the kernel's."""
    given = [x.detach().float().requires_grad_() for x in drawn(0, 5)]

    def kept(call: Callable[[], Tensor]) -> int:
        places: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            places[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with saved_tensors_hooks(pack, lambda x: x):
            y = call()
        del y
        return sum(places.values())

    assert kept(lambda: attention(*given, 0)) == kept(lambda: scaled_dot_product_attention(*given, is_causal=True))
    ours, kernels = (
        torch.autograd.grad(form.sin().sum(), given)
        for form in (attention(*given, 0), scaled_dot_product_attention(*given, is_causal=True))
    )
    assert all(map(torch.equal, ours, kernels))


def test_second_slopes_in_half_precision_under_autocast() -> None:
    """Scores are made in full precision, and the slope comes in the dtype of what it belongs to."""
    full = [x.detach().float().requires_grad_() for x in drawn(0, 5)]
    half = [x.detach().bfloat16().requires_grad_() for x in full]

    def second(given: list[Tensor]) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            (slope,) = torch.autograd.grad(attention(*given, 0).sin().sum(), given[0], create_graph=True)
            return list(torch.autograd.grad(slope.square().sum(), given))

    for found, expected in zip(second(half), second(full), strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.02)


def test_slopes_of_all_or_some() -> None:
    """Only what is wanted is asked for, in both orders."""
    query, key, value = drawn(0, 5)
    key, value = key.detach(), value.detach()
    first = torch.autograd.grad(attention(query, key, value, 0).sin().sum(), query, create_graph=True)[0]
    again = torch.autograd.grad(plain(query, key, value, 0).sin().sum(), query, create_graph=True)[0]
    close(first, again)
    close(*(torch.autograd.grad(x.sin().sum(), query)[0] for x in (first, again)))
    assert not attention(query.detach(), key, value, 0).requires_grad
