"""What ``nl.describe`` gives: a description that can show itself."""

from nestlearn.descriptions.data import Data
from nestlearn.descriptions.diagram import draw
from nestlearn.descriptions.table import as_text

__all__ = ["NestedSystem"]


class NestedSystem(Data):
    """The memories behind one object, and what writes them: ``print`` it, draw it, store it.

    Its attributes are those of ``nestlearn.descriptions.data.Data``.
    """

    def svg(self) -> str:
        """A picture of the nesting: one self-contained SVG for light and dark paper."""
        return draw(self)

    def __str__(self) -> str:
        return as_text(self)
