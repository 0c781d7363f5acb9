"""Speed and memory of scans over tokens against attention: ``python -m benchmarks.ops``."""
