"""``nestlearn train`` from the outside: what a user types, what lies in the folder, and that no kill changes it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from sameness import TIMES, differences, left_behind
from signals import SIGNALS, handled
from typer.testing import CliRunner, Result

from nestlearn.cli import train_job
from nestlearn.cli.main import build_entry
from nestlearn.files import Draft
from nestlearn.training.checkpoint import Checkpoints

TESTS = Path(__file__).parents[1]
TINY = [
    *("--task", "tiny_task:lines", "--optimizer", "DeepMomentum", "--set", "optimizer.hidden=4"),
    *("--seeds", "0..1", "--checkpoint-every", "20"),
]
RESUME = ("--import", "tiny_task", "--resume")  # the folder names the task, and a folder is not trusted
STEPS = 120


def call(*arguments: object) -> Result:
    return CliRunner().invoke(build_entry(), ["train", *map(str, arguments)])


def process(*arguments: object) -> subprocess.Popen:
    """``nestlearn train`` in a process of its own, as a shell starts it in front: what is started in the background of
    a script ignores SIGINT, and so would its children.
    """
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from nestlearn.cli.main import main; import sys; sys.argv[0] = 'nestlearn'; main()"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent / "src", TESTS))),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, "train", *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, call(*TINY, "--steps", STEPS, "--out", folder)


@pytest.mark.slow
def test_a_run_ends_with_a_table_and_the_path_of_a_report(whole) -> None:
    folder, result = whole
    assert result.exit_code == 0, result.output
    assert f"report: {folder / 'report.html'}" in result.output and (folder / "report.html").is_file()
    assert re.search(r"^DeepMomentum on tiny_task:lines: \d+ parameters", result.output, re.MULTILINE)
    assert re.search(r"^seed 1, step 120 of 120: training loss \d\.\d{4}, validation \d\.\d{4}", result.output, re.M)
    lines = [line for line in result.output.splitlines() if line.startswith("seed 0, step")]
    assert 15 <= len(lines) <= 25


def test_the_folder_holds_what_the_documentation_says(whole) -> None:
    folder, _ = whole
    page = (TESTS.parent / "docs" / "train.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([\w.]+/?)` \|", page.partition("## The run folder")[2], re.MULTILINE)
    assert sorted(name.rstrip("/") for name in table) == sorted(path.name for path in folder.iterdir())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["kind"] == "train" and config["task"] == {"name": "tiny_task:lines"} and config["seeds"] == [0, 1]


def wait_for(running: subprocess.Popen, path: Path, lines: int) -> None:
    """Until the file has that many lines; the process may not have ended before."""
    deadline = time.monotonic() + 300
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < deadline, f"{path} did not grow to {lines} lines"
        if running.poll() is not None:
            pytest.fail(f"the run ended before it could be killed: {running.communicate()}")
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [3, 200], ids=["at the start", "in the second seed"])
def test_a_killed_run_is_continued_to_the_same_bits(whole, tmp_path, lines: int) -> None:
    folder = tmp_path / "run"
    running = process(*TINY, "--steps", STEPS, "--out", folder)
    wait_for(running, folder / "metrics.jsonl", lines)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL and not (folder / "results.json").exists()
    result = call(*RESUME, folder, "--quiet")  # in another process than the one that began
    assert result.exit_code == 0 and result.output.strip() == str(folder / "report.html")
    assert differences(left_behind(whole[0]), left_behind(folder), ignore=TIMES) == []


@pytest.mark.slow
def test_an_interrupted_process_leaves_a_checkpoint_of_the_moment_and_the_way_to_go_on(whole, tmp_path) -> None:
    folder = tmp_path / "run"
    running = process(*TINY, "--steps", STEPS, "--checkpoint-every", 10**6, "--out", folder)
    wait_for(running, folder / "metrics.jsonl", 50)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 130 and f"continue with: nestlearn train --resume {folder}" in errors
    assert "Traceback" not in errors
    assert Checkpoints(folder / "checkpoints", "seed0").newest()[0]["training"]["steps_taken"] >= 40
    result = call(*RESUME, folder)
    first = re.search(r"^seed 0, step (\d+) of", result.output, re.MULTILINE)
    assert result.exit_code == 0 and first and int(first[1]) > 40, "the run began anew"
    assert differences(left_behind(whole[0]), left_behind(folder), ignore=TIMES) == []


def after(rows: int, act) -> object:
    """A stand-in for the progress bar that acts once, when so many rows were recorded."""

    @contextmanager
    def show(*_: object):
        count = 0

        def progress(training: object) -> None:
            nonlocal count
            count += 1
            if count == rows:
                act()

        yield progress

    return show


@pytest.mark.usefixtures("in_front")
@pytest.mark.parametrize("number", [pytest.param(number, marks=pytest.mark.slow) for number in SIGNALS])
def test_a_signal_ends_the_step_and_the_run_with_status_130(whole, tmp_path, monkeypatch, number: int) -> None:
    folder, handlers = tmp_path / "run", [signal.getsignal(one) for one in SIGNALS]
    with monkeypatch.context() as patched:
        patched.setattr(train_job, "show_training", after(30, lambda: signal.raise_signal(number)))
        result = call(*TINY, "--steps", STEPS, "--out", folder)
    assert (
        result.exit_code == 130
        and f"continue with: nestlearn train --resume {folder} --import tiny_task" in result.output
    )
    assert [signal.getsignal(one) for one in SIGNALS] == handlers
    assert Checkpoints(folder / "checkpoints", "seed0").newest()[0]["training"]["steps_taken"] == 30
    assert call(*RESUME, folder).exit_code == 0
    assert differences(left_behind(whole[0]), left_behind(folder), ignore=TIMES) == []


@pytest.mark.usefixtures("in_front")
def test_a_second_interrupt_does_not_wait(tmp_path, monkeypatch) -> None:
    def twice() -> None:
        # To this thread: of a signal to the process another thread may be told, and later.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one had to act at once")

    monkeypatch.setattr(train_job, "show_training", after(5, twice))
    result = call(*TINY, "--steps", STEPS, "--out", tmp_path / "run")
    assert result.exit_code not in (0, 2) and Checkpoints(tmp_path / "run" / "checkpoints", "seed0").paths()


@pytest.mark.slow
def test_an_interrupt_that_is_ignored_at_the_start_stays_so_and_sigterm_still_ends_the_run(
    whole, tmp_path, monkeypatch
):
    def both() -> None:
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        signal.raise_signal(signal.SIGTERM)

    folder = tmp_path / "run"
    with monkeypatch.context() as patched, handled(signal.SIG_IGN, signal.SIG_DFL, signal.SIG_DFL):
        patched.setattr(train_job, "show_training", after(3, lambda: signal.raise_signal(signal.SIGINT)))
        result = call(*TINY, "--steps", STEPS, "--out", folder)
        assert result.exit_code == 0, result.output
        assert differences(left_behind(whole[0]), left_behind(folder), ignore=TIMES) == []
        patched.setattr(train_job, "show_training", after(3, both))
        result = call(*TINY, "--steps", STEPS, "--out", tmp_path / "other")
        assert result.exit_code == 130 and "continue with:" in result.output


OWN = """
import torch

def task(fail="loss"):
    def loss(model, batch):
        loss.count += 1
        if fail == "loss" and loss.count == 30:
            raise KeyError("no such column")
        return model(batch).square().mean()

    loss.count = 0
    if fail == "build":
        raise TypeError("a mistake in the function")
    return torch.nn.Linear(2, 1), [torch.randn(4, 2) for _ in range(20)], loss
"""


def test_an_error_in_a_task_of_ones_own_is_one_line_and_the_lines_of_that_file(tmp_path, monkeypatch) -> None:
    file = tmp_path / "a_task_that_fails.py"
    file.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    options = ("--task", "a_task_that_fails:task", "--optimizer", "SGD", "--steps", "60")
    result = call(*options, "--out", tmp_path / "run")
    assert result.exit_code == 2 and "Traceback" not in result.output
    error, frame, how = result.stderr.splitlines()
    assert error == "error: KeyError: 'no such column'"
    assert frame == f'  {file}, line 8, in loss: raise KeyError("no such column")'
    assert how.endswith(f"continue with: nestlearn train --resume {tmp_path / 'run'} --import a_task_that_fails")
    result = call(*options, "--set", "task.fail=build", "--out", tmp_path / "other")
    assert result.stderr.startswith("error: TypeError: a mistake in the function\n")
    assert not (tmp_path / "other").exists()
    (tmp_path / "a_task_that_is_none.py").write_text("x = (\n")
    result = call("--task", "a_task_that_is_none:task", "--out", tmp_path / "other")
    assert result.exit_code == 2 and "SyntaxError: '(' was never closed (a_task_that_is_none.py" in result.stderr


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train_job, "show_training", lambda *_: json.loads("{"))
    result = call("--task", "quadratic", "--steps", "5", "--out", tmp_path / "run")
    assert isinstance(result.exception, ValueError)


def full(*_: object) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("write", ["rows", pytest.param("checkpoint", marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_the_command_that_goes_on(tmp_path, monkeypatch, write) -> None:
    folder = tmp_path / "run [red]"
    options = ["--task", "quadratic", "--optimizer", "Momentum", "--steps", "60", "--checkpoint-every", "20"]
    with monkeypatch.context() as patched:
        target = (os, "write") if write == "rows" else (Draft, "write")
        patched.setattr(train_job, "show_training", after(5, lambda: patched.setattr(*target, full)))
        result = call(*options, "--out", folder)
    assert result.exit_code == 2 and "Traceback" not in result.output
    error, how = result.stderr.splitlines()
    assert error.startswith("error: ") and "No space left on device" in error
    assert how == f"nothing before the last checkpoint is lost; continue with: nestlearn train --resume '{folder}'"
    assert not list(folder.rglob(".*")), "what could not be written takes no space"
    assert call("--resume", folder).exit_code == 0
    assert call(*options, "--out", tmp_path / "whole").exit_code == 0
    one, two = ((tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("run [red]", "whole"))
    assert one == two


def test_torchs_own_words_for_a_full_disk_are_those_of_the_disk(tmp_path, monkeypatch) -> None:
    """The files of this process may have 20,000 bytes, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            Checkpoints(tmp_path / "checkpoints", "seed0").save(1, {"weight": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.usefixtures("in_front")
def test_an_output_that_nobody_reads_ends_the_run_with_a_checkpoint(tmp_path, monkeypatch, capfd) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        given = {"task": "quadratic", "optimizer": "Momentum", "steps": 400}
        status = train_job.train_job(given, None, [], tmp_path / "run", None, [], False)
    assert status == 130
    assert capfd.readouterr().err.strip() == (
        "interrupted, as nobody reads the standard output, nothing is lost; continue with: nestlearn train --resume "
        f"{tmp_path / 'run'}"
    )
    assert Checkpoints(tmp_path / "run" / "checkpoints", "seed0").newest()[0]["training"]["steps_taken"] > 0


@pytest.mark.parametrize("name", ["r[", "r[/x]", "r[red]a"])
def test_a_folder_may_be_called_anything(tmp_path, name) -> None:
    folder = tmp_path / name / "run"
    result = call("--task", "quadratic", "--optimizer", "Momentum", "--steps", "2", "--out", folder)
    assert result.exit_code == 0 and f"run folder: {folder}\n" in result.output, result.output


def test_resuming_a_finished_run_trains_nothing(whole) -> None:
    folder, _ = whole
    before = left_behind(folder)
    result = call(*RESUME, folder, "--quiet")
    assert result.exit_code == 0 and result.output.strip() == str(folder / "report.html")
    assert differences(before, left_behind(folder)) == []


def test_what_torchrun_starts_again_by_the_same_command_is_continued(whole, monkeypatch) -> None:
    taken = call(*TINY, "--steps", STEPS, "--out", whole[0])
    assert taken.exit_code == 2 and "already holds a run" in taken.output
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = call(*TINY, "--steps", STEPS, "--out", whole[0])
    assert again.exit_code == 0 and "all seeds are finished" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "Moun"], "Did you mean 'Muon'?"),
        (["--task", "digitz"], "Did you mean 'digits'?"),
        (["--set", "optimizer.levls=2"], "Did you mean 'levels'?"),
        (["--set", "task.widht=3"], "Did you mean 'width'?"),
        (["--set", "stepz=3"], "unknown setting 'stepz'"),
        (["--set", "steps"], "expected key=value"),
        (["--seeds", "2..0"], "expected seeds such as 0..2 or 0,1"),
        (["--steps", "0"], "steps: expected greater than or equal to 1, got 0"),
        (["--device", "tpu9"], "unknown device 'tpu9'"),
        (["--config", "none.yaml"], "cannot read the settings none.yaml"),
    ],
)
def test_bad_options_are_one_clear_line_and_leave_no_folder(tmp_path, arguments, message) -> None:
    result = call(*TINY, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert result.output.startswith("error: ") and result.output.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SGD", "--set", "optimizer.momentum=fast"], "torch.optim.SGD on tiny_task:lines:"),
        (["torch.optim.Muon"], "only supports 2D parameters"),
    ],
)
def test_what_the_optimizer_itself_refuses_is_said_before_anything_is_written(tmp_path, arguments, message) -> None:
    result = call("--task", "tiny_task:lines", "--out", tmp_path / "run", "--optimizer", *arguments)
    assert result.exit_code == 2 and message in result.output and not (tmp_path / "run").exists()


def test_a_resumed_run_refuses_other_settings_by_name(whole) -> None:
    result = call(*RESUME, whole[0], "--lr", 0.5, "--steps", 7)
    assert result.exit_code == 2
    assert "optimizer.lr: was 0.052, now 0.5" in result.output and "steps: was 120, now 7" in result.output


def test_a_file_and_options_and_assignments_are_laid_over_each_other(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "task: {name: digits, hidden: 16, batch: 32}\noptimizer: {name: DeepMomentum, hidden: 8}\nsteps: 4\nlr_: 1\n"
    )
    result = call("--config", tmp_path / "mine.yaml", "--out", tmp_path / "run")
    assert result.exit_code == 2 and "unknown setting 'lr_'" in result.output
    (tmp_path / "mine.yaml").write_text(
        "task: {name: digits, hidden: 16, batch: 32}\noptimizer: {name: DeepMomentum, hidden: 8}\nsteps: 4\n"
    )
    result = call("--config", tmp_path / "mine.yaml", "--task", "digits", "--lr", 0.03, "--set", "task.batch=8",
                  "--set", "optimizer.levels=2", "--out", tmp_path / "run", "--quiet")  # fmt: skip
    assert result.exit_code == 0, result.output
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["task"] == {"name": "digits", "hidden": 16, "batch": 8} and config["steps"] == 4
    assert config["optimizer"]["hidden"] == 8 and config["optimizer"]["levels"] == 2
    assert config["optimizer"]["lr"] == 0.03


def test_a_taken_folder_and_a_folder_that_is_none(whole, tmp_path) -> None:
    result = call(*TINY, "--out", whole[0])
    assert result.exit_code == 2 and f"--resume {whole[0]}" in result.output
    result = call(*RESUME, tmp_path)
    assert result.exit_code == 2 and "not a run folder" in result.output
    result = call(*RESUME, whole[0], "--out", tmp_path)
    assert result.exit_code == 2 and "either --out or --resume" in result.output


def test_a_broken_checkpoint_is_said_and_the_older_one_taken(whole, tmp_path) -> None:
    folder = Path(shutil.copytree(whole[0], tmp_path / "run"))
    text = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(text[:-1]))  # as if killed before the last line
    newest, older = Checkpoints(folder / "checkpoints", "seed1").paths()
    newest.write_bytes(newest.read_bytes()[:500])
    result = call(*RESUME, folder)
    assert result.exit_code == 0 and f"note: the checkpoint {newest} is broken" in result.output
    assert f"Going on from {older.name} instead" in result.output
    assert differences(left_behind(whole[0]), left_behind(folder), ignore=TIMES) == []
    for path in (folder / "checkpoints").glob("seed1-*"):
        path.write_bytes(b"")
    (folder / "metrics.jsonl").write_text("".join(text[:-1]))
    result = call(*RESUME, folder)
    assert result.exit_code == 2 and "No whole checkpoint of seed1 is left" in result.output
