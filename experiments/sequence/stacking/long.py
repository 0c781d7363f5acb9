"""``python -m experiments.sequence.stacking.long FOLDER``: 65,536 tokens of the book; run again, it goes on."""

import argparse
from pathlib import Path

from experiments.sequence.stacking import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what is known already lies there")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print("\n\n".join(run("long", options.folder, 1, options.device).tables))
