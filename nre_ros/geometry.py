# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Rigid motions and cameras in torch, batch first, with analytic Jacobians.

Conventions (the whole package keeps them):

* ``T_b_a`` maps coordinates of frame a into frame b: ``x_b = R x_a + t``, a 4x4 matrix.
* Camera frames are optical frames (REP-103): z forward, x right, y down.
* Pixel (0, 0) is the centre of the first pixel.
* Quaternions are x y z w, as ROS has them. Metres and radians.

Camera models: pinhole; radial-tangential with 4, 5 or 8 coefficients in OpenCV's order
(k1 k2 p1 p2 [k3 [k4 k5 k6]], ROS ``plumb_bob`` and ``rational_polynomial``); equidistant
fisheye with 4 coefficients (Kannala and Brandt 2006, OpenCV's ``fisheye``, ROS ``equidistant``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from nre_ros.device_constants import device_constant
from nre_ros.errors import CameraError, PoseError

MIN_DEPTH = 1e-4
"""Points nearer to the camera's plane than this (metres) count as behind it."""

FAR_FROM_ORIGIN = 1000.0
"""Coordinates beyond this many metres are computed and stored about a nearer origin. Up to here a number in single
precision is rounded by at most 0.03 mm."""

_FAR = 1e4
"""Points at a larger |x / z| or |y / z| are projected as if there: in single precision the powers of
the distortion would overflow."""

_MAX_PIXELS = 1 << 30
"""OpenCV reads no larger image."""

PINHOLE = "pinhole"
RADIAL_TANGENTIAL = "radial_tangential"
EQUIDISTANT = "equidistant"
_COEFFICIENTS = {PINHOLE: (0,), RADIAL_TANGENTIAL: (4, 5, 8), EQUIDISTANT: (4,)}


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera.

    Attributes:
        width: Of the image, pixels.
        height: Of the image, pixels.
        fx: Focal length, pixels.
        fy: Focal length, pixels.
        cx: Principal point, pixels.
        cy: Principal point, pixels.
        model: ``pinhole``, ``radial_tangential`` or ``equidistant``.
        distortion: Coefficients: none, 4, 5 or 8, and 4.

    Raises:
        CameraError: No projection can be computed with these values.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: str = PINHOLE
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in _COEFFICIENTS:
            raise CameraError(f"unknown camera model {self.model!r}, known: {sorted(_COEFFICIENTS)}")
        if len(self.distortion) not in _COEFFICIENTS[self.model]:
            raise CameraError(
                f"camera model {self.model} takes {_COEFFICIENTS[self.model]} distortion "
                f"coefficients, got {len(self.distortion)}"
            )
        if self.width <= 0 or self.height <= 0:
            raise CameraError(f"camera size {self.width}x{self.height} is not positive")
        if self.width * self.height > _MAX_PIXELS:
            raise CameraError(f"camera size {self.width}x{self.height} is larger than any image can be")
        values = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(math.isfinite(value) for value in values):
            raise CameraError(f"camera intrinsics are not finite: {values}")
        if self.fx <= 0 or self.fy <= 0:
            raise CameraError(f"focal lengths must be positive, got fx={self.fx} fy={self.fy}")

    @property
    def K(self) -> npt.NDArray[np.float64]:
        """Intrinsic matrix ``[3, 3]`` float64."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    def resized(self, width: int, height: int) -> Camera:
        """Returns the camera of the same image resampled to another size.

        Pixel (0, 0) stays the centre of the first pixel.

        Args:
            width: New width, pixels.
            height: New height, pixels.
        """
        sx, sy = width / self.width, height / self.height
        return Camera(
            width,
            height,
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
            self.model,
            self.distortion,
        )

    @cached_property
    def max_radius(self) -> float:
        """Largest ``|(x, y) / z|`` up to which the distortion is one-to-one; inf if everywhere.

        Beyond it the polynomial folds back, and a point far outside the field of view would seem to lie inside the
        image. For the fisheye it is the tangent of the largest angle.
        """
        if self.model == PINHOLE or not any(self.distortion):
            return math.inf
        if self.model == EQUIDISTANT:
            angle = np.linspace(0.0, math.pi / 2, 2000)[:-1]
            k1, k2, k3, k4 = self.distortion
            a2 = angle**2
            slope = 1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + a2 * 9 * k4)))
            folds = np.flatnonzero(slope <= 0)
            return math.tan(angle[folds[0]]) if folds.size else math.inf
        k1, k2, _, _, k3, k4, k5, k6 = self._eight()
        r = np.linspace(0.0, 10.0, 20001)
        r2 = r**2
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = r * (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        folds = np.flatnonzero(~(np.diff(radius) > 0))
        return float(r[folds[0]]) if folds.size else math.inf

    def _eight(self) -> tuple[float, ...]:
        return (*self.distortion, *(0.0,) * (8 - len(self.distortion)))

    def project(
        self, points: torch.Tensor, jacobian: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Projects points of the camera frame.

        Args:
            points: ``[..., 3]``, metres.
            jacobian: Whether the Jacobian is wanted.

        Returns:
            Pixels ``[..., 2]``; a mask ``[...]`` that is false behind the camera (z < ``MIN_DEPTH``) and beyond
            ``max_radius``, where pixels are finite but meaningless; and d pixels / d points ``[..., 2, 3]``, None
            unless asked for.
        """
        z = points[..., 2]
        front = z >= MIN_DEPTH
        z = torch.where(front, z, torch.ones_like(z))
        xy = points[..., :2] / z[..., None]
        if any(self.distortion):
            xy = xy.clamp(-_FAR, _FAR)
        valid = front
        if math.isfinite(self.max_radius):
            valid = front & ((xy * xy).sum(-1) < self.max_radius**2)
        distorted, d_xy = self._distort(xy, jacobian)
        focal, centre = self._intrinsics(points)
        pixels = distorted * focal + centre
        if d_xy is None:
            return pixels, valid, None
        d_xy = d_xy * focal[:, None]
        # d(x/z, y/z)/d(x, y, z) = [I | -(x/z, y/z)] / z
        d_z = -(d_xy @ xy[..., None])
        return pixels, valid, torch.cat([d_xy, d_z], dim=-1) / z[..., None, None]

    def rays(self, pixels: torch.Tensor, iterations: int = 10) -> torch.Tensor:
        """Computes viewing directions in the camera frame; Newton's method inverts the distortion.

        Args:
            pixels: ``[..., 2]``.
            iterations: Largest number of Newton steps.

        Returns:
            ``[..., 3]`` of unit length.
        """
        focal, centre = self._intrinsics(pixels)
        target = (pixels - centre) / focal
        xy = target
        if any(self.distortion):
            if self.model == EQUIDISTANT:
                # start on the undistorted fisheye: the distorted radius is the angle itself
                angle = target.norm(dim=-1, keepdim=True).clamp(1e-9, 1.5)
                xy = target / angle * torch.tan(angle)
            for _ in range(iterations):
                distorted, d_xy = self._distort(xy, True)
                assert d_xy is not None
                step = _solve_2x2(d_xy, distorted - target)
                xy = xy - step
                # on a GPU the answer would take longer than the remaining steps
                if not xy.is_cuda and not bool((step.abs() > 1e-12).any()):
                    break
        elif self.model == EQUIDISTANT:
            angle = target.norm(dim=-1, keepdim=True).clamp(1e-9, 1.57)
            xy = target / angle * torch.tan(angle)
        ray = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
        return ray / ray.norm(dim=-1, keepdim=True)

    def _intrinsics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Focal lengths and principal point, [2] each, of another tensor's type and on its device."""
        focal = device_constant((self.fx, self.fy), like.dtype, like.device)
        return focal, device_constant((self.cx, self.cy), like.dtype, like.device)

    def _distort(self, xy: torch.Tensor, jacobian: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Distorted normalised coordinates of xy [..., 2] and their Jacobian [..., 2, 2]."""
        if self.model == PINHOLE or (self.model == RADIAL_TANGENTIAL and not any(self.distortion)):
            eye = torch.eye(2, dtype=xy.dtype, device=xy.device).expand(*xy.shape, 2) if jacobian else None
            return xy, eye
        if self.model == EQUIDISTANT:
            return _distort_equidistant(xy, self.distortion, jacobian)
        return _distort_radial_tangential(xy, self._eight(), jacobian)


def fitting_coefficients(model: str, coefficients: Sequence[float]) -> tuple[float, ...]:
    """Leaves out trailing zeros of distortion coefficients that a camera model does not have.

    Calibration programs write coefficients of larger models: equidistant with 5, rational with 14.

    Args:
        model: A camera model; see ``Camera``.
        coefficients: In the model's order.

    Returns:
        As many of the coefficients as the model takes; all of them if those behind are not zero.
    """
    values = tuple(coefficients)
    counts = [n for n in _COEFFICIENTS.get(model, ()) if n <= len(values) and not any(values[n:])]
    return values[: max(counts)] if counts else values


_FOCAL_LENGTHS = (0.05, 50.0)
"""Smallest and largest usable focal length, as a multiple of the image's longer side (fields of view of 169 and 1 degree).
"""
_USUAL_FOCAL_LENGTHS = {PINHOLE: (0.2, 5.0), RADIAL_TANGENTIAL: (0.2, 5.0), EQUIDISTANT: (0.12, 5.0)}
_ASPECTS = (0.4, 2.5)
"""Smallest and largest usable ratio of the two focal lengths; binning in one direction gives 0.5 or 2."""
_USUAL_ASPECTS = (0.85, 1.18)
_CENTRES = (-10.0, 11.0)
"""Where a usable principal point lies, as a multiple of the image's size; a small region of interest has it outside."""
_USUAL_CENTRES = (0.2, 0.8)
_MAX_REPORTED = 5
"""Unusual cameras that are described one by one."""


def check_camera(camera: Camera) -> Camera:
    """Refuses intrinsics that cannot be those of any camera: normalised ones, or columns in another order, for example.

    Args:
        camera: A camera that a file or a message describes.

    Returns:
        The same camera.

    Raises:
        CameraError: Focal length, ratio of the focal lengths, or principal point is impossible.
    """
    problems = _implausible_values(camera, _FOCAL_LENGTHS, _ASPECTS, _CENTRES)
    if problems:
        raise CameraError(f"impossible intrinsics: {'; '.join(problems)}")
    return camera


def camera_warnings(camera: Camera) -> list[str]:
    """Finds what is unusual about a camera, and probably wrong.

    Args:
        camera: The camera.

    Returns:
        One phrase each; empty for a usual camera.
    """
    found = _implausible_values(camera, _USUAL_FOCAL_LENGTHS[camera.model], _USUAL_ASPECTS, _USUAL_CENTRES)
    edge = min(camera.width / (2 * camera.fx), camera.height / (2 * camera.fy))
    if math.isfinite(camera.max_radius):
        at_limit, _ = camera._distort(torch.tensor([[camera.max_radius, 0.0]], dtype=torch.float64), False)
        if not float(at_limit[0, 0]) > edge:
            found.append("the distortion is not one-to-one within the image")
    return found


def describe_unusual_cameras(cameras: Iterable[tuple[str, Camera]]) -> list[str]:
    """Describes the unusual ones of some cameras, see ``camera_warnings``.

    Args:
        cameras: What each camera belongs to (a file, a topic, an image), and the camera.

    Returns:
        One line each; the last one counts further cameras if there are many.
    """
    lines = [f"camera of {name}: {'; '.join(found)}" for name, camera in cameras if (found := camera_warnings(camera))]
    more = len(lines) - _MAX_REPORTED
    return lines if more <= 0 else [*lines[:_MAX_REPORTED], f"{more} further cameras are unusual, too"]


def _implausible_values(
    camera: Camera, focal_lengths: tuple[float, float], aspects: tuple[float, float], centres: tuple[float, float]
) -> list[str]:
    """What lies outside the limits, one phrase each."""
    found = []
    longer, aspect = max(camera.width, camera.height), camera.fx / camera.fy
    size = f"of an image of {camera.width}x{camera.height} pixels"
    for name, value in (("fx", camera.fx), ("fy", camera.fy)):
        if not focal_lengths[0] <= value / longer <= focal_lengths[1]:
            found.append(f"focal length {name} = {value:g} {size} (is it in pixels of this image?)")
    if not aspects[0] <= aspect <= aspects[1]:
        found.append(
            f"focal lengths fx = {camera.fx:g}, fy = {camera.fy:g} differ by a factor of {max(aspect, 1 / aspect):.3g}"
        )
    for name, value, length in (("cx", camera.cx, camera.width), ("cy", camera.cy, camera.height)):
        if not centres[0] <= (value + 0.5) / length <= centres[1]:
            found.append(f"principal point {name} = {value:g} {size} (are they intrinsics of another resolution?)")
    return found


def _solve_2x2(A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x with A x = b in closed form, A [..., 2, 2]; a batched LU takes ten times as long."""
    determinant = A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] * A[..., 1, 0]
    x = torch.stack(
        [A[..., 1, 1] * b[..., 0] - A[..., 0, 1] * b[..., 1], A[..., 0, 0] * b[..., 1] - A[..., 1, 0] * b[..., 0]], -1
    )
    return x / determinant[..., None]


def _distort_radial_tangential(
    xy: torch.Tensor, coefficients: tuple[float, ...], jacobian: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """OpenCV's rational model: x' = x N/D + 2 p1 x y + p2 (r2 + 2 x2), and y' alike."""
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = numerator / denominator
    tangential = torch.stack([2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], dim=-1)
    distorted = xy * radial[..., None] + tangential
    if not jacobian:
        return distorted, None
    d_numerator = k1 + r2 * (2 * k2 + r2 * 3 * k3)
    d_denominator = k4 + r2 * (2 * k5 + r2 * 3 * k6)
    slope = 2 * (d_numerator - radial * d_denominator) / denominator  # d radial / d x = slope x
    cross = slope * x * y + 2 * p1 * x + 2 * p2 * y
    rows = [
        radial + slope * x * x + 2 * p1 * y + 6 * p2 * x,
        cross,
        cross,
        radial + slope * y * y + 6 * p1 * y + 2 * p2 * x,
    ]
    return distorted, torch.stack(rows, dim=-1).reshape(*xy.shape, 2)


def _distort_equidistant(
    xy: torch.Tensor, coefficients: tuple[float, ...], jacobian: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Kannala-Brandt: the distorted radius is a (1 + k1 a2 + ... + k4 a8), a = atan(r)."""
    k1, k2, k3, k4 = coefficients
    r = (xy * xy).sum(-1).clamp_min(1e-24).sqrt()
    angle = torch.atan(r)
    a2 = angle * angle
    radius = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    scale = radius / r
    distorted = xy * scale[..., None]
    if not jacobian:
        return distorted, None
    d_radius = (1 + a2 * (3 * k1 + a2 * (5 * k2 + a2 * (7 * k3 + a2 * 9 * k4)))) / (1 + r * r)
    direction = xy / r[..., None]
    outer = direction[..., :, None] * direction[..., None, :]
    eye = torch.eye(2, dtype=xy.dtype, device=xy.device)
    return distorted, scale[..., None, None] * eye + (d_radius - scale)[..., None, None] * outer


def transform(T: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Applies rigid motions to points.

    Args:
        T: ``[..., 4, 4]``.
        points: ``[N, 3]``.

    Returns:
        ``[..., N, 3]``.
    """
    return points @ T[..., :3, :3].mT + T[..., None, :3, 3]


def skew(v: torch.Tensor) -> torch.Tensor:
    """Computes the skew-symmetric matrices of vectors: skew(v) w = v x w.

    Args:
        v: ``[..., 3]``.

    Returns:
        ``[..., 3, 3]``.
    """
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).reshape(*v.shape, 3)


def so3_exp(omega: torch.Tensor) -> torch.Tensor:
    """Computes the rotation matrices of rotation vectors (Rodrigues).

    Args:
        omega: ``[..., 3]``, radians.

    Returns:
        ``[..., 3, 3]``.
    """
    angle2 = (omega * omega).sum(-1)[..., None, None]
    angle = angle2.clamp_min(1e-24).sqrt()
    small = angle2 < 1e-8
    a = torch.where(small, 1 - angle2 / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / angle.square())
    W = skew(omega)
    return torch.eye(3, dtype=omega.dtype, device=omega.device) + a * W + b * (W @ W)


def left_update(T: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Applies left increments to poses: R <- exp(delta[:3]) R, t <- t + delta[3:].

    Args:
        T: ``[..., 4, 4]``.
        delta: ``[..., 6]`` (rotation, translation), radians and metres.

    Returns:
        The updated poses ``[..., 4, 4]``.
    """
    updated = T.clone()
    updated[..., :3, :3] = so3_exp(delta[..., :3]) @ T[..., :3, :3]
    updated[..., :3, 3] = T[..., :3, 3] + delta[..., 3:]
    return updated


def pose_jacobian(T: torch.Tensor, points: torch.Tensor, d_project: torch.Tensor) -> torch.Tensor:
    """Computes the Jacobian of pixels by the left increment (omega, t) of ``left_update``.

    d x_cam / d omega = -skew(R X), d x_cam / d t = I.

    Args:
        T: ``[..., 4, 4]`` poses ``T_cam_map``.
        points: ``[N, 3]`` in the map.
        d_project: ``[..., N, 2, 3]`` from ``Camera.project``.

    Returns:
        ``[..., N, 2, 6]``.
    """
    rotated = points @ T[..., :3, :3].mT
    # row vector u: -u skew(w) = (w x u)', for every row u of d_project
    d_rotation = torch.linalg.cross(rotated[..., None, :].expand_as(d_project), d_project, dim=-1)
    return torch.cat([d_rotation, d_project], dim=-1)


@overload
def invert(T: torch.Tensor) -> torch.Tensor: ...
@overload
def invert(T: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
def invert(T: torch.Tensor | npt.NDArray[np.float64]) -> torch.Tensor | npt.NDArray[np.float64]:
    """Inverts rigid motions.

    Args:
        T: ``[..., 4, 4]``, numpy or torch.

    Returns:
        ``[..., 4, 4]``, a tensor for a tensor and a float64 array for an array.
    """
    if isinstance(T, torch.Tensor):
        inverse, Rt = T.clone(), T[..., :3, :3].mT
        inverse[..., :3, :3] = Rt
        inverse[..., :3, 3] = -(Rt @ T[..., :3, 3, None])[..., 0]
        return inverse
    result, Rt_array = np.array(T, dtype=np.float64), np.swapaxes(T[..., :3, :3], -1, -2)
    result[..., :3, :3] = Rt_array
    result[..., :3, 3] = -(Rt_array @ T[..., :3, 3, None])[..., 0]
    return result


def pose_matrix(position: npt.ArrayLike, quaternion_xyzw: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Computes the motion of a position and a quaternion.

    Args:
        position: ``[3]``, metres.
        quaternion_xyzw: ``[4]``, of any length but zero.

    Returns:
        ``[4, 4]`` float64.

    Raises:
        PoseError: A value is not finite, or the quaternion has length zero.
    """
    position = np.asarray(position, dtype=np.float64)
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    if position.shape != (3,) or quaternion.shape != (4,):
        raise PoseError(f"a pose takes 3 + 4 numbers, got {position.shape} and {quaternion.shape}")
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        raise PoseError(f"pose is not finite: {position.tolist()} {quaternion.tolist()}")
    if np.linalg.norm(quaternion) < 1e-6:
        raise PoseError(f"quaternion has no length: {quaternion.tolist()}")
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    T[:3, 3] = position
    return T


def position_quaternion(T: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Splits a motion.

    Args:
        T: ``[4, 4]``.

    Returns:
        Position ``[3]``, and quaternion x y z w ``[4]`` with w >= 0.
    """
    T = np.asarray(T, dtype=np.float64)
    quaternion = Rotation.from_matrix(T[:3, :3]).as_quat()
    return T[:3, 3].copy(), quaternion if quaternion[3] >= 0 else -quaternion


def interpolate_poses(a: npt.ArrayLike, b: npt.ArrayLike, ratio: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Interpolates poses: linear in position, at uniform angular speed in rotation, along the shorter arc.

    Args:
        a: ``[..., 7]`` rows x y z qx qy qz qw, the poses at ratio 0.
        b: ``[..., 7]`` the poses at ratio 1.
        ratio: ``[...]``.

    Returns:
        ``[..., 7]``.
    """
    a, b, ratio = np.asarray(a), np.asarray(b), np.asarray(ratio)[..., None]
    start, end = Rotation.from_quat(a[..., 3:]), Rotation.from_quat(b[..., 3:])
    turned = start * Rotation.from_rotvec(ratio * (start.inv() * end).as_rotvec())
    return np.concatenate([(1 - ratio) * a[..., :3] + ratio * b[..., :3], turned.as_quat()], axis=-1)


def pose_error(T_a: npt.ArrayLike, T_b: npt.ArrayLike) -> tuple[float, float]:
    """Computes the difference of two poses.

    Args:
        T_a: ``[4, 4]``. Give both as ``T_map_cam``: the distance is then that of the camera centres.
        T_b: ``[4, 4]``.

    Returns:
        Distance of the origins (metres), and angle between the axes (radians).
    """
    T_a, T_b = np.asarray(T_a, dtype=np.float64), np.asarray(T_b, dtype=np.float64)
    angle = Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3]).magnitude()
    return float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3])), float(angle)


def rotation_angle(R: npt.NDArray[np.float64]) -> float:
    """Computes the angle of a rotation; nan if the matrix is not finite.

    Args:
        R: ``[3, 3]``.

    Returns:
        Radians.
    """
    return float(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1)))


def distant_origin(
    centre: npt.ArrayLike, spacing: float = 1.0, beyond: float = FAR_FROM_ORIGIN
) -> npt.NDArray[np.float64] | None:
    """Chooses a nearer origin for what lies far from the origin of its frame, as in UTM coordinates.

    Far from the origin single precision is coarse, and a small rotation about the origin is a large motion.

    Args:
        centre: ``[3]`` where the scene is, metres.
        spacing: The new origin's coordinates are multiples of this number.
        beyond: Largest coordinate, in metres, for which the frame's own origin is near enough.

    Returns:
        ``[3]`` the new origin in the frame; None where the frame's own origin is near enough.
    """
    centre = np.asarray(centre, dtype=np.float64)
    if not np.abs(centre).max() > beyond:  # nor for nan
        return None
    origin: npt.NDArray[np.float64] = np.round(centre / spacing) * spacing + 0.0  # without -0
    return origin


def move_origin(T: npt.NDArray[np.float64], origin: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Expresses poses in a frame with the same axes and another origin.

    Args:
        T: ``[..., 4, 4]`` poses in a frame.
        origin: ``[3]`` the other frame's origin in this frame.

    Returns:
        ``[..., 4, 4]`` the poses in the other frame.
    """
    moved = np.array(T, dtype=np.float64)
    moved[..., :3, 3] -= origin
    return moved


def map_to_odom(T_map_cam: npt.NDArray[np.float64], T_odom_cam: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Computes the transform ``T_map_odom`` that puts the camera where it was localized (REP-105).

    Args:
        T_map_cam: ``[4, 4]`` pose of the camera in the map.
        T_odom_cam: ``[4, 4]`` pose of the camera in the odometry frame (odom->base->camera) at the same time.

    Returns:
        ``[4, 4]`` float64.
    """
    return T_map_cam @ invert(T_odom_cam)


def covariance_of_frame(
    covariance: npt.NDArray[np.float64], T_map_cam: npt.NDArray[np.float64], T_cam_frame: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Moves the covariance of the camera's pose to a frame that is rigidly mounted to the camera.

    A small rotation w of the camera about its own centre moves the origin of the other frame, which lies at l (map's
    axes) from the camera, by w x l. Both frames share the rotation (Barfoot, State Estimation for Robotics, 2017,
    section 7.1.4, the adjoint in axes of the map).

    Args:
        covariance: ``[6, 6]`` of (x, y, z, rotation about x, y, z) in the map's axes, metres and radians.
        T_map_cam: ``[4, 4]`` pose of the camera in the map.
        T_cam_frame: ``[4, 4]`` pose of the other frame in the camera's frame.

    Returns:
        ``[6, 6]`` covariance of the other frame's pose, in the same order and axes.
    """
    x, y, z = T_map_cam[:3, :3] @ T_cam_frame[:3, 3]
    jacobian = np.eye(6)
    jacobian[:3, 3:] = [[0, z, -y], [-z, 0, x], [y, -x, 0]]  # -skew(l)
    return jacobian @ covariance @ jacobian.T
