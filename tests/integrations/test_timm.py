"""Registration without timm; tests/hosts has it with the real one."""

from __future__ import annotations

import sys

import pytest

import nestlearn as nl
from nestlearn.integrations.timm import register


def test_a_missing_package_is_answered_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "timm.optim", raising=False)
    monkeypatch.delitem(sys.modules, "timm.optim._optim_factory", raising=False)
    with pytest.raises(nl.errors.MissingPackageError, match="pip install timm"):
        register()
