"""Reports of made-up results: what the tables and pictures say about winners, losers and runs that diverged."""

import csv
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from nestlearn.report import print_tables, write_report
from nestlearn.report.colours import stand_in, stylesheet, to_css
from nestlearn.report.pictures import _apart, curves, panels, ranking, rates, surprises
from nestlearn.report.tables import columns, table_rows, to_csv
from nestlearn.training import RunFolder, RunFolderError, RunResult, preset, resolve
from nestlearn.training.run_folder import write_atomic

SEEDS = (0, 1)


def figures(*losses: float) -> dict:
    mean = sum(losses) / len(losses)
    one = {"mean": mean, "spread": abs(losses[0] - losses[-1]), "values": list(losses)}
    return {"loss": one, "accuracy": {"mean": 95.0, "spread": 0.5, "values": [95.0] * len(losses)}}


def difference(*values: float) -> dict:
    return {"mean": sum(values) / len(values), "spread": 0.1, "values": list(values)}


def row(name: str, test: dict, **changes) -> dict:
    contender, control = name.removesuffix(" (control)"), name.endswith("(control)")
    trials = [{"settings": {"lr": lr, "retention": 0.9}, "status": "finished", "loss": 1 + lr} for lr in (0.01, 0.1)]
    fields = {
        "name": name, "contender": contender, "control": control, "family": "f", "equation": "O10", "about": "",
        "status": "finished" if test else "diverged", "reason": "" if test else "step 3: NaN", "test": test,
        "settings": {"lr": 0.1, "retention": 0.9}, "edges": [], "grid": {"lr": [0.01, 0.1]}, "trials": trials,
        "diverged_trials": 0, "validation": test, "step_ms": 2.0, "optimizer_ms": 0.5, "state_bytes": 80,
        "parameters": 10,
        "runs": [f"{name}/{seed}" for seed in SEEDS], "control_name": None, "control_is": "", "against_control": None,
        "against_baseline": None,
    }  # fmt: skip
    return {**fields, **changes}


ROWS = [
    row("Muon", figures(0.5, 0.6), control_name="Muon (control)", against_control=difference(-0.2, -0.3),
        against_baseline=difference(-0.4, 0.1), edges=["lr at the high edge"]),
    row("AdamW", figures(0.7, 0.8)),
    row("Muon (control)", figures(0.7, 0.9)),
    row("M3", {}, control_name="M3 (control)"),
]  # fmt: skip
RESULTS = {"baseline": "AdamW", "tasks": {"digits": ROWS}}


def runs() -> dict[str, RunResult]:
    found = {}
    for one in ROWS:
        for seed, key in zip(SEEDS, one["runs"], strict=True):
            found[key] = RunResult(
                key=key, task="digits", variant=one["name"], settings=one["settings"], seed=seed, steps=4, full=True,
                status=one["status"], curve=[[2, 0.1, 1.0], [4, 0.2, 0.6 + seed / 10]] if one["test"] else [],
                surprises=[[2, "momentum", 2.0], [4, "momentum", 1.0]] if one["name"] == "Muon" and seed == 0 else [],
            )  # fmt: skip
    return found


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "run")
    write_atomic(made.config, resolve(preset("demo"), tasks=("digits",), optimizers=("Muon", "M3")).to_yaml())
    facts = {"started": "2025-01-01", "processor": "a machine", "torch": "2", "workers": 2, "seconds": 60.0}
    write_atomic(made.environment, json.dumps(facts))
    write_atomic(made.results, json.dumps(RESULTS))
    for result in runs().values():
        made.add(result)
    return made


def test_losers_and_diverged_contenders_have_their_rows() -> None:
    cells = {line[0].text: line for line in table_rows(RESULTS, "digits")}
    assert list(cells) == ["Muon", "AdamW", "M3"]
    headings = [column.heading for column in columns("digits")]
    muon, m3 = (dict(zip(headings, cells[name], strict=True)) for name in ("Muon", "M3"))
    assert m3["test"].text == "diverged"
    assert muon["lr"].text == "0.1 ↑" and muon["test"].text == "0.5500 ± 0.1000" and muon["control"].text == "0.8000"
    assert muon["vs control"].text == "-0.2500" and muon["vs control"].good is True
    assert muon["vs AdamW"].good is None  # the seeds disagree on the sign


def test_the_csv_has_controls_and_every_seed() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(RESULTS, "digits"))))
    assert [line["optimizer"] for line in lines] == [one["name"] for one in ROWS]
    assert (
        lines[0]["test_loss_by_seed"] == "0.5 0.6" and lines[3]["status"] == "diverged" and lines[3]["test_loss"] == ""
    )


@pytest.mark.parametrize("width", [60, 90, 200])
def test_the_terminal_table_fits_and_keeps_the_essentials(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    print_tables(RESULTS, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in ("Muon", "AdamW", "M3", "diverged"))
    assert "…" not in text and ("state B/par" in text) == (width == 200)


def test_pictures_are_svg_in_the_colours_of_the_page() -> None:
    found = runs()
    for svg in (
        ranking(ROWS, "AdamW"), curves(ROWS, found, "AdamW"), panels(ROWS, found, "AdamW"), rates(ROWS, "AdamW"),
        surprises(ROWS, found),
    ):  # fmt: skip
        assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>") and "aria-label" in svg
        assert not re.search(r"#0[bc]01", svg), "a stand-in colour is left"
        assert to_css(stand_in("Muon")) in svg and "<metadata" not in svg
    assert "diverged" in ranking(ROWS, "AdamW") and surprises(ROWS[1:], found) == ""


@pytest.mark.parametrize("rows", [ROWS[1:2], [row("AdamW", {}), row("Muon", {})]], ids=["one alone", "all diverged"])
def test_pictures_of_next_to_nothing(rows: list[dict]) -> None:
    for svg in (ranking(rows, "AdamW"), curves(rows, runs(), "AdamW"), panels(rows, {}, "AdamW"), rates(rows, "AdamW")):
        assert svg.startswith("<svg")


def test_every_contender_has_a_colour_for_light_and_dark_paper() -> None:
    names = preset("demo").optimizers
    assert len({stand_in(name) for name in names}) == len(names)
    for dark in (False, True):
        assert all(f"{to_css(stand_in(name))[4:-1]}:" in stylesheet(dark) for name in [*names, "Unknown"])


def test_labels_are_kept_apart_inside_the_picture() -> None:
    places = _apart([0.0, 0.01, 0.02, 0.9, 1.0], gap=0.1, bottom=0.0, top=1.0)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(places))
    assert min(places) >= 0 and max(places) <= 1 + 1e-9
    assert _apart([0.2, 0.8], gap=0.1, bottom=0, top=1) == pytest.approx([0.2, 0.8])


def test_the_report_tells_who_won_who_lost_and_who_diverged(folder: RunFolder) -> None:
    path, notes = write_report(folder.path)
    page = path.read_text()
    assert notes == [] and "M3 diverged: step 3: NaN" in page
    assert "Better than AdamW on every seed: none" in re.sub(r"\s+", " ", page)
    assert "data:text/csv" in page and "prefers-color-scheme: dark" in page
    assert "/tmp" not in page


def test_broken_files_are_named_with_their_line_and_a_cut_last_line_is_only_noted(folder: RunFolder) -> None:
    with folder.metrics.open("a") as file:
        file.write('{"kind": "ru')
    _, notes = write_report(folder.path)
    assert notes == ["metrics.jsonl: the last line was cut short and is left out"]
    old = folder.report.read_bytes()
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join([lines[0], "broken", *lines[1:-1]]) + "\n")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 2"):
        write_report(folder.path)
    assert folder.report.read_bytes() == old


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", '{\n"a": \n}', r"results\.json, line 3"),
        ("config.yaml", "a: [", r"config\.yaml: the settings are not YAML"),
    ],
)
def test_other_broken_files(folder: RunFolder, name: str, content: str, message: str) -> None:
    (folder.path / name).write_text(content)
    with pytest.raises(RunFolderError, match=message):
        write_report(folder.path)
