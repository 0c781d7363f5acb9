"""Speed of the optimizers against torch.optim, in ratios taken in one process: ``python -m benchmarks.optim``."""
