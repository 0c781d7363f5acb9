"""Speed and memory of sequence models against a transformer and other libraries: ``python -m benchmarks.sequence``."""
