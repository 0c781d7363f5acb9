"""What ``nl.describe`` gives: a description that can show itself."""

from html import escape

from nestlearn.descriptions.data import Data
from nestlearn.descriptions.diagram import draw
from nestlearn.descriptions.table import as_text, headline

__all__ = ["NestedSystem"]


class NestedSystem(Data):
    """The memories behind one object, and what writes them: ``print`` it, draw it, store it.

    A notebook shows the picture, with the table of ``print`` folded below; a prompt says how many memories there are.
    Its attributes are those of ``nestlearn.descriptions.data.Data``.

    Example:
        >>> import torch, nestlearn as nl
        >>> nl.describe(torch.optim.Adam([torch.nn.Parameter(torch.zeros(3, 2))]))
        <NestedSystem Adam: 3 memories on 2 levels>
    """

    def svg(self) -> str:
        """A picture of the nesting: one self-contained SVG for light and dark paper."""
        return draw(self)

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        table = f"<details><summary>In words</summary><pre>{escape(str(self))}</pre></details>"
        return f"{self.svg()}{table}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {headline(self)}>"

    def __str__(self) -> str:
        return as_text(self)
