"""The signals that end a command, handled as a test asks, whatever the tests were started with: a job in the background
ignores some of them.
"""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["SIGNALS", "handled", "in_front"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(*handlers: object) -> Iterator[None]:
    """A block with these handlers of SIGINT, SIGTERM and SIGHUP."""
    before = [signal.signal(number, handler) for number, handler in zip(SIGNALS, handlers, strict=True)]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def in_front() -> AbstractContextManager[None]:
    """A block with the handlers of a command that was typed."""
    return handled(signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL)
