"""Your own text: Hope reads a file byte by byte, learns from it, and goes on from a prompt.

    python examples/own_text.py                          # this repository's own README, half a minute
    python examples/own_text.py letters.txt --steps 600 --prompt "Dear "

The state of its memories after the prompt is returned too: handed to the next call, it is what was read so far.
"""

import argparse
from pathlib import Path

import torch

import nestlearn as nl

__all__ = ["main"]

README = Path(__file__).resolve().parents[1] / "README.md"


def main(
    path: str = str(README), steps: int = 120, dim: int = 48, prompt: str = "A memory ", tokens: int = 120
) -> tuple[list[float], str]:
    """Train on a file and print what the model says; returns the losses in bits a byte, and what it said."""
    torch.manual_seed(0)
    text = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8).long()
    model = nl.models.hope(256, dim=dim, depth=2, heads=2, periods=(32, 128))
    tables = [model.embedding, model.head]
    optimizer = nl.optim.Muon(model.named_parameters(), lr=0.02, elementwise=tables, elementwise_lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses = []
    for step in range(steps):
        places = torch.randint(len(text) - 128, (8,))
        window = torch.stack([text[place : place + 129] for place in places])
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item() / 0.6931)
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: {losses[-1]:.2f} bits a byte")
    asked = torch.tensor([list(prompt.encode())])
    said, state = model.generate(asked, tokens, temperature=0.5, return_state=True)
    answer = bytes(said[0].tolist()).decode(errors="replace")
    print(answer)
    # What was read is in the state, so going on does not read it again.
    model.generate(torch.tensor([list(b" And")]), 20, state=state)
    return losses, answer


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("path", nargs="?", default=str(README), help="any file")
    arguments.add_argument("--steps", type=int, default=120)
    arguments.add_argument("--dim", type=int, default=48)
    arguments.add_argument("--prompt", default="A memory ")
    arguments.add_argument("--tokens", type=int, default=120, help="bytes to say")
    main(**vars(arguments.parse_args()))
