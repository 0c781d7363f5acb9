"""``python -m experiments.optimizers.from_adamw``: see README.md."""

import sys
from pathlib import Path

from experiments.harness import main
from experiments.optimizers.from_adamw import run

if __name__ == "__main__":
    sys.exit(main(run, Path(__file__).parent))
