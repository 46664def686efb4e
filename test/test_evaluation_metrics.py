# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures of an evaluation compared with evo, with plain re-computations, and for errors of known size."""

import json
import math
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nre_ros.evaluation.metrics import collect_results, summarize
from nre_ros.evaluation.metrics.accuracy import RECALL_PAIRS, percentiles, recall
from nre_ros.evaluation.metrics.calibration import confidence_calibration, covariance_calibration
from nre_ros.evaluation.metrics.timing import relocalization_delays
from nre_ros.evaluation.metrics.trajectory import (
    absolute_errors,
    evo_errors,
    relative_errors,
    trajectory_errors,
    umeyama,
)
from nre_ros.evaluation.report import figures, tables
from nre_ros.evaluation.result_files import read_csv, write_csv, write_json, write_tum
from nre_ros.geometry import position_quaternion
from nre_ros.pictures import plotting

START = 1_700_000_000 * 10**9
SIGMA = np.array([0.004, 0.006, 0.005, 0.002, 0.003, 0.0025])
"""Standard deviations of the simulated estimates: metres, radians."""


def trajectory(count, seed=0):
    """Ground-truth poses [N, 4, 4] of a winding, rotating motion, and stamps at 10 Hz."""
    t = np.arange(count) / 10
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = np.stack([2 * np.sin(0.7 * t), 1.5 * np.cos(0.5 * t), 0.2 * np.sin(1.3 * t)], axis=1)
    angles = np.stack([0.3 * t, 0.2 * np.sin(t), 0.1 * np.cos(t)], axis=1)
    poses[:, :3, :3] = Rotation.from_euler("zyx", angles).as_matrix()
    return poses, START + (t * 1e9).astype(np.int64)


def noisy(truth, seed=0, sigma=SIGMA):
    """Ground truth with random errors of standard deviation ``sigma`` in the map's axes."""
    errors = np.random.default_rng(seed).normal(size=(len(truth), 6)) * sigma
    estimate = truth.copy()
    estimate[:, :3, 3] += errors[:, :3]
    estimate[:, :3, :3] = Rotation.from_rotvec(errors[:, 3:]).as_matrix() @ truth[:, :3, :3]
    return estimate


def records(estimate, stamps, covariance=np.diag(SIGMA**2), confidence=None, missing=()):
    for k, (T, stamp) in enumerate(zip(estimate, stamps)):
        record = {
            "image": f"{k}",
            "stamp": int(stamp),
            "success": k not in missing,
            "reason": "dark" if k in missing else "",
            "confidence": 0.9 if confidence is None else float(confidence[k]),
            "points_used": 100,
            "keyframes": [1, 2],
            "milliseconds": {"features": 10.0 + k, "fine": 5.0},
            "covariance": covariance.tolist(),
        }
        if record["success"]:
            position, quaternion = position_quaternion(T)
            record |= {"position": position.tolist(), "quaternion": quaternion.tolist()}
        yield record


def results_of(estimate, truth, stamps, **options):
    min_confidence = options.pop("min_confidence", 0.5)
    return collect_results(records(estimate, stamps, **options), lambda names, stamps: (stamps, truth), min_confidence)


def run(count=400, change=lambda estimate, stamps: estimate, **options):
    truth, stamps = trajectory(count)
    return results_of(change(noisy(truth), stamps), truth, stamps, **options)


def test_trajectory_errors_equal_those_of_evo():
    pytest.importorskip("evo", reason="needs evo: requirements/test.txt")
    truth, stamps = trajectory(300)
    estimate = noisy(truth, 3, 10 * SIGMA)
    ours, theirs = trajectory_errors(estimate, truth), evo_errors(stamps / 1e9, estimate, truth)
    for kind in ("ape", "rpe"):
        for unit in ("position_m", "rotation_deg"):
            assert ours[kind][unit]["rmse"] == pytest.approx(theirs[kind][unit], abs=1e-9)


def test_all_statistics_and_the_alignment_equal_those_of_evo(tmp_path):
    """evo reads the TUM files that this project writes, associates and aligns them."""
    pytest.importorskip("evo", reason="needs evo: requirements/test.txt")
    from evo.core import metrics, sync
    from evo.tools import file_interface

    truth, stamps = trajectory(200)
    estimate = noisy(truth, 5, 20 * SIGMA)
    write_tum(tmp_path / "truth.txt", results_of(truth, truth, stamps))
    write_tum(tmp_path / "poses.txt", results_of(estimate, truth, stamps))
    pair = sync.associate_trajectories(
        *(file_interface.read_tum_trajectory_file(str(tmp_path / name)) for name in ("truth.txt", "poses.txt"))
    )
    for aligned in (False, True):
        if aligned:
            pair[1].align(pair[0])
        metric = metrics.APE(metrics.PoseRelation.translation_part)
        metric.process_data(pair)
        ours = trajectory_errors(estimate, truth)["ape_aligned" if aligned else "ape"]["position_m"]
        theirs = metric.get_all_statistics()
        assert {key: ours[key] for key in ours} == pytest.approx({key: theirs[key] for key in ours}, abs=1e-9)


def test_alignment_recovers_a_similarity():
    rng = np.random.default_rng(1)
    points, R = rng.normal(size=(30, 3)), Rotation.from_rotvec([0.3, -1.0, 0.7]).as_matrix()
    found = umeyama(points, 2.5 * points @ R.T + [1, 2, 3], with_scale=True)
    assert found.scale == pytest.approx(2.5)
    assert np.allclose(found.rotation, R) and np.allclose(found.translation, [1, 2, 3])
    mirrored = umeyama(points, points * [1, 1, -1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1)  # never a reflection
    assert umeyama(points[:2], points[:2]) is None and umeyama(points[:, :1] * [1, 2, 3], points) is None


def test_recall_and_percentiles_equal_a_plain_count():
    truth, stamps = trajectory(500)
    estimate = noisy(truth, 2, SIGMA * np.array([30, 30, 30, 10, 10, 10]))
    confidence = np.random.default_rng(4).uniform(0.2, 1, 500)
    missing = set(range(40, 60))
    run = results_of(estimate, truth, stamps, confidence=confidence, missing=missing)
    accepted = [k for k in range(500) if k not in missing and confidence[k] >= 0.5]
    distances = [math.dist(estimate[k][:3, 3], truth[k][:3, 3]) for k in range(500)]
    traces = [np.trace(truth[k][:3, :3].T @ estimate[k][:3, :3]) for k in range(500)]
    angles = [math.degrees(math.acos(min(1, (trace - 1) / 2))) for trace in traces]
    for metres, degrees in RECALL_PAIRS:
        count = sum(distances[k] <= metres and angles[k] <= degrees for k in accepted)
        assert recall(run, metres, degrees) == pytest.approx(count / 500, abs=1e-12)
    ordered = sorted(distances[k] for k in accepted)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    assert percentiles(run.position_errors[run.accepted])["median"] == pytest.approx(median, abs=1e-12)
    summary = summarize(run)
    assert summary["shares"]["posed"] == 480 and summary["shares"]["accepted"] == len(accepted)
    assert summary["rotation_error_deg"]["max"] == pytest.approx(max(angles[k] for k in accepted), abs=1e-4)


def test_delays_are_measured_after_the_start_and_after_losses():
    """10 Hz; 0-4 missing, 20-29 missing, 50-51 wrong (no good pose), the last 3 missing."""

    def two_wrong(estimate, stamps):
        estimate[50:52, 0, 3] += 10
        return estimate

    found = relocalization_delays(run(100, two_wrong, missing={*range(5), *range(20, 30), 97, 98, 99}))
    assert found.unit == "s" and found.start == pytest.approx(0.5)
    assert found.losses == 3 and found.unrecovered == 1 and found.after_loss == pytest.approx((1.0, 0.2))
    never = relocalization_delays(run(10, missing=set(range(10))))
    assert never.start is None and never.losses == 0


def test_compared_runs_keep_their_own_limits_and_min_confidence():
    truth, stamps = trajectory(20)
    runs = {
        name: {
            **summarize(replace(results_of(noisy(truth), truth, stamps), wrong_beyond=limits)),
            "about": {"min_confidence": confidence},
        }
        for name, limits, confidence in (("a", (0.5, 5.0), 0.5), ("b", (0.1, 2.0), 0.75))
    }
    rows = {row[0]: row[1:] for row in tables.main_rows(runs)}
    assert rows["wrong"] == ["0 (0.0%) beyond 0.5 m or 5°", "0 (0.0%) beyond 0.1 m or 2°"]
    assert rows["min confidence"] == ["0.5", "0.75"]
    assert "wrong (beyond 0.5 m or 5°)" in {row[0] for row in tables.main_rows({"a": runs["a"]})}


def test_the_median_of_two_losses_is_their_mean():
    rows = dict(tables.main_rows({"a": summarize(run(100, missing={*range(20, 30), 50, 51}))}))
    assert rows["losses"].startswith("2, median 0.60,")


def test_a_covariance_of_zero_is_reported_as_infinitely_too_small():
    summary = json.loads(json.dumps(summarize(run(20, covariance=np.zeros((6, 6))))).replace("Infinity", "null"))
    assert ["pose: measured / reported standard deviation", "infinite"] in tables.calibration_rows({"a": summary})


def test_a_method_without_confidence_decides_itself_which_poses_are_accepted():
    """The field ``accepted`` of the record decides, and the reason of the record is kept."""
    truth, stamps = trajectory(20)
    decided = [
        {**record, "confidence": None, "accepted": k >= 3, "reason": "" if k >= 3 else "few inliers"}
        for k, record in enumerate(records(noisy(truth), stamps))
    ]
    results = collect_results(decided, lambda names, stamps: (stamps, truth), 0.5)
    assert results.accepted.tolist() == [False] * 3 + [True] * 17 and results.posed.all()
    summary = summarize(results)
    assert summary["reasons"] == {"few inliers": 3} and summary["confidence"] is None
    assert tables.calibration_rows({"sift": summary})[0][1] == "-"


def test_more_runs_than_colours_are_all_drawn():
    figure = figures.cumulative_errors({f"run{k}": run(20) for k in range(len(plotting.COLOURS) + 1)})
    assert figure.count("line2d") > figures.cumulative_errors({f"run{k}": run(20) for k in range(6)}).count("line2d")


def test_the_results_of_an_image_take_less_than_1500_bytes(tmp_path):
    """Both while records are read and while the table is read."""
    truth, stamps = trajectory(3000)
    made = (json.loads(json.dumps(record)) for record in records(noisy(truth), stamps))
    tracemalloc.start()
    try:
        results = collect_results(made, lambda names, stamps: (stamps, truth), 0.5)
        peaks = [tracemalloc.get_traced_memory()[1]]
        write_csv(tmp_path / "outcomes.csv", results)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        read_csv(tmp_path / "outcomes.csv", results.wrong_beyond)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert max(peaks) < 1500 * len(truth), [peak / len(truth) for peak in peaks]


def test_latency_is_computed_over_the_images_that_reached_the_stage():
    summary = summarize(run(100))
    assert summary["latency_ms"]["features"]["median"] == pytest.approx(59.5)
    assert summary["latency_ms"]["total"]["max"] == pytest.approx(114.0)


def test_ellipsoids_of_a_right_covariance_contain_their_share_of_errors():
    found = covariance_calibration(run(3000))
    for kind in ("position", "pose"):
        for level in (0.5, 0.9, 0.99):
            tolerance = 4 * math.sqrt(level * (1 - level) / 3000)
            assert found[kind]["within"][f"{level:g}"] == pytest.approx(level, abs=tolerance)
        assert found[kind]["mean"] == pytest.approx(1, abs=0.08) and found[kind]["scale"] == pytest.approx(1, abs=0.04)


def test_an_overconfident_covariance_is_detected():
    found = covariance_calibration(run(1000, covariance=np.diag(SIGMA**2) / 9))
    for kind in ("position", "pose"):
        assert found[kind]["within"]["0.9"] < 0.4 and found[kind]["scale"] == pytest.approx(3, rel=0.1)
    correlated = np.array([[1, 0.9], [0.9, 1.0]])
    covariance = np.diag(SIGMA**2)
    covariance[:2, :2] = correlated * np.outer(SIGMA[:2], SIGMA[:2])  # a correlation that the errors do not have
    assert covariance_calibration(run(1000, covariance=covariance))["pose"]["mean"] > 2


def test_the_calibration_error_is_small_only_for_a_confidence_that_is_a_probability():
    """Poses are wrong as often as their confidence says; then the same with confidence 0.95 for all."""
    truth, stamps = trajectory(4000)
    rng = np.random.default_rng(7)
    confidence = rng.uniform(0, 1, 4000)
    estimate = noisy(truth)
    estimate[rng.uniform(size=4000) > confidence, 1, 3] += 2.0
    honest = confidence_calibration(results_of(estimate, truth, stamps, confidence=confidence))
    assert honest["ece"] < 0.03 and honest["images"] == 4000 and len(honest["bins"]) == 10
    # by hand
    boastful = confidence_calibration(results_of(estimate, truth, stamps, confidence=np.full(4000, 0.95)))
    right = np.mean(np.abs(estimate[:, 1, 3] - truth[:, 1, 3]) < 0.5)
    assert boastful["ece"] == pytest.approx(abs(0.95 - right), abs=1e-9) and boastful["ece"] > 0.4


def test_wrong_poses_are_counted():
    def some_wrong(estimate, stamps):
        estimate[::10, 0, 3] += 3.0
        return estimate

    summary = summarize(run(400, some_wrong))
    assert summary["shares"]["wrong"] == 40 and summary["recall"]["0.05 m, 5 deg"] == pytest.approx(0.9)
    assert summary["recall"]["5 m, 10 deg"] == 1.0 and summary["findings"] == []
    assert summary["confidence"]["ece"] == pytest.approx(0.0, abs=1e-9)  # 90% are right, and the confidence is 0.9


def test_an_offset_in_the_map_is_measured_and_reported():
    def shifted(estimate, stamps):
        estimate[:, :3, 3] += [0.03, -0.08, 0.02]
        return estimate

    summary = summarize(run(400, shifted))
    assert summary["offset"]["map_m"] == pytest.approx([0.03, -0.08, 0.02], abs=1.5e-3)
    (finding,) = summary["findings"]
    assert re.search(r"the same offset of 8\.[78] cm", finding) and "axes of the map" in finding


def test_an_offset_of_the_camera_is_measured_and_reported():
    def mounted(estimate, stamps):
        mount = np.eye(4)
        mount[:3, 3] = [0.0, 0.0, 0.1]
        return estimate @ mount

    summary = summarize(run(400, mounted))
    assert summary["offset"]["camera_m"] == pytest.approx([0, 0, 0.1], abs=1.5e-3)
    assert "axes of the camera" in summary["findings"][0] and "10.0 cm" in summary["findings"][0]


@pytest.mark.parametrize("late", [0.15, -0.1])
def test_a_delay_is_measured_and_reported(late):
    """The estimated pose of an image is the pose of the camera ``late`` seconds before."""
    truth, stamps = trajectory(400)
    t = np.arange(400) / 10 - late
    then = truth.copy()
    then[:, :3, 3] = np.stack([2 * np.sin(0.7 * t), 1.5 * np.cos(0.5 * t), 0.2 * np.sin(1.3 * t)], axis=1)
    summary = summarize(results_of(noisy(then), truth, stamps))
    assert summary["delay"]["seconds"] == pytest.approx(late, abs=0.01)
    assert ("lag behind" if late > 0 else "run ahead of") in summary["findings"][0]


def test_ground_truth_in_another_scale_is_reported():
    truth, stamps = trajectory(200)
    other = truth.copy()
    other[:, :3, 3] *= 0.8
    (finding,) = summarize(results_of(noisy(truth), other, stamps))["findings"]
    assert "another scale" in finding and "Scaled by 1.25" in finding


def test_ground_truth_in_another_map_frame_is_reported():
    truth, stamps = trajectory(200)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    turned[:3, 3] = [3, 4, 0]
    (finding,) = summarize(results_of(noisy(truth), turned @ truth, stamps))["findings"]
    assert "another frame than the map. Rotated by 90.0 degrees and shifted by 5.00 m" in finding


@pytest.mark.parametrize(
    "shift, inverse, words",
    [
        (1, False, ["--truth-format wxyz"]),
        (-1, False, ["--truth-format tum"]),
        (0, True, ["--truth-direction map-to-camera"]),
        (1, True, ["--truth-format wxyz", "--truth-direction map-to-camera"]),
    ],
)
def test_ground_truth_in_another_convention_is_reported(shift, inverse, words):
    """Quaternions with w first, poses from the map to the camera, and both, read as TUM's."""
    truth, stamps = trajectory(200)
    other = np.linalg.inv(truth) if inverse else truth.copy()
    quaternions = np.roll(Rotation.from_matrix(other[:, :3, :3]).as_quat(), shift, axis=1)
    other[:, :3, :3] = Rotation.from_quat(quaternions).as_matrix()
    (finding,) = summarize(results_of(noisy(truth), other, stamps))["findings"]
    assert all(word in finding for word in words) and finding.count("--truth") == len(words)


def test_ground_truth_of_another_part_of_the_robot_is_reported():
    """base_link, x forward, instead of the optical frame."""
    truth, stamps = trajectory(200)
    mount = np.eye(4)
    mount[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    mount[:3, 3] = [0, 0.2, 0]
    (finding,) = summarize(results_of(noisy(truth), truth @ mount, stamps))["findings"]
    assert "of another frame than the camera's optical frame: a frame rotated by 120" in finding


def test_a_good_run_has_no_findings():
    assert summarize(run(400))["findings"] == []


def test_the_table_of_results_is_read_back_unchanged(tmp_path):
    before = run(50, missing={3, 4})
    write_csv(tmp_path / "outcomes.csv", before)
    after = read_csv(tmp_path / "outcomes.csv", before.wrong_beyond)
    assert after.names == before.names and after.reasons == before.reasons and after.keyframe_ids == before.keyframe_ids
    for column in ("stamps", "posed", "accepted", "poses", "ground_truth", "covariances", "confidence"):
        np.testing.assert_allclose(getattr(after, column), getattr(before, column), atol=1e-12)
    assert summarize(after)["recall"] == summarize(before)["recall"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_or_no_images_give_a_summary_without_an_error(tmp_path, count):
    for missing in (set(), {0, 1}):
        write_json(tmp_path / "summary.json", summarize(run(count, missing=missing)))
        assert json.loads((tmp_path / "summary.json").read_text())["shares"]["images"] == count


def test_absolute_and_relative_errors_equal_values_computed_by_hand():
    a, b = np.eye(4)[None], np.eye(4)[None].copy()
    b[0, :3, 3] = [0.3, 0.4, 0]
    b[0, :3, :3] = Rotation.from_euler("x", 2, degrees=True).as_matrix()
    metres, radians = absolute_errors(b, a)
    assert metres[0] == pytest.approx(0.5) and np.degrees(radians[0]) == pytest.approx(2)
    # two poses with the same error have the same motion between them
    both = relative_errors(np.concatenate([b, b]), np.concatenate([a, a]))
    assert both[0][0] == pytest.approx(0, abs=1e-12) and both[1][0] == pytest.approx(0, abs=1e-6)


def test_interpolated_ground_truth_equals_scipys_interpolation():
    from scipy.spatial.transform import Slerp

    from nre_ros.evaluation.ground_truth import GroundTruth

    poses, stamps = trajectory(12)
    numbers = np.array([np.r_[position_quaternion(T)[0], position_quaternion(T)[1]] for T in poses])
    truth = GroundTruth("made up", stamps, numbers)
    seconds = (stamps - START) / 1e9
    asked = np.array([0.0, 0.033, 0.55, 1.1, -0.01, 1.11])
    found = truth.at(START + np.round(asked * 1e9).astype(np.int64), max_gap=0.11)
    slerp = Slerp(seconds, Rotation.from_matrix(poses[:, :3, :3]))
    for T, t in zip(found[:4], asked[:4]):
        np.testing.assert_allclose(T[:3, 3], [np.interp(t, seconds, axis) for axis in poses[:, :3, 3].T], atol=1e-9)
        np.testing.assert_allclose(T[:3, :3], slerp(t).as_matrix(), atol=1e-7)
    assert np.isnan(found[4:]).all()  # before the first and after the last
    assert np.isnan(truth.at(START + np.array([33_000_000]), max_gap=0.05)).all()  # too far apart


def test_a_record_whose_values_have_other_types_is_refused(tmp_path):
    from nre_ros.errors import EvaluationError
    from nre_ros.evaluation.records import read_records

    good = {"image": "a.jpg", "success": False, "milliseconds": {"features": 2.0}}
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(good) + "\n")
    assert list(read_records(path)) == [good]
    changes = ({"milliseconds": "2"}, {"stamp": None}, {"keyframes": ["a"]}, {"success": True}, {"confidence": [0.5]})
    for change in changes:
        path.write_text(json.dumps({**good, **change}) + "\n")
        with pytest.raises(EvaluationError, match="line 1 is not an evaluation record"):
            list(read_records(path))
