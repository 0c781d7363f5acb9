"""The main job from the outside: what a user types, and what lies in the folder afterwards."""

import json
import re
import shutil
import signal
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from sameness import TIMES, differences
from typer.testing import CliRunner, Result

from nestlearn.cli.main import build_entry, main
from nestlearn.comparison import sweep as sweep_module
from nestlearn.training import loop

TINY = [
    "--tasks", "digits", "--optimizers", "Momentum,Adam", "--steps", "12", "--seeds", "0,1", "--workers", "1", "--set",
    "grow=1",
]  # fmt: skip


def call(*arguments: object) -> Result:
    return CliRunner().invoke(build_entry(), [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, call("compare", *TINY, "--out", folder)


@pytest.mark.slow
def test_a_tiny_comparison_ends_with_a_table_and_the_path_of_a_report(finished) -> None:
    folder, result = finished
    assert result.exit_code == 0, result.output
    assert "Handwritten digits" in result.output and f"report: {folder / 'report.html'}" in result.output
    for name in ("AdamW", "Momentum", "GradientDescent", "Adam"):
        assert re.search(rf"^ *{name} .*\d\.\d{{4}}", result.output, re.MULTILINE)
    assert re.search(r"(\d+) of \1 runs", result.output)  # plain progress lines when the output is no terminal


@pytest.mark.slow
def test_the_folder_holds_what_the_documentation_says(finished) -> None:
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "environment.json", "metrics.jsonl", "events.jsonl", "results.json", "systems.json",
        "report.html",
    }  # fmt: skip
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["kind"] == "compare" and config["optimizers"] == ["AdamW", "Momentum", "Adam", "Muon"]
    assert config["seeds"] == [0, 1] and config["steps"] == 12
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["threads_per_worker"] == 1 and environment["torch"] and environment["seconds"] > 0
    rows = {row["name"]: row for row in json.loads((folder / "results.json").read_text())["tasks"]["digits"]}
    assert len(rows["Momentum"]["test"]["loss"]["values"]) == 2 and rows["Momentum"]["state_bytes"] > 0
    assert rows["Momentum"]["control_name"] == "GradientDescent" and rows["Momentum"]["against_control"]
    assert {"train", "validation", "run"} == {
        json.loads(line)["kind"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    }


class References(HTMLParser):
    """Collects whatever a browser would fetch, and checks that elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        if tag not in ("meta", "link", "br", "img", "input", "hr", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_report_is_one_file_without_any_network_reference(finished) -> None:
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/1999/xhtml"}
    assert set(re.findall(r"https?://[^\s\"'<>)]+", page)) <= namespaces
    parser = References()
    parser.feed(page)
    assert parser.open == [] and parser.found
    assert all(reference.startswith(("#", "data:")) for reference in parser.found)
    assert "<script src" not in page and "@import" not in page and "url(http" not in page
    assert page.count("<svg") >= 4 and "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().replace("nanmean", "")


@pytest.mark.slow
def test_the_report_can_be_made_again_from_the_folder_alone(finished) -> None:
    folder, _ = finished
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    result = call("report", folder)
    assert result.exit_code == 0 and str(folder / "report.html") in result.output
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.slow
def test_resuming_a_finished_comparison_trains_nothing_and_gives_the_same_results(finished, monkeypatch) -> None:
    folder, _ = finished
    before = json.loads((folder / "results.json").read_text())
    monkeypatch.setattr(sweep_module, "train", lambda spec, should_stop: pytest.fail(f"trained {spec.key} again"))
    result = call("compare", "--resume", folder)
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "results.json").read_text()) == before


@pytest.mark.slow
def test_interrupting_keeps_finished_runs_and_says_how_to_continue(tmp_path, monkeypatch) -> None:
    count = 0

    def until_four(spec, should_stop):
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt
        return loop.train(spec)

    monkeypatch.setattr(sweep_module, "train", until_four)
    folder = tmp_path / "run"
    result = call("compare", *TINY, "--out", folder)
    assert result.exit_code == 130 and f"--resume {folder}" in result.output
    unfinished = call("report", folder)
    assert unfinished.exit_code == 2 and "not finished" in unfinished.output
    monkeypatch.setattr(sweep_module, "train", loop.train)
    resumed = call("compare", "--resume", folder, "--quiet")
    assert resumed.exit_code == 0 and resumed.stdout.strip() == str(folder / "report.html")
    assert json.loads((folder / "environment.json").read_text())["reused_runs"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizers", "Momentun"], "Did you mean 'Momentum'?"),
        (["--tasks", "digitz"], "Did you mean 'digits'?"),
        (["--preset", "dmo"], "Did you mean 'demo'?"),
        (["--seeds", "2..0"], "expected seeds such as 0..2 or 0,1"),
        (["--steps", "0"], "steps: expected"),
        (["--device", "tpu9"], "unknown device 'tpu9'"),
        (["--set", "kep=3"], "Did you mean 'keep'?"),
        (["--set", "sizes.digits.hiden=3"], "Did you mean 'hidden'?"),
        (["--set", "fixed.Momentum.lr=3"], "fixed.Momentum.lr: expected other arguments than lr"),
        (["--config", "nowhere.yaml"], "cannot read the settings nowhere.yaml"),
        (["--search", "random"], "expected 'grid' or 'tpe', got 'random'"),
        (["--executor", "ray"], "expected 'serial', 'processes' or 'dask', got 'ray'"),
        (["--optimizers", "no_such_module:make"], "cannot import the module of the optimizer 'no_such_module:make'"),
    ],
)
def test_bad_options_are_one_clear_line_and_leave_no_folder(tmp_path, arguments, message) -> None:
    result = call("compare", *TINY, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


OWN = """
import torch

def make(named_parameters, lr=0.3, *, weight_decay=0.0):
    \"\"\"Steps downhill.\"\"\"
    return torch.optim.SGD(named_parameters, lr, weight_decay=weight_decay)
"""


def test_settings_come_from_a_file_then_assignments_then_options(tmp_path, monkeypatch) -> None:
    (tmp_path / "an_optimizer_for_compare.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "preset: quick\ntasks: [digits]\noptimizers: [an_optimizer_for_compare:make]\nsteps: 9\nseeds: 0..1\n"
        "keep: 1\nlr_points: 1\nretentions: [0.9]\ninner_factors: [1]\nfixed: {Muon: {nesterov: false}}\n"
    )
    result = call(
        "compare", "--config", "mine.yaml", "--set", "steps=8", "--set", "grow=0", "--set", "points=3", "--steps", "6",
        "--workers", "1", "--out", "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["preset"], config["steps"], config["points"], config["trial_fraction"]) == ("quick", 6, 3, 0.25)
    assert config["optimizers"] == ["AdamW", "Muon", "an_optimizer_for_compare:make"]
    rows = {row["name"]: row for row in json.loads((tmp_path / "run" / "results.json").read_text())["tasks"]["digits"]}
    assert rows["an_optimizer_for_compare:make"]["about"] == "Steps downhill."
    assert rows["Muon"]["fixed"] == {"nesterov": False} and {row["trials_count"] for row in rows.values()} == {2}
    for row in rows.values():
        for text in row["warnings"]:
            assert f"warning: digits, {row['name']}: {text}" in result.stderr


def test_an_error_in_a_task_of_ones_own_is_one_line_and_the_lines_of_that_file(tmp_path, monkeypatch) -> None:
    file = tmp_path / "a_task_that_compare_fails.py"
    file.write_text(
        "import torch\n\ndef task():\n    def loss(model, batch):\n        return batch.missing\n\n"
        "    return torch.nn.Linear(2, 1), [torch.randn(4, 2) for _ in range(20)], loss\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "run"
    result = call("compare", *TINY, "--tasks", "a_task_that_compare_fails:task", "--out", folder)
    assert result.exit_code == 2 and "Traceback" not in result.output
    error, *frames, how = result.stderr.splitlines()
    assert "AttributeError: 'Tensor' object has no attribute 'missing'" in error
    assert f"  {file}, line 5, in loss: return batch.missing" in frames
    assert how.endswith(f"nestlearn compare --resume {folder} --import a_task_that_compare_fails")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_is_an_interrupt(tmp_path, monkeypatch, name) -> None:
    number = getattr(signal, name)
    monkeypatch.setattr(sweep_module, "train", lambda spec, should_stop: signal.raise_signal(number))
    before = signal.signal(number, signal.SIG_DFL)
    try:
        result = call("compare", *TINY, "--out", tmp_path / "run")
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert result.exit_code == 130
    assert result.stderr.strip() == (
        f"interrupted; finished runs are kept, continue with: nestlearn compare --resume {tmp_path / 'run'}"
    )


def test_a_file_that_is_gone_is_noticed_at_the_next_run_and_the_folder_is_not_made_again(tmp_path, monkeypatch) -> None:
    folder, count = tmp_path / "run", 0

    def train(spec, should_stop):
        nonlocal count
        count += 1
        if count == 3:
            (folder / "metrics.jsonl").unlink()
        return loop.train(spec)

    monkeypatch.setattr(sweep_module, "train", train)
    result = call("compare", *TINY, "--out", folder)
    assert result.exit_code == 2 and count == 3
    assert "metrics.jsonl was removed while it was being written" in result.stderr.splitlines()[0]
    assert not (folder / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_broken_line_is_set_aside_and_its_run_done_again(finished, tmp_path, monkeypatch) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "run"))
    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    (folder / "metrics.jsonl").write_bytes(b"\n".join([lines[0], b"\xff\xfe{", *lines[2:]]))
    trained = []
    monkeypatch.setattr(sweep_module, "train", lambda spec, should_stop: trained.append(spec.key) or loop.train(spec))
    result = call("compare", "--resume", folder)
    assert result.exit_code == 0 and len(trained) == 1, result.output
    assert "metrics.jsonl, line 2: not a record of a run" in result.stderr
    assert f"the run {trained[0]} is done again" in result.stderr
    tables = [json.loads((place / "results.json").read_text())["tasks"] for place in (finished[0], folder)]
    assert differences(*tables, ignore=TIMES) == []


def test_an_unwritable_folder_is_an_error_before_any_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sweep_module, "train", lambda spec, should_stop: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    result = call("compare", *TINY, "--out", tmp_path / "file" / "run")
    assert result.exit_code == 2 and "cannot write the run folder" in result.output


@pytest.mark.slow
def test_a_taken_folder_is_not_overwritten(finished) -> None:
    result = call("compare", *TINY, "--out", finished[0])
    assert result.exit_code == 2 and f"--resume {finished[0]}" in result.output


@pytest.mark.slow
def test_pictures_are_files_that_stand_alone(finished, tmp_path) -> None:
    folder, _ = finished
    result = call("report", folder, "--pictures", tmp_path / "pictures")
    assert result.exit_code == 0
    written = sorted((tmp_path / "pictures").glob("*.svg"))
    assert tmp_path / "pictures" / "digits-ranking.svg" in written
    for path in written:
        picture = path.read_text(encoding="utf-8")
        assert str(path) in result.output.replace("\n", "")
        drawn = ElementTree.fromstring(picture)
        assert [drawn.get("width"), drawn.get("height")] == drawn.get("viewBox", "").split()[2:]
        used = set(re.findall(r"var\((--[a-z0-9]+)\)", picture))
        assert used and all(f"{name}:" in picture for name in used), "a colour without a value"


@pytest.mark.slow
def test_pictures_need_a_folder_that_can_be_made(finished, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    result = call("report", finished[0], "--pictures", tmp_path / "file" / "below")
    assert result.exit_code == 2 and "error:" in result.output


def test_report_of_a_folder_that_is_none(tmp_path) -> None:
    result = call("report", tmp_path)
    assert result.exit_code == 2 and "not a run folder" in result.output


def test_without_the_extras_the_entry_says_how_to_install_them(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert 'pip install "nestlearn[cli]"' in str(caught.value) and "\n" not in str(caught.value)
