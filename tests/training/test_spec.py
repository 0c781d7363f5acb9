import json

from nestlearn.contenders import Variant
from nestlearn.training.spec import RunSpec


def test_a_spec_survives_json() -> None:
    spec = RunSpec(
        "digits", Variant("Muon", True), (("lr", 0.1), ("retention", 0.0)), seed=3, steps=10,
        fixed=(("hidden", 8), ("memory", False)), size=(("hidden", 16),), dtype="float64",
    )  # fmt: skip
    back = RunSpec.from_plain(json.loads(json.dumps(spec.to_plain())))
    assert back == spec and back.key == spec.key
