"""``python -m experiments.sequence.stacking.prepare GGUF MOBY_DICK FOLDER``: see README.md."""

import argparse
from pathlib import Path

import torch

__all__ = ["prepare"]


def prepare(gguf: Path, book: Path, folder: Path) -> None:
    """Write the model as transformers reads it, and the book beside it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    given = {"gguf_file": gguf.name}
    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **given)
    if hasattr(packed.config, "quantization_config"):
        del packed.config.quantization_config  # the weights are numbers now
    model = LlamaForCausalLM(packed.config)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **given).save_pretrained(folder)
    (folder / "moby-dick.txt").write_text(book.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("gguf", "book", "folder"):
        parser.add_argument(name, type=Path)
    prepare(**vars(parser.parse_args()))
