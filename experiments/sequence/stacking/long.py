"""``python -m experiments.sequence.stacking.long FOLDER [DEVICE]``: 65,536 tokens; run again, it goes on."""

import sys
from pathlib import Path

from experiments.sequence.stacking import run

if __name__ == "__main__":
    print("\n\n".join(run("long", Path(sys.argv[1]), 1, *sys.argv[2:]).tables))
