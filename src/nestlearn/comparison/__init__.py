"""Many runs, so that optimizers can be compared fairly: searches of equal size, sweeps on workers, the tuned table."""

from nestlearn.comparison.compare import compare
from nestlearn.comparison.compare_settings import PRESETS, CompareSettings, preset, resolve
from nestlearn.comparison.search import Search, plan
from nestlearn.comparison.summary import summarise
from nestlearn.comparison.sweep import SweepError

__all__ = ["PRESETS", "CompareSettings", "Search", "SweepError", "compare", "plan", "preset", "resolve", "summarise"]
