"""The page and the files in it: what they say, and that they come from the folder's files alone."""

import base64
import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nestlearn.report import write_pictures, write_report, write_systems
from nestlearn.report.tables import to_csv
from nestlearn.training import Results, Row, RunFolder, RunFolderError


def files_in(page: str) -> dict[str, str]:
    """The files inside a page, unpacked, by name."""
    links = re.findall(r'href="data:application/gzip;base64,([^"]+)"[^>]*\sdata-name="([^"]+)"', page)
    return {name: gzip.decompress(base64.b64decode(data)).decode() for data, name in links}


@pytest.fixture(scope="module")
def page(made_up: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    path, notes = write_report(made_up.path)
    assert notes == []
    return path.read_text(encoding="utf-8")


def words(page: str) -> str:
    """The visible text of a page."""
    bare = re.sub(r"<(style|script|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))


def test_the_page_says_who_diverged_and_what_to_be_wary_of(page: str, rows: list[Row]) -> None:
    (diverged,) = (row for row in rows if row.name == "M3")
    assert f"M3 diverged: {diverged.reason}" in words(page)
    for row in rows:
        assert all(f"{row.name}: {warning}" in words(page) for warning in row.warnings)


def test_the_page_needs_nothing_but_itself_and_shows_no_path(page: str, made_up: RunFolder) -> None:
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']{0,20})""", page)
    assert addresses and all(address.startswith("data:application/gzip") for address in addresses)
    assert "@import" not in page and "url(" not in page and "<link" not in page
    inside = page + "".join(files_in(page).values())
    assert str(made_up.path.parent) not in inside and "/tmp" not in inside and str(Path.home()) not in inside


def test_one_folder_gives_one_page(folder: RunFolder) -> None:
    first = write_report(folder.path)[0].read_bytes()
    assert write_report(folder.path)[0].read_bytes() == first


def test_every_anchor_has_its_place(page: str) -> None:
    targets, places = set(re.findall(r'href="#([^"]+)"', page)), re.findall(r' id="([^"]+)"', page)
    assert targets <= set(places) and len(places) == len(set(places))


def test_the_files_inside_hold_what_the_folder_holds(page: str, made_up: RunFolder, results: Results) -> None:
    found = files_in(page)
    assert found["digits-table.csv"] == to_csv(results, "digits")
    assert found["results.json"] == made_up.results.read_text() and json.loads(found["results.json"])
    assert json.loads(found["systems.json"]) == json.loads((made_up.path / "systems.json").read_text())
    assert found["config.yaml"] == made_up.config.read_text()
    assert json.loads(found["environment.json"]) == json.loads(made_up.environment.read_text())


def test_the_curves_inside_hold_every_point(page: str, made_up: RunFolder, rows: list[Row]) -> None:
    runs, found = made_up.runs()[0], files_in(page)
    points = [
        (row.name, run.seed, split, *point)
        for row in rows for run in (runs[key] for key in row.runs)
        for split, series in (("train", run.train), ("validation", run.curve)) for point in series
    ]  # fmt: skip
    lines = [line.split(",") for line in found["digits-curves.csv"].splitlines()[1:]]
    assert [(line[0], int(line[1]), line[2], int(line[3])) for line in lines] == [point[:4] for point in points]
    assert [float(line[5]) for line in lines] == pytest.approx([point[5] for point in points], rel=1e-8)
    assert [float(line[4]) for line in lines] == pytest.approx([point[4] for point in points], abs=1e-5)
    looks = [look for row in rows for key in row.runs for look in runs[key].surprises]
    assert len(found["digits-events.csv"].splitlines()) == 1 + len(looks)


def test_without_systems_it_says_so(folder: RunFolder) -> None:
    (folder.path / "systems.json").unlink()
    path, notes = write_report(folder.path)
    assert "systems.json" in notes[0] and "The level score" not in words(path.read_text(encoding="utf-8"))


def test_a_folder_of_one_run(folder: RunFolder, results: Results, rows: list[Row]) -> None:
    (row,) = (row for row in rows if row.name == "DeepMomentum")
    nothing = dict.fromkeys(("against_control", "against_baseline", "against_muon", "to_target"))
    alone = replace(row, **nothing, control_name=None, trials=(), trials_count=0)
    only = Results(baseline=results.baseline, muon=results.muon, tasks={"digits": (alone,)})
    folder.results.write_text(json.dumps(only.to_plain()))
    folder.config.write_text("kind: train\n")
    page = words(write_report(folder.path)[0].read_text(encoding="utf-8"))
    assert "DeepMomentum, and what its memories did" in page and "The level score" in page
    assert not [words for words in ("vs AdamW", "Lowest test loss", "How the settings were chosen") if words in page]


def test_names_of_others_cannot_break_the_page(folder: RunFolder) -> None:
    text = folder.results.read_text().replace('"Momentum"', '"<b>mine</b>:\\"x\\", y"')
    folder.results.write_text(text)
    page = write_report(folder.path)[0].read_text(encoding="utf-8")
    assert "<b>mine</b>" not in page
    for svg in re.findall(r"<svg class=\"plot\".*?</svg></svg>|<svg class=\"plot\".*?</svg>", page, flags=re.DOTALL):
        assert "<b>" not in svg


def test_the_main_pictures_as_files(made_up: RunFolder, rows: list[Row], tmp_path: Path) -> None:
    written = write_pictures(made_up.path, tmp_path / "pictures")
    names = [path.name for path in written]
    assert names[:3] == ["digits-ranking.svg", "digits-steps.svg", "digits-seconds.svg"]
    assert set(names[3:]) == {f"digits-score-{row.name}.svg" for row in rows if not row.control}
    for path in written:
        assert ElementTree.fromstring(path.read_text(encoding="utf-8")).tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")


def test_systems_describe_every_optimizer_as_it_was_trained(made_up: RunFolder, rows: list[Row]) -> None:
    systems = json.loads((made_up.path / "systems.json").read_text())["digits"]
    assert list(systems) == [row.name for row in rows]
    names = {name: {memory["name"] for memory in system["memories"]} for name, system in systems.items()}
    assert names["GradientDescent"] == {"weights"}
    assert "momentum" in names["DeepMomentum"] and "momentum" not in names["DeepMomentum (control)"]
    retention = next(row for row in rows if row.name == "Momentum").settings["retention"]
    (momentum,) = (memory for memory in systems["Momentum"]["memories"] if memory["name"] == "momentum")
    assert float(momentum["retention"]) == retention


def test_results_that_are_none_say_where(folder: RunFolder) -> None:
    results = json.loads(folder.results.read_text())
    del results["tasks"]["digits"][0]["status"]
    folder.results.write_text(json.dumps(results))
    with pytest.raises(RunFolderError, match=r"results\.json: not the results of a run \(tasks\.digits\.0\.status"):
        write_report(folder.path)


def test_systems_of_a_folder_whose_specs_are_broken(folder: RunFolder) -> None:
    results = json.loads(folder.results.read_text())
    results["tasks"]["digits"][0]["spec"] = {"task": "digits"}
    folder.results.write_text(json.dumps(results))
    with pytest.raises(RunFolderError, match=r"results\.json: the spec of"):
        write_systems(folder.path)


def test_broken_lines_are_named_and_passed_over(folder: RunFolder) -> None:
    with folder.metrics.open("a") as file:
        file.write('{"kind": "ru')
    _, notes = write_report(folder.path)
    assert notes == ["metrics.jsonl: the last line was cut short and is left out"]
    old = folder.report.read_bytes()
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join([lines[0], "broken", *lines[1:-1]]) + "\n")
    _, (note,) = write_report(folder.path)
    assert "metrics.jsonl, line 2: not a record of a run, 'broken'" in note
    assert folder.report.read_bytes() == old
    folder.metrics.write_text("\n".join([*lines[1:-1]]) + "\n")
    _, (note,) = write_report(folder.path)
    assert "were lost or changed after they were written" in note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", '{\n"a": \n}', r"results\.json, line 3"),
        ("systems.json", "{", r"systems\.json, line 1"),
        ("config.yaml", "a: [", r"config\.yaml"),
        ("config.yaml", "preset: demo\n", r"config\.yaml: expected a field `kind`"),
    ],
)
def test_other_broken_files(folder: RunFolder, name: str, content: str, message: str) -> None:
    (folder.path / name).write_text(content)
    with pytest.raises(RunFolderError, match=message):
        write_report(folder.path)


def test_an_unfinished_folder_says_how_to_go_on(folder: RunFolder) -> None:
    folder.results.unlink()
    with pytest.raises(RunFolderError, match=r"not finished.*--resume"):
        write_report(folder.path)


@pytest.mark.slow
def test_the_command_makes_the_same_page_and_never_loads_torch(made_up: RunFolder, folder: RunFolder) -> None:
    """Torch alone takes longer than most reports, and more bytes than any."""
    script = (
        "import sys; from nestlearn.cli.main import main; sys.argv[1:] = ['report', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end\n"
        "assert not {'torch', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, folder.path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    expected, _ = write_report(made_up.path)
    assert folder.report.read_bytes() == expected.read_bytes()
