"""nestlearn list: every name that can be typed, and a line on each."""

import pytest
from trained_hope import nestlearn

from nestlearn.cli.list import Kind
from nestlearn.cli.list_job import KINDS
from nestlearn.comparison import PRESETS
from nestlearn.contenders import CONTENDERS
from nestlearn.rules.registry import LINKS
from nestlearn.targets import TARGETS
from nestlearn.tasks import TASKS
from nestlearn.training.train_settings import shipped_settings

NAMES = {
    "tasks": TASKS,
    "optimizers": {**CONTENDERS, "torch.optim.SGD": None},
    "rules": LINKS,
    "targets": TARGETS,
    "configs": shipped_settings(),
    "presets": PRESETS,
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_begins_a_line_of_eighty_letters_at_most(kind, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = nestlearn("list", kind)
    assert done.exit_code == 0, done.output
    found = {line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")}
    assert set(NAMES[kind]) <= found
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert all(about for name, about in KINDS[kind]()[0].items())


def test_kinds_are_those_of_the_option():
    assert list(KINDS) == [str(kind) for kind in Kind]
    done = nestlearn("list", "task")
    assert done.exit_code == 2 and "tasks" in done.output
