"""The wheel works where there is no checkout: it is built, installed into a fresh environment, and used from there.

torch and the other packages are those of the environment that runs the tests, nestlearn is the wheel's.
"""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from nestlearn import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"

TINY = ["--tasks", "digits", "--optimizers", "AdamW", "--steps", "2", "--seeds", "0", "--workers", "1", "--quiet"]
TINY += [
    word for text in ("lr_points=1", "grow=0", "keep=1", "points=1", "weight_decays=[0]") for word in ("--set", text)
]

EVERYTHING = """
import importlib, importlib.util, pkgutil, nestlearn
names = {entry.name for entry in pkgutil.walk_packages(nestlearn.__path__, "nestlearn.")}
if importlib.util.find_spec("transformers") is None:
    names.remove("nestlearn.models.huggingface")  # a part of transformers
modules = [importlib.import_module(name) for name in sorted(names)]
[getattr(nestlearn, name) for name in nestlearn.__all__]
print(len(modules), *sorted({module.__file__.rpartition("/nestlearn/")[0] for module in modules}), sep="\\n")
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; nothing from outside shows it the way to the checkout."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV"}
    outside = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=outside, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    options = ["--disable-pip-version-check", "--quiet", "--no-index", "--no-deps"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=folder)
    # After the environment's own packages come those that are here already. An editable nestlearn is none of them: what
    # shows Python the way to it is a .pth file, and such files are not read in a folder that another one names.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (own / "others.pth").write_text("".join(f"{path}\n" for path in sorted(paths)), encoding="utf-8")
    return folder


def nestlearn(environment: Path, *arguments: str | Path, cwd: Path) -> str:
    return run(environment / "bin" / "nestlearn", *arguments, cwd=cwd)


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    files = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "nestlearn").rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in packed if ".dist-info/" not in name} == files
    assert {Path(name).suffix for name in files} >= {".py", ".typed", ".css", ".js", ".j2", ".yaml", ".xz"}
    assert wheel.name == f"nestlearn-{__version__}-py3-none-any.whl"


def test_everything_is_imported_from_the_wheel(environment, tmp_path):
    count, *homes = run(environment / "bin" / "python", "-c", EVERYTHING, cwd=tmp_path).splitlines()
    without = importlib.util.find_spec("transformers") is None
    assert int(count) == len(list((SOURCE / "nestlearn").rglob("*.py"))) - 1 - without
    (home,) = homes
    assert Path(home).resolve().is_relative_to(environment.resolve())


def test_the_command_says_its_version(environment, tmp_path):
    assert nestlearn(environment, "--version", cwd=tmp_path) == f"nestlearn {__version__}\n"


def test_settings_that_are_shipped_are_found(environment, tmp_path):
    assert "of each sequence" in nestlearn(environment, "inspect", "--config", "hope", cwd=tmp_path)


def test_a_comparison_trains_on_shipped_data_and_its_report_is_made_again(environment, tmp_path):
    nestlearn(environment, "compare", *TINY, "--out", "run", cwd=tmp_path)
    report = tmp_path / "run" / "report.html"
    first = report.read_text(encoding="utf-8")
    assert f'"nestlearn": "{__version__}"' in (tmp_path / "run" / "environment.json").read_text(encoding="utf-8")
    for name in ("page.css", "pictures.css", "downloads.js", "tables.js", "legend.js", "crosshair.js"):
        assert (SOURCE / "nestlearn" / "report" / name).read_text(encoding="utf-8").strip()[:60] in first, name
    report.unlink()
    assert nestlearn(environment, "report", "run", cwd=tmp_path).strip() == str(Path("run") / "report.html")
    assert report.read_text(encoding="utf-8") == first
