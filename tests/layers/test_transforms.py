"""Every layer under torch.func and under activation checkpointing."""

import pytest
import torch
from every_layer import every_switch, make
from transforms import CONTRACT

from nestlearn.layers import SequenceLayer


@pytest.mark.parametrize("check", CONTRACT)
@every_switch
def test_what_it_gives_is_what_loops_and_autograd_give(name: str, check: str) -> None:
    def layer() -> SequenceLayer:
        torch.manual_seed(0)
        return make(name, 8, chunk=3)

    CONTRACT[check](layer)
