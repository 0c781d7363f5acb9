"""docs/tour.md: what its blocks print stands below them, its notebook is the page, and a prompt takes what it shows.

The page is run once for all of this.
"""

import codeop
import json
import re

import pytest
from page_code import BLOCK, run_printing, said, with_output
from pages import REMEDY, ROOT, assert_same, blocks, text
from tour_notebook import tour_notebook
from tour_pictures import tour_pictures

PAGE = text("docs/tour.md")


@pytest.fixture(scope="module")
def ran() -> tuple[dict[str, object], list[str]]:
    """The variables of the page after all its blocks, with all their asserts, and what each printed."""
    return run_printing(PAGE, "tour.md")


@pytest.fixture(scope="module")
def pictures(ran) -> dict[str, str]:
    return tour_pictures(ran[0])


@pytest.fixture(scope="module")
def kept_pictures() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in (ROOT / "docs" / "images").glob("tour-*.svg")}


@pytest.mark.slow
def test_what_blocks_print_stands_below_them(ran):
    for found, kept in zip(ran[1], said(PAGE), strict=True):
        assert_same(found, kept)


def test_every_block_prints():
    assert all(said(PAGE))


def test_a_changed_output_is_noticed_and_a_rounded_one_is_not():
    assert_same("loss 0.103, level 2", "loss 0.104, level 2")
    for other in ("loss 0.105, level 2", "loss 0.103, level 3", "lost 0.103, level 2"):
        with pytest.raises(AssertionError, match="bash dev/docs"):
            assert_same(other, "loss 0.103, level 2")


def test_output_is_put_below_its_block_and_taken_away_with_it():
    page = "```python\nprint(1)\n```\n\nWords.\n\n```python\nx = 2\n```\n\n```text\nold\n```\n\nEnd.\n"
    assert with_output(page, ["1\n", ""]) == (
        "```python\nprint(1)\n```\n\n```text\n1\n```\n\nWords.\n\n```python\nx = 2\n```\n\nEnd.\n"
    )
    assert run_printing("```python\nprint(1)\n```\n\n```python\nx = 2\n```\n", "page.md")[1] == ["1\n", ""]


@pytest.mark.slow
def test_the_pictures_are_those_that_the_code_draws(pictures, kept_pictures):
    assert sorted(kept_pictures) == sorted(pictures), REMEDY
    for name, drawn in pictures.items():
        assert_same(drawn, kept_pictures[name], least=0.11)


def test_every_picture_is_shown_with_a_description_of_its_own(kept_pictures):
    shown = re.findall(r"^!\[(.+)\]\(images/(tour-[\w-]+\.svg)\)$", PAGE, re.MULTILINE)
    assert sorted(name for _, name in shown) == sorted(kept_pictures)
    assert len({words for words, _ in shown}) == len(shown)


def test_every_rung_says_where_it_is_in_the_article_and_what_to_try():
    rungs = re.split(r"^## (?=\d+\. )", PAGE, flags=re.MULTILINE)[1:]
    rungs[-1] = rungs[-1].partition("\n## ")[0]
    assert [int(rung.partition(".")[0]) for rung in rungs] == list(range(11))
    for rung in rungs:
        assert "**In the article:**" in rung and "**Try:**" in rung, rung[:40]


# ------------------------------------------------------------------------------------------------------------ notebook


def test_the_notebook_is_the_page():
    assert text("docs/tour.ipynb") == tour_notebook(PAGE), REMEDY


def test_the_notebook_has_every_block_its_output_and_the_words_between():
    notebook = json.loads(text("docs/tour.ipynb"))
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]) + "\n" for cell in code] == blocks(PAGE, "python")
    assert ["".join(cell["outputs"][0]["text"]) for cell in code] == said(PAGE)
    words = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert words.split() == BLOCK.sub("", PAGE).replace("](#", "](tour.md#").split()


# -------------------------------------------------------------------------------------------------------------- prompt


def refused(block: str) -> str:
    """The first lines that the prompt of Python 3.11 would not take as they are pasted, one after the other."""
    waiting: list[str] = []
    for line in [*block.splitlines(), ""]:
        waiting.append(line)
        source = "\n".join(waiting)
        try:
            ready = codeop.compile_command(source, symbol="single") is not None
        except SyntaxError:
            return source
        if ready:
            waiting = []
    return "\n".join(waiting).strip()


@pytest.mark.parametrize("page", ["docs/tour.md", "docs/extending.md"])
def test_blocks_can_be_pasted_into_the_prompt(page):
    assert [refused(block) for block in blocks(text(page), "python") if refused(block)] == []


def test_what_a_prompt_refuses_is_found():
    assert refused("for x in range(3):\n    print(x)\n\nprint('end')") == ""
    assert refused("x = [\n    1,\n\n    2,\n]") == ""
    assert refused("class A:\n    x = 1\n\n    y = 2") == "    y = 2"
    assert refused("for x in range(3):\n    print(x)\nprint('end')") == "for x in range(3):\n    print(x)\nprint('end')"
