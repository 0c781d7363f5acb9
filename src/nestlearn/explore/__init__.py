"""Look into runs while they train: their files as data, as a server of this machine, and as a page.

Nothing here imports torch, writes a file, or speaks to a run: what is shown was read. A model that reads a
text does so in a process of its own.
"""

from nestlearn.explore.runs import Shelf

__all__ = ["Shelf"]
