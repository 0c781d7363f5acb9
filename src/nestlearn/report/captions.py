"""The words above the tables and pictures of a report: what each shows, and how to read it."""

from __future__ import annotations

from nestlearn.report.thinning import BINS

__all__ = ["CAPTIONS"]

_THINNED = (
    f"A line of more than {BINS} points is drawn as bins of neighbours: the mean of each, over its lowest and highest."
)

CAPTIONS = {
    "ranking": (
        "Test loss",
        "Dot: mean over seeds; pale bar: 95% interval of the mean; ticks: single seeds. Ring: the control of that "
        "memory. Dotted line: {baseline}.",
    ),
    "table": (
        "The tuned table",
        "Best test loss first; losing and diverged contenders included. Coloured where all seeds agree on the sign; "
        "bold with a star where a paired t-test is significant at 5% after correction for the number of contenders. "
        "Fewer than four seeds get no p and no star.",
    ),
    "figures": (
        "The figures",
        "Of the test split where nothing else is said, mean over seeds.",
    ),
    "cost": (
        "What it costs",
        "Steps and seconds to the loss that {baseline} ends with, time, state, and what is left of a difference at "
        "equal seconds and at equal bytes where that was asked for.",
    ),
    "curves": (
        "Loss against steps and seconds",
        "Validation loss at the chosen settings: the mean over seeds, over their range. Lines that leave the picture "
        f"at the top did worse; what diverged has no line. {_THINNED}",
    ),
    "panels": (
        "Each memory beside its control",
        "Validation loss against steps. Thick: the contender, over the range of its seeds. Dashed: its control. Thin: "
        "{baseline}.",
    ),
    "training": (
        "Training loss, every logged point",
        f"Against steps, over all seeds, up to the first divergence. {_THINNED}",
    ),
    "choice": (
        "How the settings were chosen",
        "Validation loss of every trial against its learning rate, both on log scales. Dots: trials, with whatever "
        "other settings; line: the best at each rate; circle: the chosen rate. Hollow and dashed: the control. Where "
        "the best value lay at an edge of what had been tried, the search went on beyond it: 6 + 2 says by two.",
    ),
    "nesting": (
        "What learns what",
        "Each optimizer taken apart: memories on their levels, the slowest first, and who consults whom. Described "
        "from the optimizer that was trained, not from its name.",
    ),
    "score": (
        "The level score",
        "Read it like sheet music: a lane a memory, the slowest at the top, and a box a write, as wide as its period. "
        "Strong colour: a large surprise, within its lane; grey: a write at which nobody looked. The surprise of the "
        "weights is the training loss. Left the first steps, one by one; right the whole run, where a box stands for "
        "all writes in it. Memories whose surprise the optimizer does not measure have no lane: they are named below, "
        "with the steps from write to write, as in /10.",
    ),
    "surprise": (
        "What surprised the memories",
        "The surprise of each memory (its objective before a write) over the steps: the mean over seeds, over their "
        f"range, relative to its first value, on a log scale. {_THINNED}",
    ),
}
"""Heading and caption of each part of a section, by the part's name; "{baseline}" is put in when it is shown."""
