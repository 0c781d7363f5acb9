"""How long the report of a large comparison takes, and how large it is."""
