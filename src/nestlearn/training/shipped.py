"""Settings that come with the package: ``--config hope`` means ``configs/hope.yaml`` beside this file."""

from __future__ import annotations

from pathlib import Path

from nestlearn.errors import SettingsError, did_you_mean

__all__ = ["find_config", "shipped_configs"]

FOLDER = Path(__file__).parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """The files by their names."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_config(given: Path) -> Path:
    """The file that ``--config`` means: one of the user's if there is such a file, else a shipped one.

    Raises:
        SettingsError: there is neither; the message lists the shipped names.
    """
    shipped = shipped_configs()
    if given.exists() or str(given) not in shipped:
        if not given.exists() and given.suffix == "" and given.parent == Path():
            raise SettingsError(
                f"cannot read the settings {given}: expected a YAML file, or one of the shipped settings "
                f"{', '.join(shipped)}.{did_you_mean(given, shipped)}"
            )
        return given
    return shipped[str(given)]
