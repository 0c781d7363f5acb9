"""How one run is trained: from settings to a run, its checkpoints and its result, and the folder that keeps them."""

from typing import TYPE_CHECKING

from nestlearn.lazy import late

if TYPE_CHECKING:
    from nestlearn.training.checkpoint import CheckpointError
    from nestlearn.training.environment import environment
    from nestlearn.training.inspect import Inspection, inspect_training
    from nestlearn.training.loop import Interrupted, Training, train
    from nestlearn.training.ranks import Ranks, joined
    from nestlearn.training.results import Point, Results, Row, RunResult
    from nestlearn.training.run_folder import RunFolder, RunFolderError
    from nestlearn.training.settings import merge, read_settings, to_yaml
    from nestlearn.training.spec import RunSpec
    from nestlearn.training.train_run import TrainRun
    from nestlearn.training.train_settings import TrainSettings, resolve_training
    from nestlearn.training.trained import load_trained

__all__ = [
    "CheckpointError",
    "Inspection",
    "Interrupted",
    "Point",
    "Ranks",
    "Results",
    "Row",
    "RunFolder",
    "RunFolderError",
    "RunResult",
    "RunSpec",
    "TrainRun",
    "TrainSettings",
    "Training",
    "environment",
    "inspect_training",
    "joined",
    "load_trained",
    "merge",
    "read_settings",
    "resolve_training",
    "to_yaml",
    "train",
]

late(
    __name__,
    checkpoint="CheckpointError",
    environment="environment",
    inspect="Inspection inspect_training",
    loop="Interrupted Training train",
    ranks="Ranks joined",
    results="Point Results Row RunResult",
    run_folder="RunFolder RunFolderError",
    settings="merge read_settings to_yaml",
    spec="RunSpec",
    train_run="TrainRun",
    train_settings="TrainSettings resolve_training",
    trained="load_trained",
)
