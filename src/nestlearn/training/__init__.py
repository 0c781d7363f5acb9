"""Training real networks on real data, so that optimizers can be compared fairly: runs, tuning, run folders."""

from nestlearn.training.comparison import compare
from nestlearn.training.config import PRESETS, Settings, parse_seeds, preset, resolve
from nestlearn.training.contender import Contender
from nestlearn.training.contenders import BASELINE, CONTENDERS, MUON, find_contender, find_contenders
from nestlearn.training.environment import environment
from nestlearn.training.loop import train
from nestlearn.training.run_folder import RunFolder, RunFolderError
from nestlearn.training.spec import RunResult, RunSpec, Variant
from nestlearn.training.summary import summarise
from nestlearn.training.sweep import SweepError
from nestlearn.training.tuning import Search, plan

__all__ = [
    "BASELINE",
    "CONTENDERS",
    "MUON",
    "PRESETS",
    "Contender",
    "RunFolder",
    "RunFolderError",
    "RunResult",
    "RunSpec",
    "Search",
    "Settings",
    "SweepError",
    "Variant",
    "compare",
    "environment",
    "find_contender",
    "find_contenders",
    "parse_seeds",
    "plan",
    "preset",
    "resolve",
    "summarise",
    "train",
]
