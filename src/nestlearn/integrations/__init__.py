"""What other libraries need of us beyond a ``torch.optim`` optimizer; each part is imported by its own name."""

__all__: list[str] = []
