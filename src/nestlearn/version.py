"""The version of the package, from which the build reads it, so code and metadata can not disagree."""

__all__ = ["__version__"]

__version__ = "0.2.0"
