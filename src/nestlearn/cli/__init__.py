"""The command line: one file a verb. The console entry is ``nestlearn.cli.main:main``."""

__all__: list[str] = []
