"""The feed-forward layer of a transformer, which remembers nothing (arXiv 2002.05202)."""

from torch import Tensor, nn
from torch.nn.functional import silu

from nestlearn.layers.sequence import SequenceLayer
from nestlearn.memory.state import State

__all__ = ["SwiGLU"]


class SwiGLU(SequenceLayer):
    """y = W_down (silu(W_gate x) * W_up x), token by token; its state is empty.

    Args:
        dim: width of the tokens.
        hidden: units; None is 8/3 dim, rounded up to a multiple of 8, as many numbers as a plain MLP of 4 dim has.
    """

    periods = ()

    def __init__(self, dim: int, *, hidden: int | None = None) -> None:
        super().__init__(dim)
        hidden = -(-8 * dim // 24) * 8 if hidden is None else hidden
        if hidden < 1:
            raise ValueError(f"hidden: expected at least 1 unit, got {hidden}")
        self.up, self.gate = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, dim, bias=False)

    def initial_state(self, batch_size: int) -> State:
        return {}

    def advance(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        return self.down(silu(self.gate(x)) * self.up(x)), {}
