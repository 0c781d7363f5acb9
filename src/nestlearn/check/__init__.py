"""What every optimizer should do, checked on anybody's: ``nestlearn check module:Optimizer``."""

from nestlearn.check.catalogue import CHECKS, Check
from nestlearn.check.outcome import NotApplicable, Outcome
from nestlearn.check.report import Report
from nestlearn.check.run import check

__all__ = ["CHECKS", "Check", "NotApplicable", "Outcome", "Report", "check"]
