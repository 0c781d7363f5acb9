"""A description as data, as a table and as a picture."""

import re
from dataclasses import replace
from html import escape
from pathlib import Path
from time import process_time
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn.descriptions import Described, NestedSystem
from nestlearn.descriptions.data import sort_into_levels
from nestlearn.descriptions.table import readable_bytes

SPACE = "{http://www.w3.org/2000/svg}"


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 4))


def systems() -> list[NestedSystem]:
    model, hope = network(), nl.models.hope(16, 16, 2, 2)
    titans = nl.layers.SelfModifyingTitans(16, memory="mlp", inner_momentum=True, modify_query=True)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    return [
        nl.describe(model),
        nl.describe(torch.optim.SGD(model.parameters()), model),
        nl.describe(torch.optim.AdamW(model.parameters())),
        nl.describe(torch.optim.ASGD(model.parameters())),
        nl.describe(torch.optim.NAdam(model.parameters())),
        nl.describe(nl.optim.M3(model.parameters())),
        nl.describe(nl.optim.DeepMomentum(model.parameters(), levels=3)),
        nl.describe(nl.optim.DeepAdam(model.parameters(), levels=2), model),
        nl.describe(nl.optim.SecantMomentum(matrices, model=model), model),
        nl.describe(hope, torch.optim.AdamW(hope.parameters())),
        nl.describe(hope, nl.optim.DeepMomentum(hope.parameters(), levels=2)),
        nl.describe(titans),
        nl.describe(nl.models.hope_attention(16, 16, 1, 2, variant="nested")),
    ]


EVERY = pytest.mark.parametrize("system", systems(), ids=lambda system: f"{system.name}-{len(system.memories)}")


@EVERY
def test_json_comes_back_equal(system):
    assert NestedSystem.from_dict(system.to_dict()) == system


@pytest.mark.parametrize("change", [{"extra": 1}, {"name": None}])
def test_a_dictionary_of_another_shape_is_refused(change):
    data = nl.describe(nn.Linear(2, 2)).to_dict() | change
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(ValueError, match=r"expected the dictionary of a NestedSystem.*(extra|name)"):
        NestedSystem.from_dict(data)


def test_levels_follow_pace_and_need():
    weights = Described("weights", home="weights")
    slow = Described("slow", consulted_by="weights", period=5)
    fast = Described("fast", consulted_by="weights")
    deeper = Described("deeper", consulted_by="fast")
    watcher = Described("watcher", follows="weights")
    found = {memory.name: memory.level for memory in sort_into_levels([weights, slow, fast, deeper, watcher])}
    assert found == {"slow": 1, "watcher": 2, "weights": 3, "fast": 4, "deeper": 5}


def test_tokens_are_faster_than_steps():
    weights = Described("weights", home="weights", period=10)
    block = Described("block", unit="token", period=1000)
    fast = Described("fast", unit="token")
    generator = Described("generator", unit="token", consulted_by="fast", fresh=False)  # asked before all writes
    box = Described("box", unit="token", consulted_by="fast")
    found = {memory.name: memory.level for memory in sort_into_levels([box, generator, fast, block, weights])}
    assert found == {"weights": 1, "block": 2, "fast": 3, "generator": 3, "box": 4}


def test_descriptions_from_before_tokens_are_read():
    system = nl.describe(torch.optim.AdamW(nn.Linear(2, 2).parameters()))
    old = system.to_dict()
    del old["sequence_bookkeeping"]
    for memory in old["memories"]:
        for name in ("unit", "chunk", "read_by", "starts_from", "bytes_per_token", "max_tokens"):
            del memory[name]
    assert NestedSystem.from_dict(old) == system


def test_a_layer_may_have_the_name_of_a_memory():
    layers = [Described("momentum", home="weights"), Described("momentum", consulted_by="weights")]
    assert [memory.level for memory in sort_into_levels(layers)] == [1, 2]


def test_all_layers_share_the_level_of_the_weights():
    layers = [Described("a", home="weights"), Described("b", home="weights"), Described("box", consulted_by="weights")]
    assert [memory.level for memory in sort_into_levels(layers)] == [1, 1, 2]


@EVERY
def test_the_table_names_every_memory_and_fits_a_screen(system):
    text = str(system)
    for part in system.everything:
        assert all(memory.name in text for memory in part.memories)
        assert all(note in " ".join(text.split()) for note in part.notes)
    assert max(map(len, text.splitlines())) <= 120
    assert text.splitlines()[0].startswith(f"{system.name}: {len(system.memories)} memor")


def test_the_table_of_adamw_is_its_rule():
    text = str(nl.describe(torch.optim.AdamW(nn.Linear(8, 4).parameters(), lr=0.25)))
    assert "W <- (1 - lr * weight_decay) W - lr (m_hat / (sqrt(v_hat) + eps))" in " ".join(text.split())
    assert "m_hat = m / (1 - beta1^t)" in text and "lr 0.25" in text
    assert re.search(r"^2 +every step +momentum \(m\) +box +2 +36 +144 B$", text, re.MULTILINE)


def test_the_page_shows_the_table_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "describe.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
    hope = nl.models.hope(256, dim=64, depth=2, heads=4)
    assert shown == [
        str(nl.describe(torch.optim.AdamW(model.parameters()))),
        str(nl.describe(hope, torch.optim.AdamW(hope.parameters()))),
    ]


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5,120.0 GiB")]
)
def test_bytes_in_words(count, words):
    assert readable_bytes(count) == words


def boxes(picture: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of every rectangle."""
    found = []
    for rect in picture.iter(f"{SPACE}rect"):
        x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height))
    return found


@EVERY
def test_the_picture_stands_alone_and_says_what_it_shows(system):
    picture = ElementTree.fromstring(system.svg())
    assert picture.get("role") == "img" and system.name in picture.get("aria-label")
    title, description = picture.find(f"{SPACE}title"), picture.find(f"{SPACE}desc")
    assert title.text and all(memory.name in description.text for part in system.everything for memory in part.memories)
    assert not re.search(r"href|url\(|@import|<script|<image|\sid=", system.svg())
    used = re.findall(r"var\(--[^)]*\)", system.svg())
    assert used and all("," in colour for colour in used), "a colour without a fallback"


@EVERY
def test_boxes_are_nested_and_never_overlap(system):
    found = boxes(ElementTree.fromstring(system.svg()))
    _, _, width, height = map(float, ElementTree.fromstring(system.svg()).get("viewBox").split())
    for place, one in enumerate(found):
        assert one[0] >= 0 and one[1] >= 0 and one[2] <= width and one[3] <= height
        for two in found[place + 1 :]:
            apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
            inside = one[0] < two[0] and two[2] < one[2] and one[1] < two[1] and two[3] < one[3]
            assert apart or inside, (one, two)


@EVERY
def test_text_stays_inside_the_picture(system):
    """By the usual width of characters; what a browser makes of it was looked at."""
    picture = ElementTree.fromstring(system.svg())
    width = float(picture.get("viewBox").split()[2])
    for text in picture.iter(f"{SPACE}text"):
        share = 0.6 if text.get("font-family") else 0.57 if text.get("font-weight") else 0.5
        long, x = share * float(text.get("font-size")) * len(text.text), float(text.get("x"))
        left, right = (x - long, x) if text.get("text-anchor") == "end" else (x, x + long)
        assert left >= 0 and right <= width, text.text


def test_a_box_lies_in_the_box_of_the_rule_that_consults_it():
    system = nl.describe(nl.optim.DeepMomentum([nn.Parameter(torch.zeros(6, 4))], levels=3))
    rounded = [rect for rect in ElementTree.fromstring(system.svg()).iter(f"{SPACE}rect") if rect.get("rx") == "10"]
    assert len(rounded) == len(system.memories)  # one box a memory, the bands of rules have another corner


def test_deep_nesting_is_drawn_at_once():
    system = nl.describe(nl.optim.DeepMomentum([nn.Parameter(torch.zeros(4, 4))], levels=9, hidden=1))
    start = process_time()
    assert len(system.svg()) < 100_000
    assert process_time() - start < 1  # drawing every level twice, to measure it, would double with each


def test_text_is_escaped():
    system = replace(nl.describe(nn.Linear(2, 2)), name="<b>&\"'")
    assert ElementTree.fromstring(system.svg()).find(f"{SPACE}title").text.startswith("<b>&\"':")


@EVERY
def test_the_picture_has_a_size_at_which_its_text_is_that_of_a_page(system):
    picture = ElementTree.fromstring(system.svg())
    assert [picture.get("width"), picture.get("height")] == picture.get("viewBox").split()[2:]
    assert picture.get("width") == "440" and "width:100%" not in picture.get("style").replace("max-width:100%", "")


def test_a_notebook_draws_it_and_a_prompt_stays_short():
    system = nl.describe(torch.optim.Adam([nn.Parameter(torch.zeros(3, 2))]))
    assert system._repr_svg_() == system.svg()
    picture, _, table = system._repr_html_().partition("<details>")
    assert picture == system.svg() and escape(str(system)) in table
    assert repr(system) == "<NestedSystem Adam: 3 memories on 2 levels>"
