"""The dry run of a training: what it counts, and that it needs no memory for it."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import nestlearn as nl
from nestlearn.precision import product_dtype, products
from nestlearn.training import TrainSettings, inspect_training, resolve_training

OWN = """
from torch import nn

def wide():
    return nn.Linear(600, 600, bias=False)

def billion():
    return nn.Sequential(*(nn.Linear(16384, 16384) for _ in range(4)))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "inspected_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "inspected_models"
    sys.modules.pop("inspected_models", None)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def either_precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Newton-Schulz takes other products in bfloat16 than in float32."""
    with products(request.param):
        yield


@pytest.mark.usefixtures("either_precision")
def test_large_matrices_are_counted_as_the_device_of_the_training_takes_them(own: str) -> None:
    """A CPU leaves out a part of the products of a large symmetric matrix in single precision, a GPU does not."""
    network = nn.Linear(600, 600, bias=False)
    optimizer = nl.optim.Muon(network.parameters())
    network(torch.ones(1, 600)).sum().backward()
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    settings = resolve_training(TrainSettings(), {"optimizer": "nl.optim.Muon"})
    cpu = inspect_training(settings, f"{own}:wide")
    gpu = inspect_training(settings.model_copy(update={"device": "cuda"}), f"{own}:wide")
    assert cpu.step_flops == counter.get_total_flops() <= gpu.step_flops
    assert (cpu.step_flops < gpu.step_flops) == (product_dtype(network.weight) == torch.float32)


@pytest.mark.slow
def test_a_billion_parameters_are_inspected_without_their_memory(own: str) -> None:
    program = f"""
        import resource, sys, time
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        start = peak()  # that of the process which started this one, if it was larger
        from nestlearn.training import TrainSettings, inspect_training, resolve_training

        settings = resolve_training(TrainSettings(), {{"optimizer": "DeepMomentum"}})
        began = time.process_time()
        found = inspect_training(settings, "{own}:billion")
        seconds = time.process_time() - began
        print(found.system.parameters, found.state_bytes, seconds, peak() - start)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    parameters, state, seconds, used = map(float, done.stdout.split())
    assert parameters > 1e9 and state > 8e9
    assert used < 1.5e9, "the weights alone would be 4 GB"
    assert seconds < 5
