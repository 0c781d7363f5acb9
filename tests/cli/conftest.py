import pytest
import signals
from trained_hope import train_hope


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The run folder of a tiny Hope."""
    return train_hope(tmp_path_factory.mktemp("runs") / "hope")


@pytest.fixture
def in_front():
    """The command that is tried was typed, and no signal is ignored."""
    with signals.in_front():
        yield
