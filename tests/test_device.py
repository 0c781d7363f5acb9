"""On which device a tensor is computed, and what one on the meta device stands for."""

import pytest
import torch

from nestlearn.device import device_of, meta_stands_for

REAL, META = torch.empty(0), torch.empty(0, device="meta")


def test_a_real_tensor_is_where_it_is() -> None:
    with meta_stands_for("cuda"):
        assert device_of(REAL).type == "cpu"


def test_a_tensor_on_meta_stands_for_what_the_innermost_block_says() -> None:
    assert device_of(META).type == "meta"
    with meta_stands_for("cpu"):
        assert device_of(META).type == "cpu"
        with meta_stands_for(torch.device("cuda", 1)):
            assert device_of(META) == torch.device("cuda", 1)
        assert device_of(META).type == "cpu"
    assert device_of(META).type == "meta"


def test_a_block_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), meta_stands_for("cpu"):
        _ = 1 / 0
    assert device_of(META).type == "meta"
