"""In which precision products are: the device's own choice, one for a process, one for a block."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from nestlearn.device import meta_stands_for
from nestlearn.ops.matrix import newton_schulz
from nestlearn.precision import no_autocast, product_dtype, products

DTYPES = [torch.float32, torch.bfloat16]
NATIVE = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def empty(dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.empty(0, dtype=dtype, device=device)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_block_chooses_on_every_device(dtype: torch.dtype, device: str) -> None:
    with products(dtype):
        for given in (torch.float32, torch.bfloat16, torch.float16):
            assert product_dtype(empty(given, device)) == dtype
        with meta_stands_for("cpu"):
            assert product_dtype(empty(device=device)) == dtype


@pytest.mark.parametrize("chosen", [None, *DTYPES], ids=str)
def test_float64_stays_float64(chosen: torch.dtype | None) -> None:
    with products(chosen):
        assert product_dtype(empty(torch.float64)) == product_dtype(empty(torch.float64, "meta")) == torch.float64


def test_without_a_choice_it_is_that_of_the_device() -> None:
    with products(None):
        assert product_dtype(empty()) == NATIVE
        assert product_dtype(empty(device="meta")) == torch.float32
        with meta_stands_for("cpu"):
            assert product_dtype(empty(device="meta")) == NATIVE


def test_blocks_nest_and_end_with_an_error_too() -> None:
    before = product_dtype(empty())
    with products(torch.bfloat16):
        with products(torch.float32):
            assert product_dtype(empty()) == torch.float32
            with products(None):
                assert product_dtype(empty()) == NATIVE
        assert product_dtype(empty()) == torch.bfloat16
        with pytest.raises(ZeroDivisionError), products(torch.float32):
            _ = 1 / 0
        assert product_dtype(empty()) == torch.bfloat16
    assert product_dtype(empty()) == before


def test_a_block_is_of_its_thread_alone() -> None:
    found = {}

    def ask() -> None:
        found["other"] = product_dtype(empty())

    before = product_dtype(empty())
    other = torch.float32 if before == torch.bfloat16 else torch.bfloat16
    with products(other):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert product_dtype(empty()) == other
    assert found["other"] == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, "float32"], ids=str)
def test_another_precision_is_an_error_that_says_what_was_expected(dtype: object) -> None:
    with pytest.raises(ValueError, match=r"expected torch.float32, torch.bfloat16 or None, got"), products(dtype):
        pass


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_left_to_the_choice_has_the_digits_of_it(dtype: torch.dtype) -> None:
    matrix = torch.randn(8, 20)
    with products(dtype):
        assert torch.equal(newton_schulz(matrix), newton_schulz(matrix, dtype=dtype))


ASK = """
import torch
from nestlearn.precision import product_dtype, products
print(*(product_dtype(torch.empty(0, dtype=dtype)) for dtype in (torch.float32, torch.float64)))
with products(None):
    print(product_dtype(torch.empty(0)))
"""


def python(program: str, value: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "NESTLEARN_PRODUCTS"}
    environment |= {} if value is None else {"NESTLEARN_PRODUCTS": value}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, NATIVE), ("", NATIVE), ("native", NATIVE), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_the_environment_variable_chooses_for_a_process(value: str | None, expected: torch.dtype) -> None:
    done = python(ASK, value)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(expected), "torch.float64", str(NATIVE)]


@pytest.mark.slow
@pytest.mark.parametrize("value", ["Float32", "float64", "half", "1"])
def test_another_value_is_an_error_that_says_what_was_expected(value: str) -> None:
    words = f"NESTLEARN_PRODUCTS: expected one of native, float32, bfloat16, got {value!r}"
    assert words in python(ASK, value).stderr
    command = "import sys; from nestlearn.cli.main import main; sys.argv = ['nestlearn', 'inspect']; main()"
    done = python(command, value)
    assert done.returncode == 1 and done.stderr == f"error: the environment variable {words}\n"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_keep_their_precision_under_autocast(device: str) -> None:
    factor = torch.ones(2, 2, device=device)
    with torch.autocast("cpu", torch.bfloat16), no_autocast(factor):
        assert (factor @ factor).dtype == torch.float32
