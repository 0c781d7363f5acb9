"""Which optimizers do what every optimizer should: ``python -m benchmarks.check``."""
