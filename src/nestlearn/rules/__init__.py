"""Rules as values: links that are put together into whatever writes the weights, or a memory behind them."""

from nestlearn.rules.averaged_weights import averaged_weights
from nestlearn.rules.blocks import blocks
from nestlearn.rules.boxes import average, second_moment, sum, sum_of_squares
from nestlearn.rules.combine import Basis, chain, parallel, within
from nestlearn.rules.covariances import regress
from nestlearn.rules.data import difference, from_data, to_data
from nestlearn.rules.deep import deep
from nestlearn.rules.deep_adam import deep_adam
from nestlearn.rules.forget import delta, delta_entries, delta_inputs
from nestlearn.rules.keep import cautious
from nestlearn.rules.length import constant_norm, floor, radial, row_norm
from nestlearn.rules.link import Link, Linked, as_rule, gradient, written
from nestlearn.rules.named import adam, muon
from nestlearn.rules.newton import newton
from nestlearn.rules.orthogonal import orthogonal, preconditioner
from nestlearn.rules.pace import every, outer
from nestlearn.rules.partition import part, partition
from nestlearn.rules.schedule import Schedule, ramp, with_lr
from nestlearn.rules.secant import secant
from nestlearn.rules.shape import features, keep_length, scale, unit_rows
from nestlearn.rules.slow import slow
from nestlearn.rules.text import parse
from nestlearn.rules.towards import precondition
from nestlearn.rules.whiten import whiten

__all__ = [
    "Basis",
    "Link",
    "Linked",
    "Schedule",
    "adam",
    "as_rule",
    "average",
    "averaged_weights",
    "blocks",
    "cautious",
    "chain",
    "constant_norm",
    "deep",
    "deep_adam",
    "delta",
    "delta_entries",
    "delta_inputs",
    "difference",
    "every",
    "features",
    "floor",
    "from_data",
    "gradient",
    "keep_length",
    "muon",
    "newton",
    "orthogonal",
    "outer",
    "parallel",
    "parse",
    "part",
    "partition",
    "precondition",
    "preconditioner",
    "radial",
    "ramp",
    "regress",
    "row_norm",
    "scale",
    "secant",
    "second_moment",
    "slow",
    "sum",
    "sum_of_squares",
    "to_data",
    "unit_rows",
    "whiten",
    "with_lr",
    "within",
    "written",
]
