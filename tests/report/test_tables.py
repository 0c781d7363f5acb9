"""The tuned table: what its cells say about winners, losers and runs that diverged, and its CSV."""

import csv
import io
from dataclasses import replace

import pytest
from made_up_runs import row as bare

from nestlearn.report.tables import Cell, columns, helps, table_rows, to_csv, trials_csv
from nestlearn.training import Results, Row
from nestlearn.training.results import Difference, Equal, Reached, Sample


def cells(results: Results, name: str, task: str = "digits") -> dict[str, Cell]:
    shown = columns(results, task)
    row = next(line for line in table_rows(results, task, shown) if line[0].text == name)
    return dict(zip([column.heading for column in shown], row, strict=True))


def changed(results: Results, name: str, **changes) -> Results:
    """The results with some fields of one row changed."""
    rows = tuple(replace(row, **changes) if row.name == name else row for row in results.tasks["digits"])
    return replace(results, tasks={"digits": rows})


def by_name(rows: list[Row], name: str) -> Row:
    return next(row for row in rows if row.name == name)


def difference(*values: float, significant: bool | None = None, p: float | None = None) -> Difference:
    return Difference(sum(values) / len(values), 0.1, values, significant=significant, p=p)


def test_losers_and_diverged_contenders_have_their_rows(results: Results, rows: list[Row]) -> None:
    contenders = [row.name for row in rows if not row.control]
    shown = columns(results, "digits")
    assert [line[0].text for line in table_rows(results, "digits", shown)] == contenders
    controls = table_rows(results, "digits", shown, controls=True)
    assert [line[0].text for line in controls] == [row.name for row in rows if row.control]
    assert "M3" in contenders and cells(results, "M3")["test"] == Cell("diverged", good=False, sure=True)


def test_numbers_are_those_of_the_row(results: Results, rows: list[Row]) -> None:
    row = by_name(rows, "DeepMomentum")
    control = by_name(rows, row.control_name)
    found = cells(results, "DeepMomentum")
    loss = row.test["loss"]
    assert [float(part) for part in found["test"].text.split(" ± ")] == pytest.approx(
        [loss.mean, loss.spread], rel=6e-3
    )
    assert [float(part) for part in found["test"].note.split(" to ")] == pytest.approx(row.interval, rel=6e-3)
    assert found["control"].text == f"{control.test['loss'].mean:.4f}"
    assert found["accuracy %"].text == f"{row.test['accuracy'].mean:.2f}"
    assert float(found["state B/par"].text) == pytest.approx(row.state_bytes / row.parameters, abs=0.05)
    assert float(found["lr"].text.split()[0]) == row.settings["lr"]
    assert found["inner lr"].text == f"{row.settings['inner_lr']:g}"
    assert found["trials"].text == str(len(row.trials))


@pytest.mark.parametrize(
    ("values", "significant", "p", "expected"),
    [
        ((-0.2, -0.3) * 2, True, 0.01234, Cell("-0.2500*", "p 0.012", True, True)),
        ((0.2, 0.3) * 2, True, 0.0001, Cell("+0.2500*", "p < 0.001", False, True)),
        ((-0.2, -0.3) * 2, False, 0.2, Cell("-0.2500", "p 0.200", True, False)),  # all seeds agree
        ((-0.4, 0.1) * 2, False, 0.7, Cell("-0.1500", "p 0.700", None, False)),  # they do not
        ((-0.2, -0.3, -0.25), True, 0.001, Cell("-0.2500", "", True, False)),  # three seeds claim nothing
        ((-0.4,), None, None, Cell("-0.4000", "", True, False)),  # one seed
    ],
)
def test_differences_are_coloured_by_their_sign_and_marked_when_significant(
    results: Results, values: tuple, significant: bool, p: float, expected: Cell
) -> None:
    told = changed(results, "Momentum", against_control=difference(*values, significant=significant, p=p))
    assert cells(told, "Momentum")["vs control"] == expected


@pytest.mark.parametrize(("size", "good"), [(1.0, None), (1e-4, True)])
def test_rounding_is_no_result(size: float, good: bool | None) -> None:
    one = replace(bare("Muon"), test={"loss": Sample(size, None, (size,))})
    assert helps(one, difference(-1e-5, -1e-5)) is good and helps(one, None) is None


def test_small_losses_keep_their_digits(results: Results) -> None:
    tiny = Sample(1.234e-9, 2e-12, (1.234e-9,))
    told = cells(changed(results, "Momentum", test={"loss": tiny}, interval=[1e-9, 2e-9]), "Momentum")["test"]
    assert (told.text, told.note) == ("1.23e-09 ± 2e-12", "1e-09 to 2e-09")


@pytest.mark.parametrize(
    ("task", "note"), [("digits", "0.0000 to 0.2154"), ("no_such_module:task", "-0.0702 to 0.2154")]
)
def test_an_interval_ends_where_the_task_says_that_its_loss_does(
    results: Results, rows: list[Row], task: str, note: str
) -> None:
    told = changed(results, "Momentum", interval=(-0.0702, 0.2154))
    assert cells(replace(told, tasks={task: told.tasks["digits"]}), "Momentum", task)["test"].note == note


def test_a_target_that_some_seeds_miss_says_so(results: Results) -> None:
    found = Reached(target=1.0, steps=1234.5, seconds=2.0, reached=2, of=3)
    told = cells(changed(results, "Momentum", to_target=found), "Momentum")
    assert told["steps to target"] == Cell("1,234", "2 of 3 seeds") and told["s to target"].text == "2.00"
    nobody = replace(found, steps=None, seconds=None, reached=0)
    assert cells(changed(results, "Momentum", to_target=nobody), "Momentum")["steps to target"].text == "–"


def test_columns_at_equal_time_and_bytes_are_there_when_they_were_run(results: Results) -> None:
    assert "equal time" not in cells(results, "Momentum")
    at = Equal(90, {}, 5000, 0, 1.0, "finished", {"loss": Sample(0.5, None, (0.5,))}, ())
    told = cells(changed(results, "Momentum", equal_time=at, equal_bytes=at), "Momentum")
    assert told["equal time"] == Cell("0.5000", "90 steps") and told["equal bytes"] == Cell("0.5000", "5,000 par")


def test_an_arrow_shows_the_edge_at_which_a_value_lies(results: Results) -> None:
    edges = ["lr at the low edge", "retention at the high edge"]
    told = cells(changed(results, "Momentum", edges=edges), "Momentum")
    assert told["lr"].text.endswith(" ↓") and told["retention"].text.endswith(" ↑")


def test_a_task_of_the_users_own_need_not_be_importable(results: Results, rows: list[Row]) -> None:
    told = cells(replace(results, tasks={"no_such_module:task": tuple(rows)}), "AdamW", task="no_such_module:task")
    assert told["test"] == cells(results, "AdamW")["test"] and "accuracy %" not in told


def test_a_single_row_has_no_columns_of_comparisons(results: Results, rows: list[Row]) -> None:
    alone = replace(by_name(rows, "AdamW"), against_muon=None, to_target=None)
    headings = [column.heading for column in columns(replace(results, tasks={"digits": (alone,)}), "digits")]
    assert "test" in headings and not {"control", "vs control", "vs AdamW", "steps to target"} & set(headings)


def test_the_csv_holds_every_number_of_every_row_in_full(results: Results, rows: list[Row]) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(results, "digits"))))
    assert [line["name"] for line in lines] == [row.name for row in rows]
    for line, row in zip(lines, rows, strict=True):
        losses = list(row.test["loss"].values) if row.test else []
        assert [float(value) for value in line["test.loss.values"].split()] == losses
        p = row.against_baseline.p if row.against_baseline else None
        assert line["against_baseline.p"] == ("" if p is None else repr(p))
        assert line["warnings"] == "; ".join(row.warnings)
    diverged = next(line for line in lines if line["name"] == "M3")
    assert diverged["status"] == "diverged" and diverged["test.loss.mean"] == ""


def test_the_csv_of_the_trials_holds_each_of_them(results: Results, rows: list[Row]) -> None:
    lines = list(csv.DictReader(io.StringIO(trials_csv(results, "digits"))))
    expected = [(row.name, trial.settings["lr"], trial.loss) for row in rows for trial in row.trials]
    found = [(li["name"], float(li["settings.lr"]), float(li["loss"]) if li["loss"] else None) for li in lines]
    assert found == expected
