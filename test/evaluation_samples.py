# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A bag and an image list in the small synthetic room, with exact ground truth, and the map of the room."""

import cv2
import numpy as np
from bag_samples import START, encoded_message, odometry_message, write_messages
from synthetic import CAMERA, QUERIES, small_room

from nre_ros.gallery.bag import camera_info_message, pose_message, tf_message
from nre_ros.geometry import position_quaternion
from nre_ros.keyframes.importers.colmap.cameras import write_cameras_txt
from nre_ros.keyframes.storage.store import KeyframeStore

IMAGE, INFO, TRUTH = "/camera/image_raw/compressed", "/camera/camera_info", "/ground_truth"
FRAME = "camera_optical"
PLACES = (*QUERIES, (0.2, 0.0, 1.4, 0.0, 0.0), (-0.1, 0.3, 1.35, -0.05, 0.0))
PERIOD = 10**9
T_BASE_CAM = np.array([[0, 0, 1.0, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])


def write_map(path):
    room = small_room()
    with KeyframeStore.create(path, room.backbone.name, room.backbone.weights_hash) as store:
        for keyframe in room.keyframes:
            store.add(keyframe)
    return path


def views():
    """(stamp, JPEG bytes, exact T_map_cam) of every query."""
    for k, place in enumerate(PLACES):
        image, T = small_room().view(*place)
        yield START + k * PERIOD, cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(), T


def write_bag(path, storage="mcap", truth="pose", frame="map", change=lambda T: T, images=True):
    """truth: pose, odometry (of base), or empty; change: applied to every ground-truth pose."""
    messages = [(START - 10**8, "/tf_static", "tf", tf_message(START, [("base", FRAME, T_BASE_CAM)]))]
    for stamp, data, T in views():
        messages.append((stamp, INFO, "info", camera_info_message(stamp, FRAME, CAMERA)))
        if images:
            messages.append((stamp + 1000, IMAGE, "compressed", encoded_message(stamp, FRAME, data)))
        if truth == "pose":
            messages.append((stamp, TRUTH, "pose", pose_message(stamp, frame, change(T))))
        elif truth == "odometry":
            base = T @ np.linalg.inv(T_BASE_CAM)
            messages.append((stamp, "/odom", "odometry", odometry_message(stamp, frame, "base", base)))
    return write_messages(path, messages, storage)


def write_list(folder):
    """Writes images, list, cameras.txt and truth.txt into a folder."""
    folder.mkdir()
    names, lines = [], ["# t x y z qx qy qz qw"]
    for k, (stamp, data, T) in enumerate(views()):
        names.append(f"{k}.jpg")
        (folder / names[-1]).write_bytes(data)
        lines.append(tum_line(stamp, T))
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    (folder / "truth.txt").write_text("\n".join(lines) + "\n")
    write_cameras_txt(folder / "cameras.txt", {1: CAMERA})
    return folder


def tum_line(stamp, T):
    position, quaternion = position_quaternion(T)
    return f"{stamp // 10**9}.{stamp % 10**9:09d} " + " ".join(repr(float(v)) for v in (*position, *quaternion))
