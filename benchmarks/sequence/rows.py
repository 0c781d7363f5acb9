"""Who is compared with whom, at which length, and the bars: the largest ratio that passes, None for information."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BATCH", "DECODING", "GROWTH", "LENGTHS", "PEERS", "TRANSFORMER", "UNEQUAL", "Growth", "Row"]

BATCH = 4


@dataclass(frozen=True)
class Row:
    """A training step of ours / of theirs, both on `BATCH` sequences of ``time`` tokens.

    Args:
        ours: a key of `OURS`, at width 128.
        theirs: a key of `THEIRS`; "" for the transformer that has as many parameters as ours.
        time: tokens of each sequence.
        bar: largest ratio.
        long: a pass takes many seconds, so there are fewer of them, and none in a quick run.
        matched: ours has the width at which it has as many parameters as theirs.
        note: what a reader must know.
    """

    ours: str
    theirs: str
    time: int
    bar: float | None = None
    long: bool = False
    matched: bool = False
    note: str = ""


@dataclass(frozen=True)
class Growth:
    """One of ours at 2 T / at T, on one sequence, for neighbours in ``lengths``."""

    ours: str
    what: str
    lengths: tuple[int, ...]
    bar: float | None


TRANSFORMER = (
    Row("Hope", "", 1024, 2.0, note="aim 1.3"),
    Row("Hope", "", 4096, 1.2, long=True),
    Row("Hope", "", 8192, 0.7, long=True),
    Row("Hope, MLP memories", "", 1024, 4.0),
    *(
        Row(name, "", 1024)
        for name in (
            "Hope, inner_lr=0",
            "Hope-Attention",
            "Titans",
            "gated DeltaNet",
            "Hope, next_token",
            "Hope-Attention, next_token",
        )
    ),
)

LENGTHS = (1024, 2048, 4096, 8192, 16384)
GROWTH = (
    Growth("Hope", "time", LENGTHS, 2.2),
    Growth("Hope", "memory", LENGTHS, 2.2),
    Growth("Hope, MLP memories", "time", LENGTHS[-2:], 2.2),
    Growth("Hope, MLP memories", "memory", LENGTHS[-2:], 2.2),
    Growth("transformer", "time", LENGTHS[-2:], None),
)

DECODING = (("Hope", 1.1), ("Hope, MLP memories", 1.1), ("transformer", None))
"""Names and bars of a token after 8,192 / after 1,024 tokens."""

UNEQUAL = (("Hope, chunks of 4", 2.0), ("Hope", 2.0))
"""Names and bars of reading texts of unequal lengths / of reading as many that are as long as the longest."""

_MAC, _SELF_MODIFYING = "titans-pytorch MAC", "nested-learning hope_selfmod"
PEERS = (
    Row("Hope", _MAC, 1024, 1 / 4),
    Row("Hope", f"{_MAC}, 4 heads of 32, one stream", 1024, note="MAC made as small as ours is"),
    Row("Hope", _MAC, 1024, matched=True, note="ours as large as theirs"),
    Row("Hope", _SELF_MODIFYING, 256, 1 / 20, note="T = 256: their step takes seconds"),
    Row("Hope", _SELF_MODIFYING, 1024, 1 / 20, long=True),
    Row("Hope", _SELF_MODIFYING, 256, matched=True, note="ours as large as theirs"),
    Row("Hope, MLP memories", _SELF_MODIFYING, 256, note="theirs are MLPs too"),
    Row("Hope", f"{_SELF_MODIFYING}, its own pace", 256, long=True, note="writes as often as in its configuration"),
)
