"""SOAP and SOAP-Muon against the same written out, one matrix at a time (O20)."""

import pytest
import torch
from torch import Tensor

import nestlearn as nl
from nestlearn.ops import newton_schulz
from nestlearn.rules import average, chain, second_moment, whiten, within

SAME = {"rtol": 1e-9, "atol": 1e-10}
DAMPING = 1e-5  # what tells directions apart that a covariance does not


def gradients(shape: tuple[int, ...], steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps)]


def told_apart(matrix: Tensor) -> Tensor:
    return matrix + DAMPING * torch.diag(matrix.diagonal())


class Reference:
    """SOAP as the paper has it, but for the first step, which knows no directions yet."""

    def __init__(self, shape: tuple[int, int], beta: tuple[float, float], kept: float, refresh: int, largest: int):
        self.beta, self.kept, self.refresh = beta, kept, refresh
        self.sides = [size <= largest for size in shape]
        self.covariances = [torch.zeros(size, size, dtype=torch.float64) for size in shape]
        self.bases = [torch.eye(size, dtype=torch.float64) for size in shape]
        self.m = self.v = torch.zeros(shape, dtype=torch.float64)
        self.time = 0

    def turned_in(self, matrix: Tensor) -> Tensor:
        left, right = self.bases
        return left.T @ matrix @ right

    def step(self, u: Tensor) -> Tensor:
        """The answer for a gradient."""
        first, second = self.beta
        self.m = first * self.m + (1 - first) * u
        seen = self.turned_in(u) if self.time else u.square().mean().sqrt() * torch.ones_like(u)
        self.v = second * self.v + (1 - second) * seen**2
        momentum = self.turned_in(self.m / (1 - first ** (self.time + 1)))
        inside = momentum / ((self.v / (1 - second ** (self.time + 1))).sqrt() + 1e-8)
        answer = self.bases[0] @ inside @ self.bases[1].T
        for place, new in enumerate((u @ u.T, u.T @ u)):
            self.covariances[place] = self.kept * self.covariances[place] + (1 - self.kept) * new
        if self.time % self.refresh == 0:
            self.bases = [self.basis(place) for place in range(2)]
        self.time += 1
        return answer

    def basis(self, place: int) -> Tensor:
        matrix = told_apart(self.covariances[place])
        if not self.sides[place]:
            return torch.eye(len(matrix), dtype=matrix.dtype)
        if self.time == 0:
            return torch.linalg.eigh(matrix)[1].flip(-1)
        return torch.linalg.qr(matrix @ self.bases[place])[0]


@pytest.mark.parametrize(("shape", "largest"), [((4, 4), 100), ((3, 5), 100), ((6, 3), 4)])
def test_soap_is_adam_in_an_eigenbasis_that_is_turned(shape, largest):
    weight = torch.nn.Parameter(torch.ones(shape, dtype=torch.float64))
    by_hand = weight.detach().clone()
    optimizer = nl.optim.SOAP(
        [weight], lr=0.1, betas=(0.8, 0.7), covariance_retention=0.9, refresh=3, largest_side=largest, weight_decay=0.1
    )
    reference = Reference(shape, (0.8, 0.7), 0.9, 3, largest)
    for time, gradient in enumerate(gradients(shape, 12)):
        weight.grad = gradient
        optimizer.step()
        by_hand = (1 - 0.1 * 0.1) * by_hand - 0.1 * reference.step(gradient)
        torch.testing.assert_close(weight.detach(), by_hand, **SAME, msg=f"step {time + 1}")


def test_soap_muon_is_the_orthogonal_matrix_next_to_what_soap_answers():
    weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.float64))
    optimizer = nl.optim.SOAPMuon([weight], lr=0.1, retention=0.8, nesterov=False, square_retention=0.7, refresh=3)
    reference = Reference((4, 4), (0.8, 0.7), 0.95, 3, 100)
    for gradient in gradients((4, 4), 8):
        before = weight.detach().clone()
        weight.grad = gradient
        optimizer.step()
        # The momentum of SOAP is corrected for its start, which changes its length alone.
        expected = 0.1 * 0.2 * 2 * newton_schulz(reference.step(gradient))
        torch.testing.assert_close(before - weight.detach(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("kind", "control"), [("SOAP", nl.optim.Adam), ("SOAPMuon", nl.optim.Muon)])
def test_the_control_remembers_no_covariance(kind, control):
    settings = {"betas": (0.95, 0.95)} if kind == "SOAP" else {"retention": 0.9}
    ours, plain = (torch.nn.Parameter(torch.ones(3, 4, dtype=torch.float64)) for _ in range(2))
    one, two = getattr(nl.optim, kind)([ours], lr=0.1, memory=False), control([plain], lr=0.1, **settings)
    for gradient in gradients((3, 4), 5):
        ours.grad = plain.grad = gradient
        one.step()
        two.step()
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-14)  # Adam is written by a kernel


def test_the_eigenbasis_alone_answers_as_soap_does():
    def stepped(rule: nl.rules.Link) -> Tensor:
        weight = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
        optimizer = nl.optim.Optimizer([weight], 0.1, matrix=rule)
        for gradient in gradients((4, 3), 6):
            weight.grad = gradient
            optimizer.step()
        return weight.detach()

    alone = stepped(chain(average(0.8), whiten("eigen", 0.9, refresh=2)))
    inside = chain(average(0.8), within(whiten("eigen", 0.9, refresh=2), second_moment(0.9)))
    torch.testing.assert_close(alone, stepped(inside))


def test_the_kl_form_sees_each_side_through_the_inverse_of_the_other():
    shape, kept, damping = (4, 3), 0.9, 0.1
    left, right = (torch.zeros(size, size, dtype=torch.float64) for size in shape)

    def mean_one(matrix: Tensor) -> Tensor:
        scale = matrix.diagonal().mean()
        return matrix / scale if scale > 0 else matrix

    def inverse(matrix: Tensor) -> Tensor:
        eye = torch.eye(len(matrix), dtype=matrix.dtype)
        return torch.linalg.inv(matrix + damping * matrix.diagonal().mean() * eye) if matrix.any() else eye

    def power(matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(
            matrix + damping * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
        )
        return vectors @ torch.diag(values**-0.5) @ vectors.T

    weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = nl.optim.Optimizer([weight], 1.0, matrix=whiten("kl", kept, power=-0.5, damping=damping))
    for gradient in gradients(shape, 6):
        before = weight.detach().clone()
        weight.grad = gradient
        optimizer.step()
        right = kept * right + (1 - kept) * mean_one(gradient.T @ inverse(left) @ gradient)
        left = kept * left + (1 - kept) * mean_one(gradient @ inverse(right) @ gradient.T)
        torch.testing.assert_close(before - weight.detach(), power(left) @ gradient @ power(right), **SAME)


@pytest.mark.parametrize("settings", [{"side": "errors"}, {"of": "layers"}])
def test_the_kl_form_needs_both_sides_of_a_gradient(settings):
    with pytest.raises(ValueError, match=r"one side of a gradient through the other, so it takes side='both'"):
        whiten("kl", **settings)


def test_a_side_that_is_too_large_has_no_covariance_and_is_left_as_it_is():
    wide = torch.nn.Parameter(torch.ones(2, 5, dtype=torch.float64))
    rule = whiten("root", 0.9, largest_side=4)
    optimizer = nl.optim.Optimizer([wide], 0.1, matrix=rule)
    alone = torch.nn.Parameter(torch.ones(2, 5, dtype=torch.float64))
    errors = nl.optim.Optimizer([alone], 0.1, matrix=rule.replace(side="errors"))
    for gradient in gradients((2, 5), 4):
        wide.grad = alone.grad = gradient
        optimizer.step()
        errors.step()
    assert torch.equal(wide, alone)
    assert {name.split(".")[1] for name in optimizer.state[wide] if "." in name} == {"errors"}
    said = str(nl.describe(optimizer))
    assert "whiten.errors" in said and "whiten.inputs" not in said


def test_a_side_that_is_left_as_it_is_is_printed():
    table, square = torch.nn.Parameter(torch.ones(9, 3)), torch.nn.Parameter(torch.ones(3, 3))
    printed = repr(nl.optim.Nested([table, square], largest_side=4)).splitlines()
    assert [line.endswith("batched matrices, errors longer than 4, left as they are") for line in printed[-2:]] == [
        "9x3" in line for line in printed[-2:]
    ]


def test_a_description_tells_matrices_apart_that_a_side_limit_does():
    small, large = (torch.nn.Parameter(torch.ones(3, size)) for size in (3, 6))
    optimizer = nl.optim.Optimizer([small, large], 0.1, matrix=whiten("root", largest_side=4))
    first = nl.describe(optimizer)
    said = [
        memory.update for system in (first, *first.others) for memory in system.memories if memory.home == "weights"
    ]
    assert said == ["whiten.errors @ u", "whiten.errors @ u @ whiten.inputs^T"]
