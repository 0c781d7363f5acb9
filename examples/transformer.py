"""torch's own transformer, trained by AdamW, by Muon and by Nested: what to write where AdamW stood.

    python examples/transformer.py               # a quarter of a minute
    python examples/transformer.py --steps 300

Three things change against AdamW. Embeddings and the head are tables, and follow the rule for single entries; matrices
take a rate several times as large; and an attention block's weight holds three matrices, which `blocks` takes apart.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import nestlearn as nl

__all__ = ["Model", "main", "optimizers"]

TEXT = Path(__file__).resolve().parents[1] / "README.md"


class Model(nn.Module):
    """Bytes to logits of the next byte, by nn.TransformerEncoder."""

    def __init__(self, dim: int = 48, length: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, dim)
        self.places = nn.Parameter(torch.zeros(length, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 256)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [batch, length, 256] of tokens [batch, length]."""
        return self.head(self.encoder(self.embedding(tokens) + self.places, self.mask, is_causal=True))


def optimizers(model: Model) -> dict[str, torch.optim.Optimizer]:
    """AdamW, and what stands in its place."""
    tables = ["embedding.*", "places", "head.*"]
    ours = {"elementwise": tables, "elementwise_lr": 3e-3}
    three_in_one = nl.rules.partition(
        nl.rules.part(nl.rules.blocks(3, nl.rules.muon(0.8)), names="*in_proj_weight"),
        nl.rules.part(nl.rules.muon(0.8)),
    )
    named = list(model.named_parameters())
    return {
        "AdamW": torch.optim.AdamW(model.parameters(), lr=3e-3),
        "Muon": nl.optim.Muon(named, lr=0.015, retention=0.8, **ours),
        "Muon, projections apart": nl.optim.Optimizer(named, lr=0.015, matrix=three_in_one, **ours),
        "Nested": nl.optim.Nested(named, lr=0.015, **ours),
    }


def main(steps: int = 80, path: str = str(TEXT)) -> dict[str, float]:
    """Train with each; the mean loss of the last tenth of the steps, in nats a byte."""
    text, found = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8).long(), {}
    for name in optimizers(Model()):
        torch.manual_seed(0)
        model, losses = Model(), []
        optimizer = optimizers(model)[name]
        for _ in range(steps):
            window = torch.stack([text[place : place + 65] for place in torch.randint(len(text) - 64, (8,))])
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        last = losses[-max(1, steps // 10) :]
        found[name] = sum(last) / len(last)
        print(f"{name}: {found[name]:.3f} nats a byte")
    return found


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--steps", type=int, default=80)
    arguments.add_argument("--path", default=str(TEXT), help="any file")
    main(**vars(arguments.parse_args()))
