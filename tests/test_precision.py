"""In which precision products are: the device's own choice, one for a process, one for a block."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
import torch

from nestlearn.device import meta_stands_for
from nestlearn.ops.whitening import newton_schulz
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


# Each value has a process of its own, forked where torch is loaded already but nothing of ours, as that takes seconds.
FORKS = """
import json, os, sys, tempfile, torch
program, values = json.loads(sys.argv[1])
found = []
for value in values:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.environ.pop("NESTLEARN_PRODUCTS", None)
            if value is not None:
                os.environ["NESTLEARN_PRODUCTS"] = value
            code = 1
            try:
                exec(program, {"__name__": "__main__"})
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                if not isinstance(end.code, int):
                    print(end.code, file=sys.stderr)
            except BaseException as error:
                print(error, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        found.append([code, out.read().decode(), err.read().decode()])
print(json.dumps(found))
"""

ASK = """
import torch
from nestlearn.precision import product_dtype, products
print(*(product_dtype(torch.empty(0, dtype=dtype)) for dtype in (torch.float32, torch.float64)))
with products(None):
    print(product_dtype(torch.empty(0)))
"""


def python(program: str, values: Sequence[str | None]) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of the program for each value of the variable."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps([program, values])], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout)]


@pytest.mark.slow
def test_the_environment_variable_chooses_for_a_process() -> None:
    chosen = {None: NATIVE, "": NATIVE, "native": NATIVE, "float32": torch.float32, "bfloat16": torch.bfloat16}
    for expected, (code, output, errors) in zip(chosen.values(), python(ASK, list(chosen)), strict=True):
        assert code == 0, errors
        assert output.split() == [str(expected), "torch.float64", str(NATIVE)]


@pytest.mark.slow
def test_another_value_is_an_error_that_says_what_was_expected() -> None:
    values = ["Float32", "float64", "half", "1"]
    command = "import sys; from nestlearn.cli.main import main; sys.argv = ['nestlearn', 'inspect']; main()"
    asked, called = python(ASK, values), python(command, values)
    for value, (code, _, errors), end in zip(values, asked, called, strict=True):
        words = f"NESTLEARN_PRODUCTS: expected one of native, float32, bfloat16, got {value!r}"
        assert code == 1 and words in errors
        assert end == (2, "", f"error: the environment variable {words}\n")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_keep_their_precision_under_autocast(device: str) -> None:
    factor = torch.ones(2, 2, device=device)
    with torch.autocast("cpu", torch.bfloat16), no_autocast(factor):
        assert (factor @ factor).dtype == torch.float32
