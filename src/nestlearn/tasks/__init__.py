"""Tasks to train on: real data and small exact problems, each with its network, batches, loss and held-out splits."""

from nestlearn.tasks.data import DataFileError
from nestlearn.tasks.digits import DigitsTask
from nestlearn.tasks.registry import TASKS, check_data, make_task, sources
from nestlearn.tasks.speeches import SpeechesTask
from nestlearn.tasks.task import Figure, Task

__all__ = [
    "TASKS",
    "DataFileError",
    "DigitsTask",
    "Figure",
    "SpeechesTask",
    "Task",
    "check_data",
    "make_task",
    "sources",
]
