"""Look into runs while they train: their files as data, as a server of this machine, as a page, and as a file of it.

Nothing here imports torch, writes into a run, or speaks to one: what is shown was read. A model that reads a text and a
fork that is asked for have processes of their own.
"""

from nestlearn.explore.runs import Shelf

__all__ = ["Shelf"]
