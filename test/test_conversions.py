# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays, cameras and motions: against rosbags-image, OpenCV and closed forms."""

import array
import struct

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.errors import CameraError, ImageError, PoseError
from nre_ros.geometry import EQUIDISTANT, PINHOLE, RADIAL_TANGENTIAL
from nre_ros.images import check_image_size, decode_image
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.images import image_array
from nre_ros.node.conversions import (
    matrix_of_pose,
    pose_message,
    stamp_message,
    stamp_nanoseconds,
    transform_message,
)

CHANNELS = {
    "mono8": 1,
    "8UC1": 1,
    "bgr8": 3,
    "8UC3": 3,
    "rgb8": 3,
    "bgra8": 4,
    "rgba8": 4,
    "uyvy": 2,
    "yuyv": 2,
    "yuv422": 2,
    "yuv422_yuy2": 2,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
}


def random_pixels(shape, dtype=np.uint8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)
    pixels[0, 0] = np.iinfo(dtype).max
    return pixels


def raw_message(pixels, encoding, padding=0, big_endian=False):
    """An Image of pixels [H, W] or [H, W, C], each row followed by ``padding`` bytes of noise."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).reshape(height, -1).view(np.uint8)
    noise = np.full((height, padding), 171, np.uint8)
    data = np.hstack([rows, noise])
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=big_endian,
        step=data.shape[1],
        data=array.array("B", data.tobytes()),
    )


def compressed_message(extension, pixels, *parameters):
    data = cv2.imencode(extension, pixels, list(parameters))[1].tobytes()
    return CompressedImage(format=extension[1:], data=array.array("B", data))


def info_message(**changes):
    info = CameraInfo(
        width=640,
        height=480,
        distortion_model="plumb_bob",
        d=[0.1, -0.2, 0.001, 0.002, 0.03],
        k=[500.0, 0.0, 321.0, 0.0, 510.0, 239.0, 0.0, 0.0, 1.0],
    )
    info.p = [450.0, 0.0, 318.0, 0.0, 0.0, 455.0, 236.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


# --- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize("encoding", CHANNELS)
def test_every_8_bit_encoding_as_rosbags_image_reads_it(encoding, padding):
    rosbags_image = pytest.importorskip("rosbags.image", reason="needs rosbags-image as the oracle")
    channels = CHANNELS[encoding]
    pixels = random_pixels((24, 32) if channels == 1 else (24, 32, channels))
    target = {"mono8": None, "8UC1": None, "8UC3": None}.get(encoding, "bgr8")
    expected = rosbags_image.image_to_cvimage(raw_message(pixels, encoding), target)
    decoded = image_array(raw_message(pixels, encoding, padding))
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize("encoding, first", [("nv12", 1), ("nv21", 2)])
def test_semi_planar_images_have_the_colours_of_their_planes(encoding, first, padding):
    """Each block of two by two pixels has a colour of its own; OpenCV made the planes."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    pixels = cv2.resize(colours, (32, 24), interpolation=cv2.INTER_NEAREST)
    planar = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420)
    u, v = planar[24:].reshape(2, 12, 16)
    colour = np.stack([u, v] if first == 1 else [v, u], axis=-1).reshape(12, 32)
    rows = np.pad(np.vstack([planar[:24], colour]), ((0, 0), (0, padding)), constant_values=77)
    message = Image(height=24, width=32, encoding=encoding, step=32 + padding, data=array.array("B", rows.tobytes()))
    np.testing.assert_allclose(image_array(message), cv2.cvtColor(planar, cv2.COLOR_YUV2BGR_I420))
    assert np.abs(image_array(message).astype(int) - pixels).mean() < 4
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match="expected"):
        image_array(message)
    message.height = 23
    with pytest.raises(ImageError, match="even"):
        image_array(message)


def test_the_second_camera_of_a_stereo_pair_is_refused_where_it_is_rectified():
    info = info_message()
    info.p[3] = -60.0
    with pytest.raises(CameraError, match="second camera of a stereo pair"):
        camera_from_info(info, rectified=True)
    assert camera_from_info(info).fx == 500.0


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding, channels", [("mono16", 1), ("rgb16", 3), ("bgra16", 4), ("bayer_grbg16", 1)])
def test_16_bit_images_keep_their_upper_8_bits(encoding, channels, big_endian):
    pixels = random_pixels((24, 32) if channels == 1 else (24, 32, channels), np.uint16)
    expected = image_array(raw_message((pixels >> 8).astype(np.uint8), encoding.replace("16", "8")))
    np.testing.assert_array_equal(image_array(raw_message(pixels, encoding, big_endian=big_endian)), expected)


def test_a_12_bit_camera_in_mono16_is_not_black():
    pixels = random_pixels((24, 32), np.uint16) >> 4
    np.testing.assert_array_equal(image_array(raw_message(pixels, "mono16")), pixels >> 4)


def test_plain_images_are_not_copied():
    message = raw_message(random_pixels((24, 32, 3)), "bgr8")
    decoded = image_array(message)
    message.data[5] ^= 255
    assert decoded[0, 1, 2] == message.data[5]


def test_png_is_lossless_and_jpeg_is_near():
    pixels = cv2.GaussianBlur(random_pixels((48, 64, 3)), (0, 0), 6)
    np.testing.assert_array_equal(image_array(compressed_message(".png", pixels)), pixels)
    np.testing.assert_array_equal(image_array(compressed_message(".png", pixels[..., 0])), pixels[..., 0])
    decoded = image_array(compressed_message(".jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, 98)).astype(int)
    assert np.abs(decoded - pixels).max() < 12


@pytest.mark.parametrize("appended", [bytes(100), b"metadata of a phone"])
def test_bytes_appended_to_a_jpeg_are_ignored(appended):
    message = compressed_message(".jpg", random_pixels((48, 64, 3)))
    expected = image_array(message)
    message.data.extend(appended)
    np.testing.assert_array_equal(image_array(message), expected)


@pytest.mark.parametrize("restart", [0, 2])
def test_a_jpeg_without_an_end_marker_is_read_if_it_has_all_pixels(restart):
    data = cv2.imencode(".jpg", random_pixels((48, 64, 3)), [cv2.IMWRITE_JPEG_RST_INTERVAL, restart])[1].tobytes()
    whole, bare = decode_image(data, cv2.IMREAD_COLOR, "image"), data.removesuffix(b"\xff\xd9")
    np.testing.assert_array_equal(decode_image(bare, cv2.IMREAD_COLOR, "image"), whole)
    restarts = [at for at in range(len(bare)) if bare[at] == 0xFF and 0xD0 <= bare[at + 1] <= 0xD7]
    assert bool(restarts) == bool(restart)
    for end in (len(bare) - 3, len(bare) - 40, len(bare) // 2, *restarts[-3:], *(at + 2 for at in restarts[-3:])):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(bare[:end], cv2.IMREAD_COLOR, "image")


def test_a_progressive_jpeg_without_an_end_marker_is_refused():
    """Later scans refine its pixels: whether one is missing does not show."""
    data = cv2.imencode(".jpg", random_pixels((48, 64, 3)), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    decode_image(data, cv2.IMREAD_COLOR, "image")
    with pytest.raises(ImageError, match="truncated"):
        decode_image(data.removesuffix(b"\xff\xd9"), cv2.IMREAD_COLOR, "image")


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_bytes_behind_the_end_of_an_image_are_ignored(extension):
    data = cv2.imencode(extension, random_pixels((48, 64, 3)))[1].tobytes()
    whole = decode_image(data, cv2.IMREAD_COLOR, "image")
    for tail in (b"\0" * 1000, b"\xff\xda more", data[: len(data) // 2]):  # the last: another image that is cut off
        np.testing.assert_array_equal(decode_image(data + tail, cv2.IMREAD_COLOR, "image"), whole)


@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize("encoding, order", [("i420", [0, 1]), ("yv12", [1, 0])])
@pytest.mark.parametrize("height", [24, 22])
def test_planar_images_have_the_colours_of_their_planes(encoding, order, padding, height):
    """OpenCV made the planes; rows of colour are half as long as rows of grey, padding included."""
    planar = cv2.cvtColor(cv2.GaussianBlur(random_pixels((height, 32, 3)), (0, 0), 2), cv2.COLOR_BGR2YUV_I420)
    grey, colours = planar[:height], planar[height:].reshape(2, height // 2, 16)[order]
    rows = [np.pad(plane, ((0, 0), (0, padding // share))) for plane, share in ((grey, 1), *((c, 2) for c in colours))]
    data = array.array("B", b"".join(plane.tobytes() for plane in rows))
    message = Image(height=height, width=32, encoding=encoding, step=32 + padding, data=data)
    np.testing.assert_array_equal(image_array(message), cv2.cvtColor(planar, cv2.COLOR_YUV2BGR_I420))
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match="expected"):
        image_array(message)


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_refused():
    message = compressed_message(".jpg", random_pixels((48, 64, 3)))
    thumbnail = bytes(compressed_message(".jpg", random_pixels((6, 8, 3))).data)
    whole = bytes(message.data)
    with_thumbnail = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[2:]
    message.data = array.array("B", with_thumbnail)
    assert image_array(message).shape == (48, 64, 3)
    message.data = array.array("B", with_thumbnail[:-200])
    with pytest.raises(ImageError, match="truncated"):
        image_array(message)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(extension, part):
    message = compressed_message(extension, random_pixels((48, 64, 3)))
    message.data = message.data[: int(part * len(message.data))]
    with pytest.raises(ImageError, match=rf"truncated: {len(message.data)} bytes"):
        image_array(message)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xd9", b"no image at all"])
def test_bytes_that_are_no_image_are_refused(data):
    with pytest.raises(ImageError, match=rf"format 'jpeg'\) cannot be decoded \({len(data)} bytes\)"):
        image_array(CompressedImage(format="jpeg", data=array.array("B", data)))


def test_compressed_depth_is_refused():
    with pytest.raises(ImageError, match="depth"):
        image_array(CompressedImage(format="16UC1; compressedDepth png", data=array.array("B", bytes(20))))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"encoding": "bgr9"}, "unknown image encoding 'bgr9'"),
        ({"encoding": ""}, "unknown image encoding ''"),
        ({"encoding": "32FC1"}, "unknown image encoding '32FC1'"),
        ({"width": 0}, "0x24 pixels is empty"),
        ({"height": 0}, "32x0 pixels is empty"),
        ({"step": 95}, "step of 95 bytes is less than a row of 32 bgr8 pixels"),
        ({"step": 0}, "step of 0 bytes"),
        ({"height": 25}, "has 2304 bytes, 96 x 25 = 2400 expected"),
        ({"data": array.array("B")}, "has 0 bytes"),
    ],
)
def test_invalid_image_messages_are_refused_with_the_reason(changes, words):
    message = raw_message(random_pixels((24, 32, 3)), "bgr8")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=words) as caught:
        image_array(message)
    assert "\n" not in str(caught.value)


def test_yuv_of_an_odd_width_is_refused_not_crashed():
    with pytest.raises(ImageError, match="31x24 uyvy") as caught:
        image_array(raw_message(random_pixels((24, 31, 2)), "uyvy"))
    assert "\n" not in str(caught.value)


# --- cameras ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, coefficients, expected",
    [
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.03], RADIAL_TANGENTIAL),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002], RADIAL_TANGENTIAL),
        ("rational_polynomial", [0.1, -0.2, 0.001, 0.002, 0.03, 0.2, -0.1, 0.01], RADIAL_TANGENTIAL),
        ("rational_polynomial", [0.1, -0.2, 0.001, 0.002, 0.03, 0.2, -0.1, 0.01] + [0.0] * 6, RADIAL_TANGENTIAL),
        ("equidistant", [0.01, -0.002, 0.003, -0.001], EQUIDISTANT),
        ("equidistant", [0.0] * 4, EQUIDISTANT),
        ("equidistant", [], PINHOLE),
        ("plumb_bob", [0.0] * 5, PINHOLE),
        ("plumb_bob", [], PINHOLE),
        ("", [], PINHOLE),
    ],
)
def test_distortion_models(model, coefficients, expected):
    camera = camera_from_info(info_message(distortion_model=model, d=coefficients))
    assert camera.model == expected
    assert camera.distortion == (() if expected == PINHOLE else tuple(coefficients[:8]))
    assert (camera.width, camera.height) == (640, 480)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 321, 239)


@pytest.mark.parametrize(
    "model, coefficients, kept",
    [
        ("equidistant", [0.01, -0.002, 0.003, -0.001, 0.0], 4),
        ("equidistant", [0.01, -0.002, 0.003, -0.001] + [0.0] * 10, 4),
        ("fisheye", [0.0] * 8, 4),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.0], 5),
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.03, 0.0], 5),
        ("rational_polynomial", [0.1, -0.2, 0.001, 0.002, 0.03, 0.2, -0.1, 0.01, 0.0], 8),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 6, 8),
        ("rational_polynomial", [0.1, -0.2, 0.001, 0.002] + [0.0] * 10, 8),
    ],
)
def test_trailing_zeros_of_the_distortion_are_left_out(model, coefficients, kept):
    assert camera_from_info(info_message(distortion_model=model, d=coefficients)).distortion == tuple(
        coefficients[:kept]
    )


def test_rectified_images_have_the_projection_of_p_and_no_distortion():
    camera = camera_from_info(info_message(), rectified=True)
    assert (camera.model, camera.fx, camera.fy, camera.cx, camera.cy) == (PINHOLE, 450, 455, 318, 236)


def test_binning_and_region_of_interest_move_pixels_as_the_sensor_does():
    """A point of the full sensor lands where averaging blocks of the cut-out region puts it."""
    info = info_message(binning_x=2, binning_y=3)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 60, 400, 300
    camera, full = camera_from_info(info), camera_from_info(info_message())
    assert (camera.width, camera.height) == (200, 100)
    columns, rows = np.meshgrid(np.arange(640.0), np.arange(480.0))
    cut = np.stack([columns, rows])[:, 60:360, 100:500]
    u, v = cut.reshape(2, 100, 3, 200, 2).mean(axis=(2, 4))  # which full-sensor point each binned pixel shows
    for row, column in [(0, 0), (99, 199), (31, 77)]:
        ray = (u[row, column] - full.cx) / full.fx, (v[row, column] - full.cy) / full.fy
        assert camera.fx * ray[0] + camera.cx == pytest.approx(column, abs=1e-9)
        assert camera.fy * ray[1] + camera.cy == pytest.approx(row, abs=1e-9)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"k": [0.0] * 9}, "not calibrated: K is all zeros"),
        ({"k": [float("nan"), 0.0, 321.0, 0.0, 510.0, 239.0, 0.0, 0.0, 1.0]}, "not finite"),
        ({"k": [500.0, 0.0, 321.0, 0.0, -510.0, 239.0, 0.0, 0.0, 1.0]}, "fy=-510"),
        ({"k": [500.0, 3.5, 321.0, 0.0, 510.0, 239.0, 0.0, 0.0, 1.0]}, "skew of 3.5"),
        ({"d": [0.1, float("inf"), 0.0, 0.0]}, "not finite"),
        ({"d": [0.1, 0.2, 0.3]}, "got 3"),
        ({"d": [0.1] * 12}, "got 12"),
        ({"distortion_model": "equidistant", "d": [0.1] * 5}, "got 5"),
        ({"distortion_model": "polynomial9"}, "unknown distortion model 'polynomial9'"),
        ({"width": 0}, "0x480"),
    ],
)
def test_invalid_intrinsics_are_refused_with_the_reason(changes, words):
    with pytest.raises(CameraError, match=words) as caught:
        camera_from_info(info_message(**changes))
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_than_the_camera_names_both():
    with pytest.raises(ImageError, match="320x240 .* 640x480"):
        check_image_size(np.zeros((240, 320, 3), np.uint8), camera_from_info(info_message()))


# --- times and motions ------------------------------------------------------------------------------


@pytest.mark.parametrize("nanoseconds", [0, 1, 999_999_999, 1_700_000_016_666_666_667])
def test_stamps_keep_every_nanosecond(nanoseconds):
    assert stamp_nanoseconds(stamp_message(nanoseconds)) == nanoseconds


def test_poses_keep_their_values():
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("zyx", [2.8, -0.4, 1.1]).as_matrix()
    T[:3, 3] = 1.5, -2.5, 0.25
    np.testing.assert_allclose(matrix_of_pose(pose_message(T)), T, atol=1e-12)
    message = transform_message(T, "map", "odom", 1_500_000_001)
    assert (message.header.frame_id, message.child_frame_id) == ("map", "odom")
    assert stamp_nanoseconds(message.header.stamp) == 1_500_000_001
    q, t = message.transform.rotation, message.transform.translation
    np.testing.assert_allclose(
        Rotation.from_quat([q.x, q.y, q.z, q.w]).apply([1, 2, 3]) + [t.x, t.y, t.z], (T @ [1, 2, 3, 1])[:3], atol=1e-12
    )


def test_an_invalid_pose_message_is_refused():
    message = pose_message(np.eye(4))
    message.position.y = float("nan")
    with pytest.raises(PoseError, match="nan"):
        matrix_of_pose(message)
