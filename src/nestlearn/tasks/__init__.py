"""Tasks to train on: real data and small exact problems, each with its network, batches, loss and held-out splits."""

from typing import TYPE_CHECKING

from nestlearn.lazy import late
from nestlearn.tasks.about import Figure, sources
from nestlearn.tasks.data_file import DataFile, DataFileError

if TYPE_CHECKING:
    from nestlearn.tasks.delayed_gradients import DelayedGradientsTask
    from nestlearn.tasks.digits import DigitsTask
    from nestlearn.tasks.fashion_mnist import FashionMnistTask
    from nestlearn.tasks.orthogonal_tasks import OrthogonalTasks
    from nestlearn.tasks.own import OwnTask
    from nestlearn.tasks.quadratic import QuadraticTask
    from nestlearn.tasks.ravine import RavineTask
    from nestlearn.tasks.registry import TASKS, check_data, make_task, task_type
    from nestlearn.tasks.speeches import SpeechesTask
    from nestlearn.tasks.task import Task
    from nestlearn.tasks.text import TextTask

__all__ = [
    "TASKS",
    "DataFile",
    "DataFileError",
    "DelayedGradientsTask",
    "DigitsTask",
    "FashionMnistTask",
    "Figure",
    "OrthogonalTasks",
    "OwnTask",
    "QuadraticTask",
    "RavineTask",
    "SpeechesTask",
    "Task",
    "TextTask",
    "check_data",
    "make_task",
    "sources",
    "task_type",
]

late(
    __name__,
    delayed_gradients="DelayedGradientsTask",
    digits="DigitsTask",
    fashion_mnist="FashionMnistTask",
    orthogonal_tasks="OrthogonalTasks",
    own="OwnTask",
    quadratic="QuadraticTask",
    ravine="RavineTask",
    registry="TASKS check_data make_task task_type",
    speeches="SpeechesTask",
    task="Task",
    text="TextTask",
)
