"""What a dry run of a large model costs: ``python -m benchmarks.describe``."""
