# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The errors of a map's keyframes: their covariance against simulated maps, and their fit to simulated views."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from nre_ros.localization.confidence import load_model
from nre_ros.localization.evidence import NUMBERS
from nre_ros.localization.map_noise import MapNoise
from nre_ros.map_check.noise import fit_noise
from nre_ros.map_check.repair import moved_back, pose_errors
from nre_ros.map_check.view_result import ViewResult

MODEL = load_model("xfeat")
IDS = np.arange(101, 161)


def noise(**changes) -> MapNoise:
    values = dict(position=0.01, rotation=0.002, drift=0.5, length=12.0, power=1.0, ids=IDS, factors=np.ones(len(IDS)))
    return MapNoise(**{**values, **changes})


def errors(noise: MapNoise, count: int, rng: np.random.Generator) -> np.ndarray:
    """Errors [count, M, 6] of the keyframes of many maps, drawn by the Cholesky factor of their correlation."""
    factor = np.linalg.cholesky(
        noise.correlation(np.arange(len(noise.ids), dtype=float)) + 1e-12 * np.eye(len(noise.ids))
    )
    drawn = np.einsum("ab,nbi->nai", factor, rng.normal(size=(count, len(noise.ids), 6)))
    drawn = drawn - drawn.mean(1, keepdims=True)  # a motion of the whole map is no error in it
    return drawn * noise.factors[:, None] * np.repeat([noise.position, noise.rotation], 3)


def test_a_pose_errs_as_the_keyframes_that_it_follows():
    rng = np.random.default_rng(0)
    map_noise = noise(factors=np.linspace(0.5, 2, len(IDS)))
    influence = rng.normal(size=(3, 6, 6))
    used = [103, 107, 150]
    drawn = errors(map_noise, 40000, rng)[:, np.array(used) - 101]
    moved = np.einsum("kij,nkj->ni", influence, drawn)
    expected = np.cov(moved.T)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(map_noise.covariance(influence, used) / scale, expected / scale, atol=0.03)


def test_keyframes_that_the_check_did_not_see_err_by_themselves():
    half = np.repeat(np.eye(6)[None] / 2, 2, 0)
    drifting = noise(drift=1.0, length=4.0)
    known, far = (drifting.covariance(half, ids)[0, 0] for ids in ([130, 131], [110, 150]))
    unknown = drifting.covariance(half, [7, 8])[0, 0]
    assert known > 1.5 * far  # neighbours err alike
    mean = float(drifting.correlation(np.arange(60.0)).mean())
    np.testing.assert_allclose(unknown, 0.01**2 * (0.5 + mean))
    assert not MapNoise().covariance(half, [1, 2]).any()


@pytest.mark.parametrize("change", [{}, {"power": 2.0}, {"ids": np.zeros(0, int), "factors": np.zeros(0)}])
def test_the_errors_survive_the_map_file(change):
    before = noise(**change)
    after = MapNoise.from_json(json.loads(json.dumps(before.to_json())))
    assert after.to_json() == before.to_json()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"position": -1.0}, "position"),
        ({"rotation": float("nan")}, "rotation"),
        ({"drift": 2.0}, "drift"),
        ({"length": 0.0}, "length"),
        ({"scale": True}, "scale"),
        ({"scale": "1"}, "scale"),
        ({"ids": [1, 1], "factors": [1.0, 1.0]}, "twice"),
        ({"ids": [1], "factors": [1.0, 1.0]}, "factor"),
        ({"ids": [1], "factors": [0.0]}, "factor"),
        ({"ids": [1], "factors": [1e-300]}, "factor"),
        ({"ids": ["x"], "factors": [1.0]}, "no keyframes"),
        ({"ids": None, "factors": None}, "no keyframes|factor"),
        ({"ids": [10**30], "factors": [1.0]}, "no keyframes"),
    ],
)
def test_damaged_entries_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        MapNoise.from_json({**noise().to_json(), **change})
    with pytest.raises(ValueError, match="no object"):
        MapNoise.from_json([])


def views(truth: MapNoise, rng: np.random.Generator, inflation: float = 1.0) -> list[ViewResult]:
    """Left-out views of a simulated map: three neighbours each, or three keyframes of another time."""
    xi = errors(truth, 1, rng)[0]
    numbers = np.zeros(len(NUMBERS))
    numbers[NUMBERS.index("inlier_ratio")] = 0.7
    image = np.diag(np.r_[np.full(3, 1e-3), np.full(3, 3e-4)]) ** 2
    explained = MODEL.covariance(image, numbers, 2.0)
    found = []
    for i in range(len(IDS)):
        far = i % 3 == 1
        others = (
            (i + rng.choice(np.arange(20, 40), 3, replace=False)) % len(IDS) if far else (i + np.array([1, 2, 59])) % 60
        )
        weights = rng.dirichlet([2, 2, 2])
        influence = weights[:, None, None] * np.eye(6)
        error = inflation * rng.multivariate_normal(np.zeros(6), explained)
        error = error + np.einsum("kij,kj->i", influence, xi[others]) - xi[i]
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(error[3:]).as_matrix()
        T[:3, 3] = error[:3]
        found.append(
            ViewResult(
                str(i),
                int(IDS[i]),
                np.eye(4),
                tuple(int(IDS[k]) for k in others),
                "",
                T,
                image,
                influence,
                image,
                numbers,
                2.0,
            )
        )
    return found


@pytest.mark.parametrize(
    ("truth", "drift"),
    [
        (noise(drift=0.0), (0.0, 0.4)),
        (noise(drift=1.0, power=2.0, length=17.0), (0.8, 1.0)),
        (noise(position=0.0, rotation=0.0), None),
    ],
)
def test_the_fit_finds_the_errors_of_simulated_maps(truth, drift):
    fits = [fit_noise(views(truth, np.random.default_rng(seed)), IDS, MODEL) for seed in range(3)]
    position, rotation = (np.median([getattr(fit, name) for fit in fits]) for name in ("position", "rotation"))
    if drift is None:  # the image explains everything: at most a third of it is taken for errors of the map
        assert position < 5e-4 and rotation < 2e-4 and 0.8 < np.median([fit.scale for fit in fits]) < 1.25
        return
    assert 0.6 < position / truth.position < 1.5 and 0.6 < rotation / truth.rotation < 1.5
    assert drift[0] <= np.median([fit.drift for fit in fits]) <= drift[1]


def test_the_fitted_ellipsoids_hold_the_errors_of_queries():
    """Queries of simulated maps, whose absolute errors the fit has never seen."""
    inside, rng = [], np.random.default_rng(9)
    image = np.diag(np.r_[np.full(3, 1e-3), np.full(3, 3e-4)]) ** 2
    for seed in range(4):
        truth = noise(drift=0.0)
        fitted = fit_noise(views(truth, np.random.default_rng(seed)), IDS, MODEL)
        xi = errors(truth, 1, np.random.default_rng(seed))[0]  # those that the views had: the same draws
        for _ in range(100):
            used = rng.choice(60, 3, replace=False)
            influence = rng.dirichlet([2, 2, 2])[:, None, None] * np.eye(6)
            numbers = np.zeros(len(NUMBERS))
            numbers[NUMBERS.index("inlier_ratio")] = 0.7
            explained = MODEL.covariance(image, numbers, 2.0)
            error = rng.multivariate_normal(np.zeros(6), explained) + np.einsum("kij,kj->i", influence, xi[used])
            total = fitted.scale**2 * explained + fitted.covariance(influence, [int(IDS[k]) for k in used])
            inside.append(error @ np.linalg.solve(total, error) <= chi2.ppf(0.9, 6))
    assert 0.8 < np.mean(inside) < 0.98


def test_few_views_change_the_general_fit_little():
    truth = noise(drift=0.0)
    many = views(truth, np.random.default_rng(0))
    few, all_of_them = (fit_noise(part, IDS, MODEL) for part in (many[:2], many))
    assert few.position < 0.7 * all_of_them.position
    nothing = fit_noise([], IDS, MODEL)
    assert nothing.position == nothing.rotation == 0 and nothing.scale == 1


def test_an_area_with_larger_errors_gets_larger_factors():
    truth = noise(drift=0.0, factors=np.where(np.arange(len(IDS)) < 15, 3.0, 0.7))
    factors = np.mean(
        [fit_noise(views(truth, np.random.default_rng(seed)), IDS, MODEL).factors for seed in range(3)], 0
    )
    assert np.median(factors[2:13]) > 1.15 * np.median(factors[20:55])


def test_the_added_covariance_is_symmetric_and_never_negative():
    rng = np.random.default_rng(5)
    for _ in range(300):
        count = int(rng.integers(1, 20))
        ids = rng.permutation(1000)[:count]
        factors = np.exp(rng.normal(0, 2, count)).clip(1e-3, 1e3)
        sizes, drift, power = rng.uniform(0, 0.1, 2), rng.uniform(), rng.uniform(1, 2)
        model = MapNoise(*sizes, drift, rng.uniform(0.01, 50), power, ids=ids, factors=factors)
        keyframes = rng.permutation([*ids, 2000, 2001])[: rng.integers(1, 7)]  # some that the check did not know
        added = model.covariance(rng.normal(size=(len(keyframes), 6, 6)), keyframes.tolist())
        assert (added == added.T).all()
        assert np.linalg.eigvalsh(added)[0] >= -1e-12 * max(np.trace(added), 1e-12)


@pytest.mark.parametrize("truth", [noise(drift=0.0), noise(drift=1.0, power=2.0, length=17.0)])
def test_a_repair_estimates_the_errors_of_the_keyframes(truth):
    """Simulated maps: with the keyframes moved back by the estimate, less of their errors is left."""
    before, left = [], []
    for seed in range(3):
        seen = views(truth, np.random.default_rng(seed))
        xi = errors(truth, 1, np.random.default_rng(seed))[0]  # those that the views had: the same draws
        found = pose_errors(seen, fit_noise(seen, IDS, MODEL), MODEL)
        before.append(np.square(xi[:, :3]).sum(1).mean())
        left.append(np.square((xi - found)[:, :3]).sum(1).mean())
        np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    assert np.mean(left) < (0.15 if truth.drift else 0.6) * np.mean(before)


def test_a_pose_that_is_moved_back_is_the_one_before_its_error():
    rng = np.random.default_rng(3)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    T[:3, 3] = rng.normal(size=3)
    xi = 0.1 * rng.normal(size=6)
    wrong = T.copy()
    wrong[:3, :3] = Rotation.from_rotvec(xi[3:]).as_matrix() @ T[:3, :3]
    wrong[:3, 3] += xi[:3]
    np.testing.assert_allclose(moved_back(wrong, xi), T, atol=1e-12)
