"""Equal seconds and equal bytes, on made-up times and on the real networks of the tasks."""

from dataclasses import replace

import pytest
from made_up_runs import SETTINGS, bowl, outcome

from nestlearn.comparison.matched import plan_matched, total_bytes
from nestlearn.comparison.search import plan
from nestlearn.contenders import find_contenders
from nestlearn.tasks import make_task
from nestlearn.training import merge
from nestlearn.training.loop import train

BOTH = merge(SETTINGS, {"matched": ["time", "bytes"], "sizes": {"digits": {"hidden": 64}}})


def parameters(spec) -> int:
    return sum(p.numel() for p in make_task(spec.task, dict(spec.size), "cpu", "float32").build(0).parameters())


def finished(settings, milliseconds: dict[str, float], state: dict[str, float]):
    """Searches over made-up runs, with milliseconds a step and bytes of state a parameter by name."""
    searches = plan(find_contenders(["AdamW", "Muon"]), settings)

    def result(spec, loss: float):
        count = parameters(spec)
        own = spec.variant.contender
        return replace(
            outcome(spec, loss), step_ms=milliseconds[own], parameters=count, state_bytes=round(state[own] * count)
        )

    for one in searches:
        while fresh := one.next():
            for spec in fresh:
                one.record(result(spec, bowl(lr=0.05)(spec)))
    matched = plan_matched(searches)
    asked = []
    for one in matched:
        while fresh := one.next():
            asked += fresh
            for spec in fresh:
                one.record(result(spec, 1.0))
    return {one.search.variant.name: one for one in matched}, asked


def test_a_slower_optimizer_gets_fewer_steps_and_the_baseline_its_own() -> None:
    found, _ = finished(BOTH, {"AdamW": 1.0, "Muon": 2.5}, {"AdamW": 8, "Muon": 4})
    assert {spec.steps for spec in found["Muon"].at_time} == {16} and len(found["Muon"].at_time) == 2
    assert found["AdamW"].at_time == found["AdamW"].at_bytes == found["AdamW"].search.chosen()
    slow, _ = finished(BOTH, {"AdamW": 1.0, "Muon": 1000.0}, {"AdamW": 8, "Muon": 4})
    assert {spec.steps for spec in slow["Muon"].at_time} == {1}


@pytest.mark.parametrize(("bytes_", "direction"), [(4, 1), (12, -1), (40, -1)])
def test_the_network_is_scaled_to_the_bytes_of_the_baseline(bytes_: float, direction: int) -> None:
    found, asked = finished(BOTH, {"AdamW": 1.0, "Muon": 1.0}, {"AdamW": 8, "Muon": bytes_})
    muon = found["Muon"]
    width, limit = dict(muon.at_bytes[0].size)["hidden"], 16 * (64 * 64 + 64 + 640 + 10)
    assert direction * (width - 64) > 0
    assert total_bytes(muon.at_bytes[0], muon.results[muon.at_bytes[0].key]) <= limit
    wider = (8 + bytes_) * (64 * (width + 1) + (width + 1) + 10 * (width + 1) + 10)
    assert wider > limit  # the next width would not fit
    assert {spec.settings for spec in muon.at_bytes} == {muon.search.chosen()[0].settings}
    assert sum(spec.steps == 1 and not spec.full for spec in asked if not spec.variant.control) == 1  # one probe


def test_widths_that_a_network_cannot_have_are_passed_over() -> None:
    size = {"dim": 24, "heads": 4, "context": 16, "batch": 4, "validation_windows": 4, "test_windows": 4}
    settings = merge(BOTH, {"tasks": ["speeches"], "sizes": {"speeches": size}})
    found, _ = finished(settings, {"AdamW": 1.0, "Muon": 1.0}, {"AdamW": 8, "Muon": 20})
    assert dict(found["Muon"].at_bytes[0].size)["dim"] in (16, 20)


def test_a_task_of_one_size_has_no_equal_bytes() -> None:
    settings = merge(BOTH, {"tasks": ["ravine"], "sizes": {}})
    found, _ = finished(settings, {"AdamW": 1.0, "Muon": 1.0}, {"AdamW": 8, "Muon": 4})
    assert found["Muon"].at_bytes is None and found["Muon"].at_time is not None


def test_probes_measure_the_state_of_a_real_optimizer() -> None:
    settings = merge(BOTH, {"lr_points": 1, "retentions": [0.9], "keep": 1, "steps": 2, "matched": ["bytes"]})
    searches = plan(find_contenders(["AdamW", "DeepMomentum"]), settings)
    for course in searches:
        while fresh := course.next():
            for spec in fresh:
                course.record(train(spec))
    (deep,) = [one for one in plan_matched(searches) if one.search.variant.name == "DeepMomentum"]
    while fresh := deep.next():
        for spec in fresh:
            deep.record(train(spec))
    baseline = next(one for one in searches if one.variant.name == "AdamW")
    limit = total_bytes(baseline.chosen()[0], baseline.results[baseline.chosen()[0].key])
    used = total_bytes(deep.at_bytes[0], deep.results[deep.at_bytes[0].key])
    assert 0.9 * limit < used <= limit
