"""Our optimizers beside those of other libraries, where these are installed: ``python -m benchmarks.peers``."""
