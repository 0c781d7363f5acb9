"""``python -m experiments.optimizers.deep_momentum``: see README.md."""

import sys
from pathlib import Path

from experiments.harness import main
from experiments.optimizers.deep_momentum import run

if __name__ == "__main__":
    sys.exit(main(run, Path(__file__).parent))
