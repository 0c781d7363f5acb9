"""Links by the names that rules have as data."""

from collections.abc import Mapping
from types import MappingProxyType

from nestlearn.rules.averaged_weights import averaged_weights
from nestlearn.rules.blocks import blocks
from nestlearn.rules.boxes import average, second_moment, sum, sum_of_squares
from nestlearn.rules.combine import chain, parallel, within
from nestlearn.rules.covariances import regress
from nestlearn.rules.deep import deep
from nestlearn.rules.deep_adam import deep_adam
from nestlearn.rules.forget import delta, delta_entries, delta_inputs
from nestlearn.rules.keep import cautious
from nestlearn.rules.length import constant_norm, floor, radial, row_norm
from nestlearn.rules.link import Link, gradient
from nestlearn.rules.newton import newton
from nestlearn.rules.orthogonal import orthogonal, preconditioner
from nestlearn.rules.pace import every, outer
from nestlearn.rules.partition import part, partition
from nestlearn.rules.secant import secant
from nestlearn.rules.shape import features, keep_length, scale, unit_rows
from nestlearn.rules.slow import slow
from nestlearn.rules.towards import precondition
from nestlearn.rules.whiten import whiten

__all__ = ["LINKS"]

LINKS: Mapping[str, type[Link]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            average,
            averaged_weights,
            blocks,
            cautious,
            chain,
            constant_norm,
            deep,
            deep_adam,
            delta,
            delta_entries,
            delta_inputs,
            every,
            features,
            floor,
            gradient,
            keep_length,
            newton,
            orthogonal,
            outer,
            parallel,
            part,
            partition,
            precondition,
            preconditioner,
            radial,
            regress,
            row_norm,
            scale,
            secant,
            second_moment,
            slow,
            sum,
            sum_of_squares,
            unit_rows,
            whiten,
            within,
        )
    }
)
"""Every link that stands for itself, by its name."""
