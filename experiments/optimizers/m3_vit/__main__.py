"""``python -m experiments.optimizers.m3_vit``: see README.md."""

import sys
from pathlib import Path

from experiments.harness import main
from experiments.optimizers.m3_vit import run

if __name__ == "__main__":
    sys.exit(main(run, Path(__file__).parent))
