"""What ``nl.describe`` gives: a description that can show itself."""

from nestlearn.describe.data import Data
from nestlearn.describe.diagram import draw
from nestlearn.describe.table import as_text

__all__ = ["NestedSystem"]


class NestedSystem(Data):
    """The memories behind one object, and what writes them: ``print`` it, draw it, store it.

    Its attributes are those of ``nestlearn.describe.data.Data``.
    """

    def svg(self) -> str:
        """A picture of the nesting: one self-contained SVG for light and dark paper."""
        return draw(self)

    def __str__(self) -> str:
        return as_text(self)
