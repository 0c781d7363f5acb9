"""Tasks that take turns: their inputs and gradients are orthogonal, and the figures mean what they say."""

from itertools import islice

import pytest
import torch

from nestlearn.tasks import OrthogonalTasks

TASK = OrthogonalTasks(tasks=3, subspace=4, phase=5, batch=16, hidden=12, dtype=torch.float64)


def first_of_each_phase(task: OrthogonalTasks) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(islice(task.batches(0), 0, task.tasks * task.phase, task.phase))


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cosines of the principal angles between the row spaces, each of dimension 4."""
    bases = [torch.linalg.svd(rows, full_matrices=False)[2][:4] for rows in (one, other)]
    return torch.linalg.svdvals(bases[0] @ bases[1].T)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 1.0])
def test_inputs_of_two_tasks_have_the_cosine_asked_for(overlap):
    task = OrthogonalTasks(tasks=3, subspace=4, phase=5, batch=16, overlap=overlap, dtype=torch.float64)
    inputs = [inputs for inputs, _ in first_of_each_phase(task)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        found = cosines(inputs[one], inputs[other])
        torch.testing.assert_close(found, torch.full((4,), overlap, dtype=torch.float64), rtol=0, atol=1e-7)


def test_gradients_of_the_first_matrix_are_orthogonal_between_tasks_and_not_within_one():
    model, gradients = TASK.build(0), []
    for batch in list(islice(TASK.batches(0), 2)) + first_of_each_phase(TASK)[1:]:
        model.zero_grad()
        TASK.loss(model, batch).backward()
        gradients.append(model[0].weight.grad.clone())
    first, again, second, third = gradients
    assert (first @ again.T).norm() > 0.1 * first.norm() * again.norm()
    for one, other in ((first, second), (first, third), (second, third)):
        assert (one @ other.T).norm() < 1e-12


def test_tasks_take_turns_of_a_phase_and_come_back():
    stream = list(islice(TASK.batches(0), 20))
    spaces = [cosines(stream[0][0], inputs).max().item() > 0.5 for inputs, _ in stream]
    assert spaces == [True] * 5 + [False] * 10 + [True] * 5


def test_the_mean_answer_has_a_loss_of_one_for_every_task():
    class Nothing(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(inputs), 8, dtype=inputs.dtype)

    large = OrthogonalTasks(test_samples=20000)
    assert large.losses(Nothing(), "test") == pytest.approx([1.0] * 4, abs=0.03)


def test_figures_are_the_mean_loss_and_how_far_the_others_are_behind_the_best():
    model = TASK.build(0)
    losses, found = TASK.losses(model, "test"), TASK.evaluate(model, "test")
    assert found["loss"] == pytest.approx(sum(losses) / 3)
    assert found["forgetting"] == pytest.approx((sum(losses) - min(losses)) / 2 - min(losses))


def test_one_task_alone_is_learned_at_the_cost_of_the_others_and_turns_bring_them_together():
    forgetting = {}
    for phase in (10**6, 5):
        task = OrthogonalTasks(phase=phase, batch=32)
        model = task.build(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for batch in islice(task.batches(0), 200):
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()
        forgetting[phase] = task.evaluate(model, "validation")["forgetting"]
    assert forgetting[10**6] > 0.7 and forgetting[5] < 0.2, forgetting
