"""The state of a language model in the form in which transformers passes a cache from one step to the next."""

from __future__ import annotations

from typing import NoReturn

from torch import Tensor

from nestlearn.memory.state import State, repeat_state, select_state

__all__ = ["StateCache"]


class StateCache:
    """What has been read, for ``generate`` and for the forward pass of a `NestlearnForCausalLM`.

    As every cache of transformers it is written in place: the model that is given one leaves in it what it has read.
    The states in it are never written, so that ``kept = cache.state`` is what was read up to here, whatever follows.

    Args:
        state: of a `nestlearn.models.LanguageModel`, of any number of sequences; None before the first token.
        seen: how many columns of the batch were read, padding included.

    Example:
        >>> import nestlearn as nl
        >>> model = nl.models.hope(256, 16, 1, 2)
        >>> cache = StateCache(model.initial_state(2))
        >>> cache.reorder_cache(torch.tensor([1, 1, 0]))
        >>> cache.get_seq_length(), len(cache.state["parts"]["0"]["convolution"])
        (0, 3)
    """

    is_compileable = False
    is_croppable = False

    def __init__(self, state: State | None = None, seen: int = 0) -> None:
        self.state, self.seen = state, seen

    @property
    def is_linear(self) -> list[bool]:
        """False of its one layer: the text is in it, and is not read again."""
        return [False]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns of the batch were read."""
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these sequences [n], in this order; `nestlearn.models.select_state`."""
        self.state = None if self.state is None else select_state(self.state, beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """As `reorder_cache`."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every sequence so many times, its copies next to each other; `nestlearn.models.repeat_state`."""
        self.state = None if self.state is None else repeat_state(self.state, repeats)

    def reset(self) -> None:
        """Forget everything."""
        self.state, self.seen = None, 0

    def crop(self, *_: object, **__: object) -> NoReturn:
        """No token can be taken back.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "a memory cannot forget its last tokens: keep the state from before them, kept = cache.state, and go on "
            "from StateCache(kept, seen)"
        )
