"""The playground: a page on which the rungs from gradient descent to nested memories are moved by hand."""

from nestlearn.play.page import page, write_page

__all__ = ["page", "write_page"]
