"""The four files of Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

from nestlearn.tasks.found_files import FoundFile

__all__ = ["FILES"]


def _file(name: str, sha256: str) -> FoundFile:
    return FoundFile(
        name=f"{name}-ubyte.gz",
        sha256=sha256,
        source="Fashion-MNIST, Zalando Research (github.com/zalandoresearch/fashion-mnist)",
        licence="MIT (Expat)",
        collection="fashion-mnist",
        folder=Path("/usr/share/datasets/fashion-mnist"),
        package="dataset-fashion-mnist",
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        ),
    )


FILES = {
    "train images": _file("train-images-idx3", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train labels": _file("train-labels-idx1", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "test images": _file("t10k-images-idx3", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "test labels": _file("t10k-labels-idx1", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
