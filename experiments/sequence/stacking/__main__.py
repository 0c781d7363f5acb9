"""``python -m experiments.sequence.stacking``: see README.md."""

import sys
from pathlib import Path

from experiments.harness import main
from experiments.sequence.stacking import run

if __name__ == "__main__":
    sys.exit(main(run, Path(__file__).parent))
