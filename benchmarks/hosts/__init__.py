"""Every optimizer in every library that trains: ``python -m benchmarks.hosts``."""
