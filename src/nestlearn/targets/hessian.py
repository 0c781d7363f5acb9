"""P from curvature: the gradient divided by an estimate of the Hessian's diagonal ([S] 5: "such as the Hessian").

Two estimates, each averaged by a box and refreshed every ``period`` writes:

* Hutchinson: E[z * (H z)] = diag(H) for random signs z (Bekas, Kokiopoulou and Saad 2007; AdaHessian, arXiv
  2006.00719). One Hessian-vector product, so the closure must keep its graph.
* Gauss-Newton-Bartlett: batch size * g^ * g^, g^ the gradient of the mean loss at labels that the model itself has
  drawn (Sophia, arXiv 2305.14342). It estimates the diagonal of the Gauss-Newton matrix and is never negative.

The measurements themselves are made by ``nestlearn.optim.curvature``; here they arrive as observations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.rules import in_words
from nestlearn.targets.target import Target

__all__ = ["GaussNewton", "HessianDiagonal"]


@dataclass(frozen=True)
class HessianDiagonal(Target):
    """P = u / max(|h|, floor * rms(h)) with h the averaged Hutchinson estimate of the Hessian's diagonal.

    Args:
        retention: of the box that holds h.
        floor: curvatures below this share of the root mean square of h are raised to it: flat directions take bounded
            steps.
    """

    name: ClassVar[str] = "hessian"
    retention: float = 0.9
    floor: float = 0.1

    elementwise = False
    observation = "hessian_diagonal"
    needs_graph = True

    def memories(self, shape: torch.Size) -> tuple[Consulted, ...]:
        writes = "t" if self.period == 1 else f"ceil(t / {self.period})"
        return (
            average_box(
                "curvature",
                self.retention,
                value=Said(f"seen_{self.observation}", lambda scene: scene.observations[self.observation]),
                readout=Said(f"M / (1 - {in_words(self.retention)}^{writes})", self._corrected),
                every=self.period,
            ),
        )

    def _corrected(self, answer: Tensor, scene: Scene) -> Tensor:
        return answer / scene.number(lambda time: 1 - self.retention ** (time // self.period + 1))

    @property
    def words(self) -> str:
        return f"u / or_one(max(abs(curvature), {in_words(self.floor)} * rms(curvature)))"

    def __call__(self, scene: Scene) -> Tensor:
        # The average first, then its size: single estimates have both signs, and their sizes would not average out.
        curvature = scene.answers["curvature"].abs()
        rms = curvature.square().mean((-2, -1), keepdim=True).sqrt()
        # Without any curvature (a linear loss) there is nothing to divide by: the gradient stays as it is.
        return torch.where(rms > 0, scene.gradient / torch.maximum(curvature, self.floor * rms), scene.gradient)


@dataclass(frozen=True)
class GaussNewton(HessianDiagonal):
    """``HessianDiagonal`` with the Gauss-Newton-Bartlett estimate, which needs labels drawn from the model.

    Args:
        sampled_loss: runs the model, draws labels from its output distribution, and returns the mean loss at those
            labels.
        batch_size: how many examples that mean is over.
    """

    name: ClassVar[str] = "gauss_newton"
    sampled_loss: Callable[[], Tensor] | None = None
    batch_size: int = 1

    observation = "gauss_newton_diagonal"
    needs_graph = False

    def __post_init__(self) -> None:
        if self.sampled_loss is None:
            raise ValueError(
                "target 'gauss_newton' draws labels from the model: pass "
                "target=nl.targets.GaussNewton(sampled_loss=..., "
                "batch_size=...), where sampled_loss() returns the "
                "mean loss at labels sampled from the model's own output"
            )
