"""``python -m experiments.optimizers.nested.begin``: the search, of all contenders or of some, or all that is judged of
some of them.
"""

import argparse
import sys
from pathlib import Path

from experiments.optimizers.nested.plan import read_plan
from experiments.optimizers.nested.tables import outcome, searched
from experiments.optimizers.nested.work import Runs, carry_out, search

__all__ = ["main"]

HOME = Path(__file__).parent


def main() -> int:
    """Search settings in a run folder, new or begun, and print what was chosen, or judge it too."""
    parser = argparse.ArgumentParser(prog="python -m experiments.optimizers.nested.begin", description=main.__doc__)
    parser.add_argument("--size", choices=("quick", "full"), default="full", help="which plan")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="worker processes, one thread each")
    parser.add_argument("--only", default="", help="names of contenders, with commas between them [default: all]")
    parser.add_argument("--judge", action="store_true", help="go on to the judgement of these contenders alone")
    given = parser.parse_args()
    plan = read_plan(HOME / f"{given.size}.yaml")
    if given.judge:
        some = plan.some([name for name in given.only.split(",") if name])
        print("\n\n".join(outcome(some, carry_out(some, given.out, given.workers)).tables))
        return 0
    with Runs(plan, given.out, given.workers) as runs:
        courses = search(plan, runs, [name for name in given.only.split(",") if name])
        print(searched(plan, courses))
        print(f"\n{runs.hours:.2f} core-hours of training so far.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
