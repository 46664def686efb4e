# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bags for the benchmark ``node``: a recording, the same with a part cut out, and a drive in one of two identical rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import Options, Table
from node_listener import NODE_STAGES
from perceptual_aliasing import WRONG, build_map
from rendered_rooms import APART, CAMERA, place_of
from scenes import kitchen

from nre_ros.evaluation.bag_ground_truth import read_topic
from nre_ros.evaluation.ground_truth import GroundTruth
from nre_ros.gallery.bag import MAP, OPTICAL, write_bag
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import SIZE, build_room
from nre_ros.gallery.trajectory import CameraMount, robot_loop
from nre_ros.gate.last_pose import LastPose
from nre_ros.geometry import invert, pose_error, pose_matrix
from nre_ros.messages.bag import open_bag
from nre_ros.replay.bag import find_topics
from nre_ros.replay.session import Session, run_session

NEAR_METRES, NEAR_DEGREES = 0.1, 5.0
OVERLOAD = 4.0
"""Speed at which the bag's images come faster than the node can localize them."""
CUT, RESUMED = 5.0, 9.0
"""Seconds of the bag: the part between these is cut out, as if the robot had been carried."""
MINUTES, LAPS, FASTER = 10, 15, 10.0
"""Length and rounds of the drive in one of two identical rooms, and the speed at which its bag is played."""
_IMAGE_RATE, _ODOMETRY_RATE = 3.0, 10.0
"""Hz of the bag's time: 30 and 100 as it is played."""


# --- two identical rooms ----------------------------------------------------------------------------------


def identical_rooms(options: Options) -> Table:
    """Ten minutes in the second of two identical rooms; the file of the last pose says where the robot starts."""
    gallery = Gallery(build_room(options.seed, pixels_per_metre=200))
    map_path, bag = options.folder / f"identical_rooms_{options.seed}.db", options.folder / "identical_rooms_bag"
    if not map_path.exists():
        build_map(map_path, [gallery, gallery], options)
    trajectory = robot_loop(SIZE, 60.0 * MINUTES, options.seed, LAPS)
    if not bag.exists():
        write_bag(
            bag, gallery, CAMERA, trajectory, image_rate=_IMAGE_RATE, odometry_rate=_ODOMETRY_RATE, seed=options.seed
        )
    topics = find_topics(bag)
    folder = options.folder / "identical_rooms"
    folder.mkdir(exist_ok=True)
    last = folder / "last_pose.json"
    begin = place_of(1) @ trajectory.T_map_base([0.0])[0] @ CameraMount().T_base_cam
    LastPose(begin, 1e-4 * np.eye(6), MAP, OPTICAL, 1).save(last)
    session = run_session(map_path, bag, topics, folder, FASTER, {"last_pose_file": str(last)})
    errors = list(_errors(session, read_topic(bag, topics.ground_truth), place_of(1)).values())
    undecided = sum(0.3 < status["confidence"] < 0.7 for status in session.statuses)
    return Table(
        f"{MINUTES} minutes in the second of two identical rooms, {APART:.0f} m apart, {FASTER:g} times as fast, through DDS",
        ("", "", "aim"),
        [
            ("images localized", len(session.statuses), None),
            ("of them with a confidence about one half, of either room", undecided, None),
            ("poses accepted", len(errors), None),
            ("of them in the other room", sum(m > WRONG for m, _ in errors), "0"),
            ("median position [m]", float(np.median([m for m, _ in errors])), None),
            ("worst position [m]", max(m for m, _ in errors), None),
        ],
    )


# --- the kitchen's bag ------------------------------------------------------------------------------


def kitchen_bag(options: Options) -> Table:
    """The recording as it is, in real time, and once more faster than the node is."""
    bag, map_path = options.data("data/kitchen/bag"), kitchen(options).map_path
    table = _replayed("The kitchen's bag in real time", map_path, bag, options.folder / "bag")
    fast = run_session(map_path, bag, find_topics(bag), options.folder / "bag_fast", OVERLOAD)
    busy = [status["monotonic"] for status in fast.statuses]
    rate = (len(busy) - 1) / (busy[-1] - busy[0])
    table.rows.append((f"images localized a second, the bag {OVERLOAD:g} times as fast", rate, "8"))
    return table


def kidnap_bag(options: Options) -> Table:
    """A part is cut out, and odometry goes on as if nothing had happened."""
    bag = options.folder / "kidnap_bag"
    if not bag.exists():
        _write_kidnap(options.data("data/kitchen/bag"), bag)
    title = f"Carried from {CUT:.0f} s to {RESUMED:.0f} s of the bag, odometry does not notice"
    return _replayed(title, kitchen(options).map_path, bag, options.folder / "kidnap", CUT)


def _replayed(title: str, map_path: Path, bag: Path, folder: Path, cut: float = 0.0) -> Table:
    topics = find_topics(bag)
    session = run_session(map_path, bag, topics, folder)
    truth = read_topic(bag, topics.ground_truth)
    begin = min(session.sent)
    table = Table(title, ("", "", "aim"))
    errors = [(stamp, *error) for stamp, error in _errors(session, truth).items()]
    near = [m <= NEAR_METRES and degrees <= NEAR_DEGREES for _, m, degrees in errors]
    first = min((stamp for stamp, *_ in errors), default=None)
    after = [(stamp - begin) / 1e9 for (stamp, *_), good in zip(errors, near) if good and stamp > begin + cut * 1e9]
    table.rows += [
        ("images localized", len(session.statuses), None),
        ("poses accepted", len(session.poses), None),
        (f"of them with truth within {NEAR_METRES:g} m and {NEAR_DEGREES:g} deg", f"{sum(near)} of {len(near)}", "all"),
        ("worst position [m]", max((m for _, m, _ in errors), default=None), "0.1"),
        ("worst rotation [deg]", max((degrees for *_, degrees in errors), default=None), "5"),
    ]
    if not cut:
        delays, own = _delays(session)
        table.rows.append(("image sent to pose received, median [ms]", delays, "130"))
        table.rows.append(("the same without the estimator, median [ms]", own, "10"))
    if cut:
        table.rows.append(("first right pose after the cut [s]", after[0] - cut if after else None, "3"))
    else:
        table.rows.append(("first pose, of the bag's time [s]", (first - begin) / 1e9 if first else None, "2"))
        largest, beyond = _steps(session)
        table.rows.append(("largest step of map -> odom at the camera [m]", largest, None))
        table.rows.append(("steps beyond three stated deviations", beyond, "0"))
    return table


def _errors(session: Session, truth: GroundTruth, T_map_truth=np.eye(4)) -> dict[int, tuple[float, float]]:
    """Stamp -> metres and degrees of each accepted pose that has a true one."""
    stamps = np.array([pose["stamp"] for pose in session.poses], dtype=np.int64)
    errors = {}
    for pose, T in zip(session.poses, truth.at(stamps, max_gap=0.5)):
        if np.isfinite(T).all():
            metres, radians = pose_error(pose_matrix(pose["position"], pose["quaternion"]), T_map_truth @ T)
            errors[pose["stamp"]] = metres, float(np.degrees(radians))
    return errors


def _delays(session: Session) -> tuple[float, float]:
    """Median time from sending an image to receiving its pose, and the same without the estimator's stages [ms]."""
    received = {pose["stamp"]: pose["monotonic"] for pose in session.poses}
    estimator = {
        status["stamp"]: sum(value for name, value in status["milliseconds"].items() if name not in NODE_STAGES)
        for status in session.statuses
    }
    stamps = received.keys() & session.sent.keys() & estimator.keys()
    delays = {stamp: (received[stamp] - session.sent[stamp]) * 1e3 for stamp in stamps}
    own = [delays[stamp] - estimator[stamp] for stamp in stamps]
    return float(np.median(list(delays.values()))), float(np.median(own))


def _steps(session: Session) -> tuple[float, int]:
    """By how much accepted poses move map -> odom where the camera is: the most [m], and how many beyond what is stated.

    Stated: three standard deviations of the two poses' positions together, without what odometry drifts meanwhile.
    """
    accepted = [status for status in session.statuses if status["success"]]
    spreads = [np.linalg.eigvalsh(np.reshape(status["covariance"], (6, 6))[:3, :3])[-1] for status in accepted]
    steps = [status["metres"] for status in accepted[1:]]
    limits = [3 * np.sqrt(a + b) for a, b in zip(spreads, spreads[1:])]
    return max(steps, default=0.0), sum(step > limit for step, limit in zip(steps, limits))


def _write_kidnap(bag: Path, target: Path) -> None:
    """The bag without what lies between CUT and RESUMED; odometry goes on from where it was at the cut."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    gap = round((RESUMED - CUT) * 1e9)
    with open_bag(bag) as reader, Writer(target, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        begin = reader.start_time
        connections = {}
        for connection in reader.connections:
            connections[connection.id] = writer.add_connection(connection.topic, connection.msgtype, typestore=store)
        # wrong odometry goes on from where it was at the cut: T_odom_new = offset @ T_odom
        offset, last = None, None
        for connection, stamp, raw in reader.messages():
            seconds = (stamp - begin) / 1e9
            if CUT < seconds < RESUMED:
                continue
            carried = seconds >= RESUMED
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic == "/tf":
                for transform in message.transforms:
                    T = _matrix(transform.transform)
                    if carried:
                        offset = last @ invert(T) if offset is None else offset
                        _set(transform.transform, offset @ T)
                    else:
                        last = T
            if carried and connection.topic != "/tf_static":
                _shift(message, gap)
            data = store.serialize_cdr(message, connection.msgtype)
            writer.write(connections[connection.id], stamp - gap * carried, data)


def _shift(message, gap: int) -> None:
    for header in [message.header] if hasattr(message, "header") else [t.header for t in message.transforms]:
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec - gap
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)


def _matrix(transform) -> np.ndarray:
    t, q = transform.translation, transform.rotation
    return pose_matrix([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])


def _set(transform, T: np.ndarray) -> None:
    from nre_ros.geometry import position_quaternion

    position, quaternion = position_quaternion(T)
    t, q = transform.translation, transform.rotation
    t.x, t.y, t.z = position.tolist()
    q.x, q.y, q.z, q.w = quaternion.tolist()
