# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Damaged files in every reader: each is read, or refused in one line; benchmarks/fuzz_readers.py reads many more."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
fuzz_readers = importlib.import_module("fuzz_readers")
sys.path.pop(0)

SLOW = {
    "bag_mcap": 10,
    "bag_sqlite": 10,
    "map_rows": 25,
    "map": 40,
    "checkpoint": 50,
    "image_list": 50,
    "parameters": 30,
}
"""Reader -> number of files, for those that take long."""
OPTIONAL = {"bag_mcap": "rosbags", "bag_sqlite": "rosbags"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", fuzz_readers.SAMPLES)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    count = SLOW.get(name, 100)
    outcome = fuzz_readers.fuzz(fuzz_readers.SAMPLES[name](), range(count), 1, tmp_path / "files")
    assert not outcome.faults
    assert outcome.read + outcome.refused == count


@pytest.mark.parametrize(
    "name, number",
    [
        ("parameters", 1666),  # a number of thousands of digits, whose pattern took minutes
        ("rgbd_folder", 9557),  # an image named //
        ("seven_scenes", 2242),  # numbers of sequences that are too long for a file's name
        ("seven_scenes", 2351),  # or for Python
        ("map", 2768),  # SQLite quotes a statement of several lines
        ("inloc", 2696),  # types in a MATLAB file that scipy does not know end its process
        ("inloc", 7635),
        ("bag_mcap", 590),  # messages without a header on a topic of images
        ("bag_mcap", 1706),  # a definition of TFMessage without transforms
        ("bag_mcap", 3812),  # a type whose name has several lines
        ("bag_mcap", 4932),  # a definition of Quaternion without x
        ("bag_sqlite", 2873),  # a type whose name has several lines
        ("bag_sqlite", 5270),  # a time of a message that is no number
    ],
)
def test_files_that_once_showed_a_fault_are_read_or_refused(name, number, tmp_path):
    outcome = fuzz_readers.fuzz(fuzz_readers.SAMPLES[name](), range(number, number + 1), 0, tmp_path / "files")
    assert not outcome.faults


def test_a_fault_is_reported_with_the_first_file_that_shows_it(tmp_path):
    def read(folder):
        if b"nan" in (folder / "a.txt").read_bytes():
            raise KeyError("lost")

    sample = fuzz_readers.Sample("broken", {"a.txt": b"1 2 3\n" * 5}, {"a.txt": "text"}, read)
    outcome = fuzz_readers.fuzz(sample, range(300), 0, tmp_path)
    (first, times), *others = outcome.faults.values()
    assert not others and 0 < times == 300 - outcome.read
    assert b"nan" in fuzz_readers.damage(sample, first, 0)["a.txt"]
