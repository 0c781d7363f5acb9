"""Tables, pictures and the one-file report of a run folder, made from its files alone."""

from nestlearn.report.page import write_pictures, write_report
from nestlearn.report.systems import write_systems
from nestlearn.report.terminal import print_tables

__all__ = ["print_tables", "write_pictures", "write_report", "write_systems"]
