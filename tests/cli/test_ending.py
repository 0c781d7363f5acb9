"""How a command ends: an output that takes no more."""

import os
from pathlib import Path

import pytest

from nestlearn.cli.ending import Output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_what_a_full_disk_has_lost_is_an_error_and_a_reader_who_has_gone_is_none():
    with open("/dev/full", "w", encoding="utf-8") as full:
        output = Output(full)
        output.write("said\n")
        output.flush()
        with pytest.raises(OSError, match=r"the standard output: No space left on device; and where it is"):
            output.check("; and where it is")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as gone:
        output = Output(gone)
        output.write("said\n")
        output.flush()
        assert output.failure
        output.check()
