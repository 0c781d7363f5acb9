import hashlib

import pytest
import torch

from nestlearn.tasks import data, data_file
from nestlearn.tasks.data_file import DIGITS, SPEECHES, DataFile, DataFileError, read_data_file


@pytest.mark.parametrize("file", [DIGITS, SPEECHES], ids=lambda file: file.name)
def test_the_shipped_files_have_their_hash_and_stay_small(file: DataFile) -> None:
    packed = (data_file.FILES / file.name).read_bytes()
    assert hashlib.sha256(packed).hexdigest() == file.sha256
    assert len(packed) < 4_000_000
    assert file.source and file.licence


def test_digits_are_1797_images_of_ten_classes_in_three_splits_without_overlap() -> None:
    splits = data.digits()
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {
        "train": 1080,
        "validation": 360,
        "test": 357,
    }
    for images, labels in splits.values():
        assert images.shape == (len(labels), 64) and images.min() == 0 and images.max() == 1
        assert torch.bincount(labels, minlength=10).min() >= len(labels) / 10 * 0.8
    lines = read_data_file(DIGITS).decode().split()
    rows = torch.cat([torch.cat([images * 16, labels[:, None]], 1) for images, labels in splits.values()])
    back = sorted(",".join(str(int(cell)) for cell in row) for row in rows)
    assert back == sorted(lines)  # every image of the file is in exactly one split


def test_every_speech_is_in_exactly_one_split_and_all_times_are_in_each() -> None:
    names = data.speech_names()
    flat = [name for split in names.values() for name in split]
    assert len(flat) == len(set(flat)) == 233
    assert {split: len(members) for split, members in names.items()} == {"train": 187, "validation": 23, "test": 23}
    for members in names.values():
        years = [int(name[:4]) for name in members]
        assert years == sorted(years) and years[0] < 1805 and years[-1] > 2010


def test_the_splits_hold_all_bytes_of_the_speeches() -> None:
    splits, names = data.speeches(), data.speech_names()
    text = read_data_file(SPEECHES)
    headers = sum(len(name) + 1 for members in names.values() for name in members) + 232
    separators = sum(2 * (len(members) - 1) for members in names.values())
    assert sum(len(split) for split in splits.values()) == len(text) - headers + separators
    assert bytes(splits["train"][:15].tolist()) == b"Fellow-Citizens"


def test_a_file_with_another_hash_is_an_error_that_names_file_expected_and_found(tmp_path) -> None:
    (tmp_path / DIGITS.name).write_bytes(b"other bytes")
    with pytest.raises(DataFileError) as caught:
        read_data_file(DIGITS, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / DIGITS.name) in message
    assert DIGITS.sha256 in message and hashlib.sha256(b"other bytes").hexdigest() in message


def test_a_missing_file_is_an_error_that_names_it(tmp_path) -> None:
    with pytest.raises(DataFileError, match=r"digits\.csv\.xz.*install nestlearn again"):
        read_data_file(DIGITS, tmp_path)
