"""Check optimizers of every library that is installed: ``python -m benchmarks.check [--only "torch Adam"] [--quick]``.

What is found goes into results/scores.json, optimizer by optimizer; those that are not run again keep what they had.
``bash dev/docs`` makes the table of docs/check.md of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.optim.report import save
from nestlearn import optim
from nestlearn.check import Report, check
from nestlearn.errors import NestlearnError

__all__ = ["RESULTS", "SUBJECTS", "main"]

RESULTS = Path(__file__).parent / "results" / "scores.json"

TORCH = (
    *("AdamW", "Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD", "SGD"),
    *("Adafactor", "Muon", "LBFGS"),
)
OURS = sorted(set(optim.__all__) - {"Optimizer", "tables"})
HEAVYBALL = ("AdamW", "SGD", "Muon", "SOAP", "PSGDKron")
PYTORCH_OPTIMIZER = ("Lion", "AdaBelief", "AdEMAMix", "Lamb", "Prodigy", "SOAP", "Shampoo")
SCHEDULEFREE = ("AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree")
DION = ("Muon", "NorMuon", "Dion2")

SUBJECTS: dict[str, tuple[str, str]] = {
    **{f"torch {name}": ("torch", f"torch.optim:{name}") for name in TORCH},
    **{f"nestlearn {name}": ("nestlearn", f"nestlearn.optim:{name}") for name in OURS},
    **{f"heavyball {name}": ("heavyball", f"benchmarks.check.others:heavyball_{name}") for name in HEAVYBALL},
    **{f"pytorch-optimizer {name}": ("pytorch_optimizer", f"pytorch_optimizer:{name}") for name in PYTORCH_OPTIMIZER},
    **{f"schedulefree {name}": ("schedulefree", f"schedulefree:{name}") for name in SCHEDULEFREE},
    **{f"dion {name}": ("dion", f"benchmarks.check.others:dion_{name}") for name in DION},
}
"""Label -> the module of its library, and what ``check`` is given."""


def main() -> None:
    """Check them, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="labels that begin with this text")
    parser.add_argument("--quick", action="store_true", help="in one process alone, without saving")
    options = parser.parse_args()
    for label, (module, name) in SUBJECTS.items():
        if not label.startswith(options.only):
            continue
        if importlib.util.find_spec(module) is None:
            print(f"{label}: {module} is not installed", flush=True)
            continue
        try:
            report = check(name, isolated=not options.quick, hosts=not options.quick, ranks=not options.quick)
        except NestlearnError as error:
            print(f"{label}: {error}", flush=True)
            continue
        print(f"{label}: {report.passed} of {report.passed + report.failed}", flush=True)
        if not options.quick:
            found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
            found[label] = _entry(report, module)
            save({known: found[known] for known in SUBJECTS if known in found}, RESULTS)


def _entry(report: Report, module: str) -> dict[str, Any]:
    return {
        "passed": report.passed,
        "failed": {each.name: each.message for each in report.of("failed")},
        "not applicable": {each.name: each.message for each in report.of("not applicable")},
        "version": _version(module),
        "with": {name: _version(name) for name in ("torch", "accelerate", "transformers", "lightning")},
    }


def _version(module: str) -> str:
    """The version of an installed library; dion has none."""
    names = metadata.packages_distributions().get(module, [])
    return metadata.version(names[0]) if names else ""


if __name__ == "__main__":
    main()
