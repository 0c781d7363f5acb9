"""Who learns, by name: the contenders of a comparison, optimizers of one's own, and every optimizer class."""

from nestlearn.contenders.contender import Contender, Variant
from nestlearn.contenders.registry import BASELINE, CONTENDERS, MUON, find_contender, find_contenders

__all__ = ["BASELINE", "CONTENDERS", "MUON", "Contender", "Variant", "find_contender", "find_contenders"]
