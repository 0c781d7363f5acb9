"""Your own table: a network on the columns of a CSV file, trained by a memory and by its control.

    python examples/own_data.py                  # a made-up table, two seconds
    python examples/own_data.py flowers.csv      # numbers with a line of names; the last column is the class, 0, 1, ...

The same function is a task of the command line, which tunes everybody alike:

    nestlearn compare --tasks examples.own_data:table --optimizers Muon,AdamW --seeds 0..3
"""

import argparse
import csv

import torch
from torch import nn

import nestlearn as nl

__all__ = ["main", "table"]


def read(path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns [n, d], each with mean 0 and deviation 1, and classes [n]."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    numbers = torch.tensor(rows)
    columns = numbers[:, :-1]
    return (columns - columns.mean(0)) / columns.std(0).clamp_min(1e-6), numbers[:, -1].long()


def made_up() -> tuple[torch.Tensor, torch.Tensor]:
    """Two spirals in six columns, four of which are noise."""
    label = torch.arange(600) % 2
    angle = torch.rand(600) * 7
    spiral = torch.stack([angle.cos(), angle.sin()], 1) * (angle * (1 - 2 * label) / 7)[:, None]
    return torch.cat([spiral * 2, torch.randn(600, 4)], 1), label


def table(path: str = "", width: int = 32):
    """A task: model, batches, loss(model, batch), and batches that are held out."""
    columns, labels = read(path) if path else made_up()
    order = torch.randperm(len(labels))
    rows = list(zip(columns[order].split(50), labels[order].split(50), strict=True))
    held = max(1, len(rows) // 5)
    classes = int(labels.max()) + 1
    model = nn.Sequential(nn.Linear(columns.shape[1], width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
    model.append(nn.Linear(width, classes))

    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return model, rows[2 * held :], loss, {"validation": rows[:held], "test": rows[held : 2 * held]}


def main(path: str = "", epochs: int = 12) -> dict[str, float]:
    """Train with a memory and without; the test loss of each."""
    found = {}
    for name, retention in (("Muon", 0.9), ("Muon without its memory", 0.0)):
        torch.manual_seed(0)
        model, batches, loss, held_out = table(path)
        optimizer = nl.optim.Muon(model.parameters(), lr=0.03, retention=retention)
        for _ in range(epochs):
            for batch in batches:
                optimizer.zero_grad()
                loss(model, batch).backward()
                optimizer.step()
        with torch.no_grad():
            found[name] = sum(loss(model, batch).item() for batch in held_out["test"]) / len(held_out["test"])
        print(f"{name}: test loss {found[name]:.3f}")
    return found


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("path", nargs="?", default="", help="a CSV file")
    arguments.add_argument("--epochs", type=int, default=12)
    main(**vars(arguments.parse_args()))
