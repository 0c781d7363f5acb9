"""Benchmarks of training: what the loop costs beside the training itself, and runs that are killed and continued."""

__all__: list[str] = []
