# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Calls of operators with good and bad arguments, and the comparison of what two implementations make of them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from operator_samples import Arguments, Rng

from nre_ros.features import FeatureGrid
from nre_ros.nre import native
from nre_ros.nre.gnc import LocalMaps, window_moments
from nre_ros.nre.operators import OPERATORS


class Refusal(NamedTuple):
    """An error that a call raised."""

    kind: type[Exception]
    text: str


Results = tuple[torch.Tensor, ...]


def copied(arguments: Arguments) -> Arguments:
    """Arguments with tensors of their own: an implementation may write into one."""
    return {key: _copy(value) for key, value in arguments.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.preserve_format).requires_grad_(value.requires_grad)
    return value


def call(function: Callable[..., Any], arguments: Arguments) -> Results | Refusal:
    """What a function returns, with the losses that it has written; or its error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch resizes results of a wrong shape with a warning
            found = function(**arguments)
    except Exception as error:
        return Refusal(type(error), str(error))
    assert found is not NotImplemented
    results = found if isinstance(found, tuple) else (found,)
    if function is OPERATORS["loss_maps"] or function is OPERATORS["loss_maps"].reference:
        results = (*results, arguments["loss"])
    return tuple(result.detach() for result in results)


def kernel_results(name: str, arguments: Arguments) -> Results:
    """What a kernel returns for arguments that it must take."""
    found = native.KERNELS[name](**arguments)
    assert found is not NotImplemented, f"{name} declines"
    results = found if isinstance(found, tuple) else (found,)
    return (*results, arguments["loss"]) if name == "loss_maps" else results


def reference_results(name: str, arguments: Arguments) -> Results:
    """What the reference in torch returns."""
    found = call(OPERATORS[name].reference, copied(arguments))
    assert not isinstance(found, Refusal), found
    return found


@contextlib.contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """Uses one of the instruction sets that the processor has."""
    extension: Any = native._extension
    before = extension.instruction_set()
    extension.use_instruction_set(name)
    try:
        yield
    finally:
        extension.use_instruction_set(before)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Uses another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- comparison -------------------------------------------------------------------------------------------

METRES, DEGREES = 1e-4, 0.01
"""Refined poses may differ by so much."""


def close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-4, absolute: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=relative, atol=absolute, equal_nan=True)


def assert_agree(name: str, arguments: Arguments, found: Results, expected: Results) -> None:
    """Fails where the results of an operator differ by more than rounding may do."""
    assert [result.shape for result in found] == [result.shape for result in expected]
    assert [result.dtype for result in found] == [result.dtype for result in expected]
    _COMPARISONS.get(name, _compare_numbers)(arguments, found, expected)


def _compare_numbers(arguments: Arguments, found: Results, expected: Results) -> None:
    for ours, theirs in zip(found, expected):
        close(ours, theirs)


def _compare_projections(arguments: Arguments, found: Results, expected: Results) -> None:
    assert torch.equal(found[1], expected[1])
    close(found[0], expected[0], 1e-9, 1e-6)


def _compare_triplets(arguments: Arguments, found: Results, expected: Results) -> None:
    assert torch.equal(found[0], expected[0])


def _compare_candidates(arguments: Arguments, found: Results, expected: Results) -> None:
    """A double root is one candidate or none by the last digit; every candidate must fulfil its equations."""
    rays, points = arguments["rays"], arguments["points"]
    sides = torch.stack([(points[:, i] - points[:, j]).norm(dim=-1) for i, j in ((0, 1), (0, 2), (1, 2))], -1)
    usual = ((rays.norm(dim=-1) - 1).abs() < 1e-6).all(-1) & (sides.amin(-1) > 0.02 * sides.amax(-1))
    for T, valid in (found, expected):
        seen = points[:, None] @ T[..., :3, :3].mT + T[..., None, :3, 3]
        off = (torch.linalg.cross(seen, rays[:, None].expand_as(seen)).norm(dim=-1) / seen.norm(dim=-1)).amax(-1)
        assert bool((off[usual][valid[usual]] < 1e-3).all())
        assert torch.equal(T[~valid], torch.eye(4, dtype=T.dtype).expand_as(T[~valid]))
    both = found[1] & expected[1]
    differences = (found[0] - expected[0]).abs().amax((-1, -2))[both]
    assert bool((found[1] ^ expected[1]).sum() + (differences > 1e-4).sum() <= 0.01 * both.sum() + 1)


def _compare_maps(arguments: Arguments, found: Results, expected: Results) -> None:
    entropy, lowest, best, rate, loss = found
    absolute = max(1e-5, 5e-7 / abs(arguments["temperature"]))  # a few last digits of the largest dot product
    close(entropy, expected[0], absolute=10 * absolute)
    close(lowest, expected[1], absolute=absolute)
    close(loss, expected[4], absolute=absolute)
    rows = torch.arange(len(best))
    assert torch.equal(
        loss.flatten(1)[rows, best].nan_to_num(), lowest.nan_to_num()
    )  # the lowest of two equals may be either
    stride, limit = arguments["rate_stride"], arguments["match_limit"]
    counted = expected[4][:, ::stride, ::stride]
    shift = 1e-4 * abs(limit) + absolute
    surely, perhaps = ((counted < edge).float().mean((1, 2)) for edge in (limit - shift, limit + shift))
    assert bool(((rate >= surely - 1e-6) & (rate <= perhaps + 1e-6)).all())


def _compare_moments(arguments: Arguments, found: Results, expected: Results) -> None:
    sigma = max(arguments["sigma"], 1.0)
    scale = float(arguments["maps"].values.abs().amax()) if arguments["maps"].values.numel() else 0.0
    for j in range(3):
        for i in range(3):  # the tails of the Gaussian beyond five sigma, where the kernel stops
            close(found[0][..., j, i], expected[0][..., j, i], absolute=(1e-6 + 3e-5 * scale) * sigma ** (i + j))
    close(found[1], expected[1], 1e-9, 1e-6)
    close(found[2], expected[2], 1e-9, 1e-6)


def _compare_poses(arguments: Arguments, found: Results, expected: Results) -> None:
    """Poses are compared where points and maps determine them; else only how low the cost is."""
    (T, cost, _), (T_expected, cost_expected, _) = found, expected
    assert bool((cost <= cost_expected + 1e-4 * cost_expected.abs() + 1e-5).all())
    assert bool(torch.isfinite(T).all())
    if "maps" in arguments and arguments["sigmas"]:
        moments, _, _ = window_moments.reference(
            T, arguments["points"], arguments["camera"], arguments["maps"], arguments["sigmas"][-1]
        )
        close(cost, -moments[..., 0, 0].sum(-1, dtype=torch.float64))
    cells = arguments["loss"].shape[1:] if "loss" in arguments else arguments["maps"].values.shape[2:]
    if len(arguments["points"]) >= 40 and min(cells) >= 7 and arguments["sigmas"]:
        close(cost, cost_expected)
        centres = [-(poses[:, :3, :3].mT @ poses[:, :3, 3:])[..., 0] for poses in (T, T_expected)]
        assert bool(((centres[0] - centres[1]).norm(dim=-1) < METRES).all())
        trace = (T[:, :3, :3] * T_expected[:, :3, :3]).sum((-1, -2))
        assert bool((torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1))) < DEGREES).all())


_COMPARISONS: dict[str, Callable[[Arguments, Results, Results], None]] = {
    "solve_p3p": _compare_candidates,
    "draw_weighted_triplets": _compare_triplets,
    "project_points": _compare_projections,
    "loss_maps": _compare_maps,
    "window_moments": _compare_moments,
    "refine_in_windows": _compare_poses,
    "refine_in_maps": _compare_poses,
}


def assert_same_outcome(name: str, arguments: Arguments, *changes: str) -> Results | Refusal:
    """Calls the operator and its reference: both must agree, or raise the same error.

    Args:
        name: The operator.
        arguments: Its arguments.
        *changes: What was changed of good arguments, keys of ``TENSOR_CHANGES`` or ``OTHER_CHANGES``.
    """
    found = call(OPERATORS[name], copied(arguments))
    expected = call(OPERATORS[name].reference, copied(arguments))
    if isinstance(expected, Refusal) or isinstance(found, Refusal):
        assert isinstance(found, Refusal) and isinstance(expected, Refusal)
        # which of several wrong indices torch names depends on its threads
        assert found.kind == expected.kind and re.sub(r"\d+", "0", found.text) == re.sub(r"\d+", "0", expected.text)
    elif not set(_UNSTABLE).isdisjoint(changes):
        assert [result.shape for result in found] == [result.shape for result in expected]
    elif not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, expected)):
        assert_agree(name, arguments, found, expected)
    return found


# --- bad arguments ----------------------------------------------------------------------------------------


def _with_number(number: float) -> Callable[[torch.Tensor, Rng], Any]:
    """Puts a number into one place of a tensor."""

    def change(tensor: torch.Tensor, rng: Rng) -> Any:
        if not tensor.numel():
            return tensor
        changed = tensor.clone(memory_format=torch.contiguous_format)
        whole = changed.view(-1)
        value = (
            number if changed.is_floating_point() else int(np.clip(number, -(2**62), 2**62)) if number == number else -1
        )
        whole[int(rng.integers(len(whole)))] = value
        return changed

    return change


def _with_gaps(tensor: torch.Tensor, rng: Rng) -> torch.Tensor:
    """The same numbers, every second one of a larger memory."""
    wide = torch.stack([tensor, tensor], -1)
    return wide[..., 0]


TENSOR_CHANGES: dict[str, Callable[[torch.Tensor, Rng], Any]] = {
    "with gaps": _with_gaps,
    "in columns": lambda tensor, rng: tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor,
    "a row less": lambda tensor, rng: tensor[:-1],
    "a column less": lambda tensor, rng: tensor[..., :-1],
    "no rows": lambda tensor, rng: tensor[:0],
    "an axis more": lambda tensor, rng: tensor[None],
    "an axis less": lambda tensor, rng: tensor[0] if len(tensor) else tensor,
    "one number": lambda tensor, rng: tensor.sum(),
    "other precision": lambda tensor, rng: tensor.to({torch.float32: torch.float64}.get(tensor.dtype, torch.float32)),
    "whole numbers": lambda tensor, rng: tensor.to(torch.int32),
    "with gradient": lambda tensor, rng: tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor,
    "list": lambda tensor, rng: tensor.tolist(),
    "None": lambda tensor, rng: None,
    "NaN": _with_number(float("nan")),
    "inf": _with_number(float("inf")),
    "-inf": _with_number(float("-inf")),
    "negative": _with_number(-1.0),
    "large": _with_number(1e9),
    "huge": _with_number(1e30),
}
"""Name -> what becomes of a tensor."""
_UNSTABLE = ("large", "huge", "negative")
"""Changes after which a last digit may decide about the result: only its shape is compared."""
OTHER_CHANGES: dict[str, Callable[[Any], Any]] = {
    "zero": lambda value: 0,
    "minus one": lambda value: -1,
    "half": lambda value: 0.5,
    "tiny": lambda value: 1e-300,
    "huge": lambda value: 1e300,
    "NaN": lambda value: float("nan"),
    "inf": lambda value: float("inf"),
    "None": lambda value: None,
    "text": lambda value: "text",
    "empty": lambda value: (),
    "longer": lambda value: (*value, 1) if isinstance(value, tuple) else value,
    "without stride": lambda value: FeatureGrid(0.0, 0.0) if isinstance(value, FeatureGrid) else value,
    "NaN within": lambda value: (float("nan"),) * len(value) if isinstance(value, tuple) else value,
}
"""Name -> what becomes of an argument that is no tensor."""


def changed(arguments: Arguments, key: str, change: str, rng: Rng) -> Arguments:
    """Arguments of which one is changed; ``maps.values`` and ``maps.origin`` are the tensors of windows."""
    name, _, part = key.partition(".")
    value = arguments[name]
    if part:
        tensors = dataclasses.replace(value, **{part: TENSOR_CHANGES[change](getattr(value, part), rng)})
        return {**arguments, name: tensors}
    if isinstance(value, torch.Tensor):
        return {**arguments, name: TENSOR_CHANGES[change](value, rng)}
    return {**arguments, name: OTHER_CHANGES[change](value)}


def changeable(arguments: Arguments) -> list[tuple[str, str]]:
    """All pairs of an argument and a change of it."""
    pairs = []
    for key, value in arguments.items():
        if isinstance(value, LocalMaps):
            pairs += [(f"{key}.{part}", change) for part in ("values", "origin") for change in TENSOR_CHANGES]
        elif isinstance(value, torch.Tensor):
            pairs += [(key, change) for change in TENSOR_CHANGES]
        else:
            pairs += [(key, change) for change in OTHER_CHANGES]
    return pairs
