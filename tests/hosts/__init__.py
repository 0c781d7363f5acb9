"""The optimizers inside the libraries that users train with, the real ones; benchmarks/hosts has what is run."""
