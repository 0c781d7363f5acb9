"""Whether anything is lost: every loader given spoilt files, and every command killed, however often it takes."""

__all__: list[str] = []
