# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training pairs against closed-form geometry, and their endless seeded sources."""

import math
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from nre_ros.errors import TrainingError
from nre_ros.gallery import Gallery, Quad, Texture
from nre_ros.geometry import RADIAL_TANGENTIAL, Camera
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.gallery_pairs import GalleryPairs
from nre_ros.learning.pair_sources import PhotographPairs, TrainingPairs
from nre_ros.learning.pairs import (
    PosedView,
    TrainingPair,
    apply_homography,
    choose_pixels,
    depth_correspondences,
    homography_pair,
    inside_image,
    posed_pair,
    warp_photograph,
)

CAMERA = Camera(160, 120, 130.0, 128.0, 80.5, 58.0)
PHOTOGRAPHS = {"coffee": np.ascontiguousarray(data.coffee()[:, :, ::-1]), "camera": data.camera()}
UNCHANGED = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def translation(x: float, y: float, scale: float = 1.0) -> np.ndarray:
    """From a view to the photograph."""
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1.0]])


def disagreement(pair: TrainingPair) -> np.ndarray:
    """Grey values by which the images differ at the visible points."""
    grey = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32) for image in (pair.image_a, pair.image_b)]
    samples = [
        cv2.remap(image, pixels[None].astype(np.float32), None, cv2.INTER_LINEAR)[0]
        for image, pixels in zip(grey, (pair.pixels_a[pair.visible], pair.pixels_b[pair.visible]))
    ]
    return np.abs(samples[0] - samples[1])


# homographies


def test_a_whole_shift_gives_the_photographs_own_pixels_and_their_shift():
    pair = homography_pair(PHOTOGRAPHS["coffee"], translation(40, 30), translation(47, 22), (160, 120), 300, rng())
    assert np.array_equal(pair.image_a, PHOTOGRAPHS["coffee"][30:150, 40:200])
    assert np.array_equal(pair.image_b, PHOTOGRAPHS["coffee"][22:142, 47:207])
    np.testing.assert_allclose(pair.pixels_b, pair.pixels_a + (-7, 8), atol=1e-9)
    expected = (pair.pixels_a[:, 0] >= 6.5) & (pair.pixels_a[:, 1] <= 111.5)
    assert np.array_equal(pair.visible, expected) and 0 < expected.sum() < len(expected) > 280


def test_a_view_of_half_the_size_averages_blocks_of_pixels():
    """Pixel x of the view is centred at 2 x + 0.5 of the photograph."""
    view = warp_photograph(PHOTOGRAPHS["coffee"], translation(0.5, 0.5, 2.0), (100, 80))
    expected = PHOTOGRAPHS["coffee"][:160, :200].reshape(80, 2, 100, 2, 3).mean((1, 3))
    assert np.abs(view - expected).max() <= 1


def test_points_beyond_the_photograph_are_left_out():
    pair = homography_pair(PHOTOGRAPHS["coffee"], translation(-50, 0), translation(0, 0), (160, 120), 300, rng())
    assert pair.pixels_a[:, 0].min() >= 49.5 and pair.visible.all()


def test_a_negative_multiple_of_a_homography_is_the_same():
    H = translation(40, 30) + np.array([[0, 0, 0], [0, 0, 0], [1e-3, 2e-3, 0]])
    pairs = [homography_pair(PHOTOGRAPHS["coffee"], H, f * translation(47, 22), (160, 120), 99, rng()) for f in (1, -3)]
    assert np.array_equal(pairs[0].visible, pairs[1].visible) and pairs[0].visible.sum() > 40
    np.testing.assert_allclose(pairs[0].pixels_b, pairs[1].pixels_b, atol=1e-8)


def test_homographies_map_by_their_definition():
    H = np.array([[1, 0.2, 3], [0.1, 0.9, -2], [1e-3, 0, 1.0]])
    x, y = 40.0, 20.0
    expected = [(x + 0.2 * y + 3) / (1 + 1e-3 * x), (0.1 * x + 0.9 * y - 2) / (1 + 1e-3 * x)]
    np.testing.assert_allclose(apply_homography(H, np.array([[x, y]])), [expected])


def test_the_images_of_a_homography_agree_at_the_places():
    source = PhotographPairs(PHOTOGRAPHS, (160, 120), points=200)
    for index in range(6):
        pair = source.pair(0, index)
        assert pair.visible.mean() > 0.3
        assert np.median(disagreement(pair)) < 6


def test_unusable_homographies_and_photographs_are_refused():
    singular = np.zeros((3, 3))
    singular[2, 2] = 1
    with pytest.raises(TrainingError, match="H_photo_b is no homography"):
        homography_pair(PHOTOGRAPHS["coffee"], np.eye(3), singular, (64, 48), 10, rng())
    with pytest.raises(TrainingError, match="no photographs"):
        PhotographPairs({})
    with pytest.raises(TrainingError, match="photograph bad: .*float64"):
        PhotographPairs({"bad": np.zeros((64, 64))})


# depth and poses


def textured(seed: int) -> Texture:
    noise = rng(seed).integers(0, 256, size=(24, 32), dtype=np.uint8)
    return Texture(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC))


def wall(z: float, left: float = -4.0, right: float = 4.0) -> Quad:
    """A wall across the optical axis of a camera at the origin, with the camera's axes."""
    return Quad(np.array([left, -3.0, z]), np.array([right - left, 0, 0]), np.array([0, 6.0, 0]), textured(int(10 * z)))


def view(gallery: Gallery, x: float = 0.0, z: float = 0.0, yaw: float = 0.0, camera: Camera = CAMERA) -> PosedView:
    T = np.eye(4)
    T[:3, :3] = [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    T[:3, 3] = x, 0, z
    rendering = gallery.render(camera, T)
    return PosedView(rendering.image, rendering.depth, camera, T)


def test_places_on_a_wall_are_shifted_by_the_parallax():
    """A wall at 2 m, a baseline of 0.25 m: fx b / z = 130 / 8 pixels to the left."""
    gallery = Gallery([wall(2.0)])
    pair = posed_pair(view(gallery), view(gallery, x=0.25), 300, rng())
    np.testing.assert_allclose(pair.pixels_b, pair.pixels_a - (130 * 0.25 / 2, 0), atol=1e-4)
    assert np.array_equal(pair.visible, pair.pixels_a[:, 0] >= 130 / 8 - 0.5)
    assert np.median(disagreement(pair)) < 2


def test_a_step_towards_the_wall_enlarges_about_the_principal_point():
    gallery = Gallery([wall(2.0)])
    pair = posed_pair(view(gallery), view(gallery, z=0.5), 300, rng())
    centre = np.array([CAMERA.cx, CAMERA.cy])
    np.testing.assert_allclose(pair.pixels_b - centre, (pair.pixels_a - centre) * 2 / 1.5, atol=1e-4)
    assert np.array_equal(pair.visible, inside_image(pair.pixels_b, 160, 120))


def test_a_rotation_moves_places_by_its_homography_whatever_the_depth():
    gallery = Gallery([wall(2.0, right=0.3), wall(3.0)])
    a, b = view(gallery), view(gallery, yaw=0.2)
    pair = posed_pair(a, b, 300, rng())
    H = CAMERA.K @ (b.T_map_cam[:3, :3].T @ a.T_map_cam[:3, :3]) @ np.linalg.inv(CAMERA.K)
    seen = pair.visible
    np.testing.assert_allclose(pair.pixels_b[seen], apply_homography(H, pair.pixels_a[seen]), atol=1e-4)
    assert 0.5 < seen.mean() < 1


def test_what_a_nearer_wall_hides_is_not_visible():
    """From 0.4 m further left, the edge of the near wall moves by 26 pixels and the far wall by 13."""
    gallery = Gallery([wall(2.0, right=0.0), wall(4.0)])
    a, b = view(gallery), view(gallery, x=-0.4)
    pixels = np.stack(np.meshgrid(np.arange(160), np.arange(40, 80)), -1).reshape(-1, 2)
    places, visible = depth_correspondences(a, b, pixels)
    far = a.depth[pixels[:, 1], pixels[:, 0]] > 3
    edge = CAMERA.cx + CAMERA.fx * 0.4 / 2  # where the near wall ends in the second view
    inside = inside_image(places, 160, 120)
    certain = np.abs(places[:, 0] - edge) > 1
    expected = np.where(far, inside & (places[:, 0] > edge), inside)
    assert np.array_equal(visible[certain], expected[certain])
    hidden = far & inside & (places[:, 0] < edge - 1)
    assert hidden.sum() == pytest.approx(13 * 40, abs=80)


def test_points_behind_the_other_camera_and_without_depth_are_not_visible():
    gallery = Gallery([wall(2.0, right=0.5)])
    a = view(gallery)
    behind = view(gallery, z=2.5)
    pixels = np.array([[40, 60], [150, 60]])
    assert a.depth[60, 40] == pytest.approx(2.0) and a.depth[60, 150] == 0
    places, visible = depth_correspondences(a, behind, pixels)
    assert not visible.any() and np.isfinite(places).all()
    _, visible = depth_correspondences(a, a, pixels)
    assert visible.tolist() == [True, False]
    assert all(a.depth[int(y), int(x)] > 0 for x, y in posed_pair(a, a, 200, rng()).pixels_a)


def test_distorted_cameras_find_their_own_pixels():
    camera = Camera(160, 120, 100.0, 101.0, 79.0, 61.0, RADIAL_TANGENTIAL, (-0.2, 0.04, 1e-3, -1e-3))
    gallery = Gallery([wall(2.0)])
    pair = posed_pair(view(gallery, camera=camera), view(gallery, camera=camera), 200, rng())
    np.testing.assert_allclose(pair.pixels_b, pair.pixels_a, atol=1e-4)
    undistorted = posed_pair(view(gallery, camera=camera), view(gallery), 200, rng())
    assert np.median(disagreement(undistorted)) < 3


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(depth=np.ones((120, 159), np.float32)), "not of the camera's"),
        (dict(depth=np.full((120, 160), -1, np.float32)), "negative"),
        (dict(depth=np.full((120, 160), np.nan, np.float32)), "not finite"),
        (dict(image=np.zeros((120, 160), np.uint8)), "not of the camera's"),
        (dict(T_map_cam=np.full((4, 4), np.nan)), "pose"),
    ],
)
def test_unusable_views_are_refused(changes, message):
    right = dict(
        image=np.zeros((120, 160, 3), np.uint8),
        depth=np.ones((120, 160), np.float32),
        camera=CAMERA,
        T_map_cam=np.eye(4),
    )
    with pytest.raises(TrainingError, match=message):
        PosedView(**{**right, **changes})


# pairs and the choice of points


def test_inconsistent_pairs_are_refused():
    image, point = np.zeros((40, 50, 3), np.uint8), np.array([[3.0, 4.0]])
    right = dict(image_a=image, image_b=image, pixels_a=point, pixels_b=point, visible=np.array([True]), source="s")
    TrainingPair(**right)
    TrainingPair(**{**right, "pixels_b": point + 60, "visible": np.array([False])})
    for changes, message in (
        (dict(image_a=image[:, :, 0]), "image_a is uint8"),
        (dict(image_b=image.astype(float)), "image_b is float64"),
        (dict(pixels_b=np.zeros((2, 2))), "shapes"),
        (dict(pixels_a=point * np.nan), "not finite"),
        (dict(pixels_b=point + 60), "outside"),
        (dict(pixels_a=point - 60), "outside"),
    ):
        with pytest.raises(TrainingError, match=f"pair s: .*{message}"):
            TrainingPair(**{**right, **changes})


def test_half_of_the_chosen_pixels_are_corners_and_all_are_usable():
    image = np.full((96, 128, 3), 100, np.uint8)
    image[20:, 30:] = 200  # one corner
    usable = np.zeros((96, 128), np.bool_)
    usable[:48] = True
    chosen = choose_pixels(image, 100, rng(), usable)
    assert len(np.unique(chosen, axis=0)) == len(chosen) <= 100
    assert usable[chosen[:, 1], chosen[:, 0]].all()
    assert (np.abs(chosen - (30, 20)).max(1) <= 2).any()
    assert len(choose_pixels(image, 100, rng(), np.zeros_like(usable))) == 0


# sources


@pytest.fixture(scope="module")
def gallery_pairs() -> GalleryPairs:
    return GalleryPairs([CAMERA], points=200, pairs_per_room=3, rooms_at_once=2, pixels_per_metre=60)


def test_views_of_a_room_overlap_and_agree(gallery_pairs):
    for index in (0, 1):
        pair = gallery_pairs.pair(0, index)
        assert pair.visible.mean() >= 0.2 and len(pair.pixels_a) > 100
        assert np.median(disagreement(pair)) < 6


def test_a_few_views_of_a_place_make_all_the_pairs_that_they_can():
    """Three views make three pairs; then the next place comes. Pairs that are made in another order are the same."""
    source = GalleryPairs([CAMERA], 50, 6, 1, views_per_place=3, pixels_per_metre=40)
    pairs = [source.pair(1, index) for index in range(6)]
    images = [{pair.image_a.tobytes(), pair.image_b.tobytes()} for pair in pairs]
    assert len(set.union(*images[:3])) == len(set.union(*images[3:])) == 3
    assert len({frozenset(pair) for pair in images}) == 6 and not set.union(*images[:3]) & set.union(*images[3:])
    again = GalleryPairs([CAMERA], 50, 6, 1, views_per_place=3, pixels_per_metre=40)
    assert all(same(again.pair(1, index), pairs[index]) for index in (4, 1, 5, 0))


def test_rooms_show_the_pictures_that_are_given():
    red = np.zeros((60, 80, 3), np.uint8)
    red[:, :, 2] = 250
    source = GalleryPairs([CAMERA], 50, rooms_at_once=1, pixels_per_metre=40, pictures=[red])
    images = [source.pair(0, index).image_a.astype(int) for index in range(4)]
    assert max(((image[:, :, 2] > 100) & (image[:, :, 1] < 40)).mean() for image in images) > 0.05


def test_rooms_take_turns_and_are_replaced(gallery_pairs):
    assert [gallery_pairs.room_number(i) for i in range(10)] == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3]


def test_views_without_overlap_are_an_error():
    far = GalleryPairs(
        [CAMERA], 50, rooms_at_once=1, max_distance=0.0, max_rotation=0.0, min_overlap=1.0, pixels_per_metre=40
    )
    assert far.pair(0, 0).visible.all()
    apart = GalleryPairs([CAMERA], 50, rooms_at_once=1, max_distance=60.0, min_overlap=0.99, pixels_per_metre=40)
    with pytest.raises(TrainingError, match=r"room 0 of seed 0: at 25 places no 4 views overlap by 99% \(best"):
        apart.pair(0, 0)


def same(a: TrainingPair, b: TrainingPair) -> bool:
    names = ("image_a", "image_b", "pixels_a", "pixels_b", "visible")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_pairs_depend_on_seed_and_number_alone(gallery_pairs):
    sources = [PhotographPairs(PHOTOGRAPHS, (160, 120), 100), gallery_pairs]
    pairs = TrainingPairs(sources, seed=5)
    made = list(islice(pairs, 4))
    assert {pair.source.split()[0] for pair in made} == {"photograph", "room"}
    assert all(same(pair, TrainingPairs(sources, seed=5).pair(i)) for i, pair in reversed(list(enumerate(made))))
    assert same(next(iter(TrainingPairs(sources, seed=5, first=3))), made[3])
    assert not same(TrainingPairs(sources, seed=6).pair(0), made[0])


def test_workers_make_the_same_pairs_in_the_same_order():
    pairs = TrainingPairs([PhotographPairs(PHOTOGRAPHS, (64, 48), 20)])
    loader = torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=2, collate_fn=list_of_arrays)
    for found, expected in zip(islice(iter(loader), 5), pairs):
        assert np.array_equal(found[0], expected.image_a) and np.array_equal(found[1], expected.pixels_b)


def list_of_arrays(pair: TrainingPair) -> list[np.ndarray]:
    return [pair.image_a, pair.pixels_b]


def test_light_and_sensor_move_no_point():
    source = PhotographPairs(PHOTOGRAPHS, (160, 120), 100)
    plain = TrainingPairs([source], augmentation=UNCHANGED).pair(1)
    changed = TrainingPairs([source], augmentation=Augmentation(rolling_shutter=0.0, occlusion=0.0)).pair(1)
    assert np.array_equal(plain.pixels_b, changed.pixels_b) and not np.array_equal(plain.image_a, changed.image_a)


def test_impossible_sources_are_refused():
    source = PhotographPairs(PHOTOGRAPHS)
    for arguments in (([],), ([source], [0.0]), ([source], [1.0, 2.0]), ([source], [math.nan])):
        with pytest.raises(TrainingError, match="sources of pairs"):
            TrainingPairs(*arguments)
    with pytest.raises(TrainingError, match="first=-1"):
        TrainingPairs([source], first=-1)
    with pytest.raises(TrainingError, match="0 cameras"):
        GalleryPairs([])
