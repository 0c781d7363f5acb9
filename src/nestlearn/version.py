"""The version of the package, kept here alone: the build reads this file, so code and metadata can not disagree."""

__all__ = ["__version__"]

__version__ = "0.1.0"
