"""The node through DDS, as a robot has it: delay, memory over minutes, the kitchen's bag in real time, and a kidnap.

Player or camera, node and listener are processes of their own.  ``stream``: one picture at 30 Hz; what
is counted is the time from an image's stamp to its pose at another process less what the estimator took
for it.  ``bag``, ``kidnap``: the recording as it is, and one of which a part is cut out while odometry
goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from common import ROOT, Options, Table, UsageError
from scenes import kitchen

from nre_ros.geometry import invert, pose_error, pose_matrix
from nre_ros.messages.bag import open_bag
from nre_ros.node.bootstrap import clean_environment, config_file
from nre_ros.replay.bag import find_topics, read_truth
from nre_ros.replay.session import Session, run_session

MINUTES = 10.0
"""Of the stream."""
SETTLED = 1.0
"""Minutes after which memory is compared with that at the end."""
NEAR_METRES, NEAR_DEGREES = 0.1, 5.0
CUT, RESUMED = 5.0, 9.0
"""Seconds of the bag between which the robot is carried."""
SETS = {"stream": "30 images a second", "bag": "the kitchen's bag", "kidnap": "the bag with a part cut out"}


def run(options: Options) -> Iterator[Table]:
    """A table a set."""
    unknown = set(options.sets) - set(SETS)
    if unknown:
        raise UsageError(f"unknown set {unknown.pop()!r}, known: {', '.join(SETS)}")
    scene = kitchen(options)
    bag = options.data("data/kitchen/bag")
    for name in options.sets or SETS:
        if name == "stream":
            yield _stream(scene, options)
        elif name == "bag":
            yield _replayed("The kitchen's bag in real time", scene.map_path, bag, options.folder / "bag")
        else:
            cut = options.folder / "kidnap_bag"
            if not cut.exists():
                _write_kidnap(bag, cut)
            title = f"Carried from {CUT:.0f} s to {RESUMED:.0f} s of the bag, odometry notices nothing"
            yield _replayed(title, scene.map_path, cut, options.folder / "kidnap", CUT)


# --- the stream -------------------------------------------------------------------------------------


def _stream(scene, options: Options) -> Table:
    from stream_listener import listen

    query = next(iter(scene.queries()))
    picture = options.folder / "query.png"
    cv2.imwrite(str(picture), query.image)
    c = query.camera
    info = {"width": c.width, "height": c.height, "k": c.K.ravel().tolist(), "distortion_model": "plumb_bob",
            "d": [float(value) for value in c.distortion]}
    environment = clean_environment(
        ROS_DOMAIN_ID=os.environ.get("ROS_DOMAIN_ID", str(1 + os.getpid() % 100)), PYTHONPATH=str(ROOT),
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", OMP_NUM_THREADS=str(options.threads),
    )
    os.environ.update({name: environment[name] for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")})
    profile = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(config_file("fastdds_large_images.xml"))}
    log = (options.folder / "stream_node.log").open("w")
    node = subprocess.Popen(
        [sys.executable, "-m", "nre_ros", "node", "--map", str(scene.map_path)],
        env=environment, stdout=log, stderr=subprocess.STDOUT,
    )
    camera = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks/node_camera.py"), str(picture), json.dumps(info)],
        env={**environment, **profile},
    )
    try:
        heard, usage = listen(60 * MINUTES, lambda: _usage(node.pid))
        began = time.monotonic()
        node.send_signal(signal.SIGINT)
        code = node.wait(30)
        ended = time.monotonic() - began
    finally:
        for process in (camera, node):
            if process.poll() is None:
                process.kill()
    return _stream_table(heard, usage, ended, code)


def _stream_table(heard: list[dict], usage: list[tuple[float, float, int]], ended: float, code: int) -> Table:
    table = Table(
        f"{MINUTES:g} minutes of 640x480 at 30 Hz, raw, through DDS", ("", "median", "99%", "aim"),
    )
    heard = heard[len(heard) // 20 :]  # the first ones fall into the start
    own = [line["delay"] - line["estimator"] for line in heard]
    table.rows += [
        ("stamp to pose less the estimator's time [ms]", *_percentiles(own), "10, 99% 25"),
        ("estimator [ms]", *_percentiles([line["estimator"] for line in heard]), None),
        ("poses", len(heard), None, None),
    ]
    settled = [megabytes for seconds, megabytes, _ in usage if seconds >= 60 * min(SETTLED, MINUTES / 3)]
    threads = [count for seconds, _, count in usage if seconds >= 60 * min(SETTLED, MINUTES / 3)]
    window = max(1, len(settled) // 10)
    first, last = np.median(settled[:window]), np.median(settled[-window:])
    table.rows += [
        ("resident memory, settled [MB]", float(first), None, None),
        ("the same at the end, growth [%]", float(100 * (last / first - 1)), None, "2"),
        ("threads, fewest and most", min(threads), max(threads), "the same"),
        (f"shutdown by SIGINT [s], exit code {code}", ended, None, "2"),
    ]
    return table


def _percentiles(values: list[float]) -> tuple[float, float]:
    return float(np.median(values)), float(np.percentile(values, 99))


def _usage(pid: int) -> tuple[float, int]:
    """Resident megabytes and threads of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"])


# --- the bag ----------------------------------------------------------------------------------------


def _replayed(title: str, map_path: Path, bag: Path, folder: Path, cut: float = 0.0) -> Table:
    topics = find_topics(bag)
    session = run_session(map_path, bag, topics, folder)
    truth = read_truth(bag, topics.truth)
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
    if cut:
        table.rows.append(("first right pose after the cut [s]", after[0] - cut if after else None, "3"))
    else:
        table.rows.append(("first pose, of the bag's time [s]", (first - begin) / 1e9 if first else None, "2"))
        largest, beyond = _steps(session)
        table.rows.append(("largest step of map -> odom at the camera [m]", largest, None))
        table.rows.append(("steps beyond three stated deviations", beyond, "0"))
    return table


def _errors(session: Session, truth: dict[int, np.ndarray]) -> dict[int, tuple[float, float]]:
    """Stamp -> metres and degrees of each accepted pose, by the truth interpolated at its stamp."""
    stamps = np.array(sorted(truth))
    errors = {}
    for pose in session.poses:
        after = int(np.searchsorted(stamps, pose["stamp"]))
        if not 0 < after < len(stamps) or stamps[after] - stamps[after - 1] > 0.5e9:
            continue
        T = _between(truth[stamps[after - 1]], truth[stamps[after]], stamps[after - 1 : after + 1], pose["stamp"])
        metres, radians = pose_error(pose_matrix(pose["position"], pose["quaternion"]), T)
        errors[pose["stamp"]] = metres, float(np.degrees(radians))
    return errors


def _between(T_a, T_b, stamps, stamp: int) -> np.ndarray:
    from scipy.spatial.transform import Rotation, Slerp

    part = (stamp - stamps[0]) / (stamps[1] - stamps[0])
    T = np.eye(4)
    T[:3, :3] = Slerp([0, 1], Rotation.from_matrix([T_a[:3, :3], T_b[:3, :3]]))(part).as_matrix()
    T[:3, 3] = (1 - part) * T_a[:3, 3] + part * T_b[:3, 3]
    return T


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
        lie, last = None, None
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
                        lie = last @ invert(T) if lie is None else lie
                        _set(transform.transform, lie @ T)
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
