# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The operators' CPU kernels: they agree with the references in torch, refuse what these refuse, and never crash."""

import functools
import os
import random
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from operator_calls import (
    Refusal,
    assert_agree,
    assert_same_outcome,
    call,
    changeable,
    changed,
    copied,
    instruction_set,
    kernel_results,
    reference_results,
    threads,
)
from operator_samples import ARGUMENTS, CAMERAS
from synthetic import CAMERA, QUERIES, small_room

from nre_ros.geometry import pose_error
from nre_ros.keyframes.types import stack_keyframes
from nre_ros.nre import NREEstimator, native
from nre_ros.nre.operators import OPERATORS, implementation, reference_only

if not native.available():
    pytest.skip(f"needs the CPU kernels: {native.why_absent()}", allow_module_level=True)

SETS = native.instruction_sets()
THREADS = (1, 2, 5)


def sizes(name: str, **options: Any) -> Any:
    """One case: the operator and what its arguments are made with."""
    described = ", ".join(f"{key}={value}" for key, value in options.items())
    return pytest.param(name, options, id=f"{name}({described})")


# The kernels work in vectors of 4, 8 or 16 numbers, in panels of 8, 24 or 48 cells and blocks of ten panels, in parts of 512
# cells, in blocks of 64 points and in rounds of 64 rows of a window.
CASES = [
    *(sizes("solve_p3p", count=count) for count in (0, 1, 15, 16, 17, 200)),
    sizes("solve_p3p", count=60, camera="fisheye"),
    *(sizes("draw_weighted_triplets", points=points, count=30) for points in (3, 4, 500)),
    sizes("draw_weighted_triplets", count=0),
    *(sizes("project_points", camera=camera) for camera in CAMERAS),
    sizes("project_points", points=0),
    sizes("project_points", poses=0),
    sizes("project_points", points=3000, poses=3),
    sizes("loss_maps"),
    sizes("loss_maps", counts=(1,), channels=1, height=1, width=1, backgrounds=1),
    sizes("loss_maps", counts=(3,), channels=1, height=1, width=1, backgrounds=0),
    sizes("loss_maps", counts=(0,)),
    sizes("loss_maps", counts=(0, 0, 5)),
    sizes("loss_maps", counts=(5, 4), height=9, width=1),
    sizes("loss_maps", counts=(5, 4), height=1, width=9),
    sizes("loss_maps", counts=(5, 4), backgrounds=0),
    sizes("loss_maps", temperature=1e-3),
    sizes("loss_maps", temperature=5.0),
    *(
        sizes(
            "loss_maps", counts=(side, side + 1), channels=side, height=3, width=side, backgrounds=side, rate_stride=1
        )
        for side in (3, 7, 8, 9, 15, 16, 17)
    ),
    *(sizes("loss_maps", counts=(9,), height=1, width=width, rate_stride=5) for width in (23, 24, 25, 47, 48, 49, 79)),
    *(sizes("loss_maps", counts=(9,), height=2, width=width, rate_stride=1000) for width in (240, 241, 255, 256, 257)),
    sizes("loss_maps", counts=(100, 150), channels=64, height=60, width=80, backgrounds=128),
    sizes("peak_heights"),
    sizes("peak_heights", points=0),
    sizes("peak_heights", points=1, channels=1, height=1, width=1),
    sizes("peak_heights", points=17, height=2, width=257),
    sizes("peak_heights", points=100, channels=64, height=60, width=80),
    *(sizes("mean_losses", camera=camera) for camera in CAMERAS),
    *(sizes("mean_losses", points=points) for points in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33)),
    *(sizes("mean_losses", height=height, width=width) for height, width in ((1, 1), (1, 9), (9, 1), (2, 2), (2, 9))),
    sizes("mean_losses", poses=0),
    sizes("mean_losses", points=500, poses=64, height=60, width=80),
    *(sizes("refine_in_windows", camera=camera) for camera in CAMERAS),
    *(sizes("refine_in_windows", points=points) for points in (3, 4, 63, 64, 65, 129)),
    *(sizes("refine_in_windows", side=side) for side in (7, 15, 16, 17, 31, 33)),
    sizes("refine_in_windows", side=65, sigmas=(12.0, 4.0, 1.0)),
    sizes("refine_in_windows", poses=4, shared=False),
    sizes("refine_in_windows", poses=4, sigmas=()),
    *(sizes("refine_in_maps", camera=camera) for camera in CAMERAS),
    *(sizes("refine_in_maps", points=points) for points in (3, 4, 64, 65)),
    *(sizes("refine_in_maps", height=height, width=width) for height, width in ((15, 20), (60, 80), (3, 40), (40, 3))),
    sizes("refine_in_maps", sigmas=(12.0, 4.0, 1.0)),
    sizes("refine_in_maps", poses=1, sigmas=()),
    *(sizes("window_moments", camera=camera) for camera in CAMERAS),
    *(sizes("window_moments", side=side) for side in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 63, 64, 65)),
    *(sizes("window_moments", side=17, sigma=sigma) for sigma in (0.1, 0.5, 3.0, 40.0)),
    sizes("window_moments", points=0),
    sizes("window_moments", poses=0),
    sizes("window_moments", points=130, poses=5, shared=False),
    *(sizes("window_values", channels=channels) for channels in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64)),
    *(sizes("window_values", half=half, enlarge=enlarge) for half, enlarge in ((1, 1), (1, 2), (3, 1), (6, 3), (8, 1))),
    sizes("window_values", half=1, height=3, width=3),
    sizes("window_values", points=0),
]
EMPTY = [
    sizes("loss_maps", counts=()),
    sizes("loss_maps", counts=(0, 3), backgrounds=0),
    sizes("mean_losses", points=0),
    sizes("refine_in_windows", poses=0),
    sizes("refine_in_windows", points=0),
    sizes("refine_in_maps", poses=0),
    sizes("refine_in_maps", points=0),
]
"""These go to the references."""


def test_every_operator_has_a_kernel_and_is_tested():
    tested = {case.values[0] for case in CASES}
    assert set(OPERATORS) == set(native.KERNELS) == set(ARGUMENTS) == tested
    assert implementation() == f"native ({SETS[0]})" and SETS[-1] == "baseline"


def make(name: str, options: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    return ARGUMENTS[name](np.random.default_rng(seed), **options)


@pytest.mark.parametrize("name, options", CASES)
def test_a_kernel_agrees_with_its_reference_on_each_instruction_set_and_is_the_same_with_any_number_of_threads(
    name, options
):
    arguments = make(name, options)
    expected = reference_results(name, arguments)
    for chosen in SETS:
        with instruction_set(chosen):
            first = None
            for count in THREADS:
                given = copied(arguments)
                with threads(count):
                    found = kernel_results(name, given)
                if first is None:
                    assert_agree(name, arguments, found, expected)
                first = first or [result.clone() for result in found]
                assert all(torch.equal(a, b) for a, b in zip(found, first)), (chosen, count)


@pytest.mark.parametrize("name, options", EMPTY)
def test_what_a_kernel_has_nothing_to_do_for_goes_to_the_reference(name, options):
    assert_same_outcome(name, make(name, options))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_one_changed_argument_has_the_outcome_of_the_reference(name):
    """Shapes, types, indices, NaN and huge numbers: the operator refuses what the reference refuses, in the same words."""
    refused = 0
    for key, change in changeable(make(name, {})):
        arguments = changed(make(name, {}), key, change, np.random.default_rng(1))
        try:
            refused += isinstance(assert_same_outcome(name, arguments, change), Refusal)
        except AssertionError as error:
            raise AssertionError(f"{key}: {change}: {error}") from error
    assert refused >= 10


@pytest.mark.parametrize("name", ARGUMENTS)
def test_tensors_with_gaps_are_taken(name):
    plain = make(name, {})
    expected = kernel_results(name, copied(plain))
    for key in (key for key, value in plain.items() if isinstance(value, torch.Tensor) and key != "loss"):
        for change in ("with gaps", "in columns"):
            found = kernel_results(name, copied(changed(plain, key, change, np.random.default_rng(0))))
            assert all(torch.equal(a, b) for a, b in zip(found, expected)), (key, change)


def test_the_extension_itself_refuses_arrays_that_do_not_fit():
    """Behind the checks in Python: no array is read or written beyond its end."""
    extension = native._extension
    numbers = np.zeros((2, 3, 3))
    poses, valid = np.zeros((2, 4, 4, 4)), np.zeros((2, 4), np.uint8)
    fitting = [numbers, numbers, poses, valid, 1]
    extension.solve_p3p(*fitting)
    frozen = poses.copy()
    frozen.flags.writeable = False
    swapped = [
        numbers.astype(">f8"),
        numbers[..., ::-1],
        numbers.astype(np.float32),
        numbers[:1],
        numbers.tolist(),
        None,
    ]
    for index, wrong in [
        *((k, array) for k in (0, 1) for array in swapped),
        (2, frozen),
        (2, poses[:1]),
        (3, valid[:, :3]),
    ]:
        arguments = [wrong if k == index else value for k, value in enumerate(fitting)]
        with pytest.raises((ValueError, TypeError)):
            extension.solve_p3p(*arguments)
    with pytest.raises(TypeError):
        extension.solve_p3p()
    with pytest.raises(ValueError, match="no instruction set"):
        extension.use_instruction_set("mmx")


# --- a real estimate --------------------------------------------------------------------------------------


@functools.cache
def recorded_calls() -> list[tuple[str, dict[str, Any]]]:
    """The operators' calls of one localization, with copies of their arguments."""
    import inspect

    room = small_room()
    image, _ = room.view(*QUERIES[0])
    features, stack = room.backbone.extract(image), stack_keyframes(room.keyframes)
    calls: list[tuple[str, dict[str, Any]]] = []
    kernels = {name: operator._kernel for name, operator in OPERATORS.items()}

    def recorder(name: str):
        signature = inspect.signature(OPERATORS[name].reference)

        def record(*args: Any, **kwargs: Any) -> Any:
            with torch.inference_mode(False):
                calls.append((name, copied(signature.bind(*args, **kwargs).arguments)))
            return kernels[name](*args, **kwargs)

        return record

    try:
        for name, operator in OPERATORS.items():
            operator._kernel = recorder(name)
        NREEstimator(room.backbone).localize(features, stack, CAMERA)
    finally:
        for name, operator in OPERATORS.items():
            operator._kernel = kernels[name]
    return calls


def test_the_kernels_agree_with_the_references_in_a_localization():
    seen = set()
    for name, arguments in recorded_calls():
        assert_agree(name, arguments, kernel_results(name, copied(arguments)), reference_results(name, arguments))
        seen.add(name)
    assert seen >= set(OPERATORS) - {"peak_heights"}, "peak_heights belongs to the retrieval"


@pytest.mark.parametrize("seed", range(3))
def test_poses_of_kernels_and_references_are_the_same(seed):
    room = small_room()
    image, _ = room.view(*QUERIES[seed])
    features, stack = room.backbone.extract(image), stack_keyframes(room.keyframes)
    estimator = NREEstimator(room.backbone)
    ours = estimator.localize(features, stack, CAMERA, seed=seed)
    with reference_only():
        theirs = estimator.localize(features, stack, CAMERA, seed=seed)
    metres, radians = pose_error(*(np.linalg.inv(each.T_cam_map.numpy()) for each in (ours, theirs)))
    assert metres < 1e-4 and np.degrees(radians) < 0.01


# --- 10,000 random calls ----------------------------------------------------------------------------------

SLOW = ("refine_in_windows", "refine_in_maps")
"""Their references take tens of milliseconds."""
EXAMPLES = {name: 300 if name in SLOW else 1200 for name in ARGUMENTS}
SHARE = float(os.environ.get("NRE_FUZZ_SHARE", "1"))
"""Of the examples; the test with sanitizers takes fewer."""

small = st.integers(0, 5)
side = st.sampled_from((1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 25, 31, 33, 48, 49))
points = st.sampled_from((0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 40, 65))
camera = st.sampled_from(sorted(CAMERAS))
OPTIONS = {
    "solve_p3p": dict(count=points, camera=camera),
    "draw_weighted_triplets": dict(points=points, count=points),
    "project_points": dict(points=points, poses=small, camera=camera),
    "loss_maps": dict(
        counts=st.lists(points, max_size=3).map(tuple),
        channels=side,
        height=side,
        width=side,
        backgrounds=small,
        temperature=st.sampled_from((1e-3, 0.02, 0.1, 1.0)),
        rate_stride=st.integers(1, 7),
    ),
    "peak_heights": dict(
        points=points, channels=side, height=side, width=side, temperature=st.sampled_from((0.02, 0.1))
    ),
    "mean_losses": dict(points=points, poses=small, height=side, width=side, camera=camera),
    "refine_in_windows": dict(
        points=points,
        poses=st.integers(1, 2),
        side=side,
        camera=camera,
        shared=st.booleans(),
        sigmas=st.sampled_from(((1.0,), (3.0, 0.7))),
    ),
    "refine_in_maps": dict(
        points=points, poses=st.integers(1, 2), height=side, width=side, camera=camera, sigmas=st.just((1.5,))
    ),
    "window_moments": dict(
        points=points,
        poses=small,
        side=side,
        camera=camera,
        shared=st.booleans(),
        sigma=st.sampled_from((0.2, 1.0, 5.0)),
    ),
    "window_values": dict(
        points=points, channels=side, half=st.integers(1, 4), enlarge=st.integers(1, 3), height=st.integers(9, 20)
    ),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_random_calls_agree_with_the_reference_or_are_refused_like_there(name):
    """Sizes, contents and instruction sets at random; half of the calls have one or two arguments changed."""

    @hypothesis.settings(
        max_examples=max(1, int(EXAMPLES[name] * SHARE)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate,),
    )
    @hypothesis.given(st.fixed_dictionaries(OPTIONS[name]), st.integers(0, 2**32 - 1))
    def fuzz(options: dict[str, Any], seed: int) -> None:
        chance = random.Random(seed)
        arguments, changes = make(name, options, seed), []
        for _ in range(chance.choice((0, 0, 1, 2))):
            key, change = chance.choice(changeable(arguments))
            changes.append(change)
            try:
                arguments = changed(arguments, key, change, np.random.default_rng(seed))
            except (IndexError, RuntimeError, TypeError, ValueError):  # what was changed before has no such part
                hypothesis.reject()
        with instruction_set(chance.choice(SETS)), threads(chance.choice((1, 2))):
            hypothesis.note(f"{name}: {changes}")
            assert_same_outcome(name, arguments, *changes)

    fuzz()


def test_the_random_calls_are_ten_thousand():
    assert sum(EXAMPLES.values()) >= 10_000


def test_refusals_come_before_anything_is_written():
    arguments = make("loss_maps", {})
    arguments["loss"].fill_(7.0)
    arguments["background_cells"] = arguments["background_cells"][:-1]
    assert native.KERNELS["loss_maps"](**arguments) is NotImplemented
    assert bool((arguments["loss"] == 7.0).all())
    assert isinstance(call(OPERATORS["loss_maps"], arguments), Refusal)
