# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The table of the node's parameters.

``config/localize.yaml`` shows them all with these defaults.
"""

from __future__ import annotations

from nre_ros.node.declaration import Declaration
from nre_ros.node.view_declarations import VIEWS

_START = (
    Declaration(
        "autostart", True, "Configure and activate the node when it starts; false: a lifecycle manager does it."
    ),
)

_MAP = (
    Declaration("map_file", "", "Map file (made by `nre_ros map build`) to localize in."),
    Declaration(
        "create_map", False, "Make an empty map where map_file is missing, for keyframes to be added to by topic."
    ),
    Declaration(
        "device",
        "auto",
        "Where the network and the estimator run; auto: the GPU if there is one.",
        choices=("auto", "cpu", "cuda"),
    ),
    Declaration("seed", 0, "Seed of the random draws: same image, same seed, same pose.", range=(0, 2**31 - 1)),
    Declaration("retrieve", 5, "Keyframes of the map that an image is compared with.", range=(1, 100)),
    Declaration(
        "min_confidence",
        0.5,
        "Images localized with a lower confidence (0 to 1) get no pose.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "use_prior",
        True,
        "Try the expected pose (of a hint, or of the last accepted pose and odometry) beside what the "
        "image suggests; false: the image alone.",
        runtime=True,
    ),
)

_IMAGES = (
    Declaration(
        "mode",
        "continuous",
        "Which images are localized: continuous (as many as the machine manages), until_localized (until a pose has "
        "been accepted) or on_request (after a call of ~/relocalize).",
        choices=("continuous", "until_localized", "on_request"),
        runtime=True,
    ),
    Declaration(
        "max_rate",
        0.0,
        "Images of each camera that are localized in a second, at most; 0: no limit.",
        range=(0.0, 1000.0),
        runtime=True,
    ),
    Declaration(
        "cameras",
        [""],
        "Names of the robot's cameras.  Each has the topics <name>/image and <name>/camera_info; an empty name "
        "stands for image and camera_info.",
    ),
    Declaration(
        "image_transport",
        "auto",
        "Images to listen to: raw (topic image), compressed (topic image/compressed) or auto, whichever comes.",
        choices=("auto", "raw", "compressed"),
    ),
    Declaration("rectified", False, "The images are undistorted already: camera_info's P counts, not its K and D."),
)

_FRAMES = (
    Declaration("map_frame", "", "Name of the map's frame in messages and TF; empty: the one in the map file."),
    Declaration(
        "odom_frame",
        "odom",
        "Odometry frame: TF must connect it with the camera, and map->odom is broadcast.  Empty: there is no "
        "odometry, map->base_frame (or map->camera) is broadcast at the image's stamp.",
    ),
    Declaration(
        "base_frame",
        "",
        "The robot's base, whose pose initialpose tells and, without odometry, is broadcast; TF must connect it "
        "with the camera.  Empty: the camera.",
    ),
    Declaration(
        "camera_frame",
        "",
        "The camera's optical frame, of a robot with one camera; empty: frame_id of the image, or of camera_info.",
    ),
    Declaration(
        "pose_frame",
        "",
        "Frame whose pose is published on pose and pose_with_covariance; TF must connect it with the camera.  "
        "Empty: the camera's optical frame; of several cameras, base_frame.",
    ),
)

_TF = (
    Declaration("publish_tf", True, "Broadcast on /tf; false: only the pose topics.", runtime=True),
    Declaration("transform_rate", 20.0, "How often the latest map->odom is broadcast, in Hz.", range=(1.0, 200.0)),
    Declaration(
        "transform_tolerance",
        0.1,
        "Seconds by which map->odom is dated into the future, so that it holds until the next one.",
        range=(0.0, 5.0),
        runtime=True,
    ),
    Declaration(
        "transform_timeout",
        0.2,
        "Seconds to wait for the transform at the image's stamp to arrive.",
        range=(0.0, 1.5),
        runtime=True,
    ),
)

_GATE = (
    Declaration(
        "agreement",
        0.999,
        "Probability with which a right pose passes the test against odometry since the last accepted one.",
        range=(0.5, 0.999999),
        runtime=True,
    ),
    Declaration(
        "first_fixes",
        2,
        "Images in a row whose poses agree with each other, before the first pose is accepted.",
        range=(1, 100),
        runtime=True,
    ),
    Declaration("first_seconds", 0.2, "Time that these images span, in seconds.", range=(0.0, 60.0), runtime=True),
    Declaration(
        "jump_fixes",
        3,
        "The same before a pose is accepted that odometry does not explain (a kidnapped robot).",
        range=(1, 100),
        runtime=True,
    ),
    Declaration("jump_seconds", 1.5, "Time that these images span, in seconds.", range=(0.0, 60.0), runtime=True),
    Declaration(
        "single_confidence",
        0.0,
        "A first pose of this confidence needs no second image; 0: all do.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "max_rival",
        0.35,
        "An image whose second pose has more than this share says nothing by itself: odometry decides.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "inflation",
        1.0,
        "Factor on the standard deviations that the estimator states.",
        range=(0.1, 100.0),
        runtime=True,
    ),
    Declaration("floor_metres", 0.02, "Smallest standard deviation of a position.", range=(1e-4, 10.0), runtime=True),
    Declaration(
        "max_metres",
        0.5,
        "Poses whose position is less certain than this (one standard deviation) are refused.",
        range=(0.001, 1000.0),
        runtime=True,
    ),
    Declaration(
        "lost_seconds",
        10.0,
        "Seconds without an accepted pose after which the robot is lost.",
        range=(0.1, 86400.0),
        runtime=True,
    ),
    Declaration(
        "lost_metres",
        10.0,
        "Metres by odometry without an accepted pose after which the robot is lost.",
        range=(0.1, 1e6),
        runtime=True,
    ),
    Declaration(
        "max_speed",
        2.0,
        "The robot's largest speed, m/s; odometry that is faster has jumped.",
        range=(0.01, 100.0),
        runtime=True,
    ),
    Declaration(
        "drift_per_metre",
        0.05,
        "By how much odometry errs, in metres a metre (one standard deviation).",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "drift_per_radian",
        0.05,
        "By how much odometry errs, in radians a radian (one standard deviation).",
        range=(0.0, 1.0),
        runtime=True,
    ),
)

_POSES = (
    Declaration(
        "follow_odometry",
        False,
        "Publish the pose between images, too, carried on by odometry, with a covariance "
        "that grows; false: only poses of images.",
        runtime=True,
    ),
    Declaration(
        "last_pose_file",
        "",
        "File in which the last accepted pose is kept, as a hint where to begin at the next start; empty: none.",
    ),
)

SECTIONS = {
    "start": _START,
    "map and estimator": _MAP,
    "images": _IMAGES,
    "frames (REP-105)": _FRAMES,
    "TF": _TF,
    "which poses are accepted": _GATE,
    "poses": _POSES,
    "diagnostics and views": VIEWS,
}
"""Title -> parameters, in the order of the parameter file."""

DECLARATIONS = tuple(declaration for section in SECTIONS.values() for declaration in section)
