"""What every optimizer should do, checked on anybody's: ``nestlearn check module:Optimizer``."""

from nestlearn.check.catalogue import CHECKS, Check
from nestlearn.check.outcome import Outcome
from nestlearn.check.report import Report
from nestlearn.check.run import check
from nestlearn.errors import NotApplicable

__all__ = ["CHECKS", "Check", "NotApplicable", "Outcome", "Report", "check"]
