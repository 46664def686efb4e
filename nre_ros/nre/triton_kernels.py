# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Kernels for GPUs in Triton; ``nre_ros.nre.gpu`` calls them, and imports this file only where they can run.

No sum that decides is an atomic one: each is made by one program in a fixed order, so that the same input gives the same
numbers. A float argument of a kernel would be rounded to single precision: what must not be comes in float64 tensors.
"""

from __future__ import annotations

import triton
import triton.language as tl

# --- cameras --------------------------------------------------------------------------------------

PINHOLE = tl.constexpr(0)
RADIAL_TANGENTIAL = tl.constexpr(1)
EQUIDISTANT = tl.constexpr(2)


@triton.jit
def _atan(r):
    """Inverse tangent of r >= 0: a rough value, and corrections by the tangent's addition theorem."""
    large = r > 1.0
    q = tl.where(large, 1.0 / tl.where(large, r, 1.0), r)
    angle = q * (0.9724 - 0.1919 * q * q)
    for _ in tl.static_range(2):
        sine, cosine = tl.sin(angle), tl.cos(angle)
        tangent = (q * cosine - sine) / (cosine + q * sine)
        angle += tangent - tangent * tangent * tangent / 3.0
    return tl.where(large, 1.5707963267948966 - angle, angle)


@triton.jit
def _distort(x, y, camera, MODEL: tl.constexpr):
    """Distorted normalised coordinates, and their Jacobian (xx, xy, yx, yy)."""
    if MODEL == 0:
        one = x * 0.0 + 1.0
        zero = x * 0.0
        return x, y, one, zero, zero, one
    k1 = tl.load(camera + 4).to(x.dtype)
    k2 = tl.load(camera + 5).to(x.dtype)
    k3 = tl.load(camera + 6).to(x.dtype)
    k4 = tl.load(camera + 7).to(x.dtype)
    r2 = x * x + y * y
    if MODEL == 2:
        r = tl.sqrt(tl.maximum(r2, 1e-24))
        angle = _atan(r)
        a2 = angle * angle
        radius = angle * (1.0 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
        scale = radius / r
        slope = (1.0 + a2 * (3.0 * k1 + a2 * (5.0 * k2 + a2 * (7.0 * k3 + a2 * 9.0 * k4)))) / (1.0 + r * r)
        dx, dy = x / r, y / r
        return (
            x * scale,
            y * scale,
            scale + (slope - scale) * dx * dx,
            (slope - scale) * dx * dy,
            (slope - scale) * dx * dy,
            scale + (slope - scale) * dy * dy,
        )
    # OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6
    p1, p2, k3, k4 = k3, k4, tl.load(camera + 8).to(x.dtype), tl.load(camera + 9).to(x.dtype)
    k5 = tl.load(camera + 10).to(x.dtype)
    k6 = tl.load(camera + 11).to(x.dtype)
    denominator = 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = (1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))) / denominator
    u = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
    v = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y
    d_numerator = k1 + r2 * (2.0 * k2 + r2 * 3.0 * k3)
    d_denominator = k4 + r2 * (2.0 * k5 + r2 * 3.0 * k6)
    slope = 2.0 * (d_numerator - radial * d_denominator) / denominator
    cross = slope * x * y + 2.0 * p1 * x + 2.0 * p2 * y
    return (
        u,
        v,
        radial + slope * x * x + 2.0 * p1 * y + 6.0 * p2 * x,
        cross,
        cross,
        radial + slope * y * y + 6.0 * p1 * y + 2.0 * p2 * x,
    )


@triton.jit
def _project(x, y, z, camera, MODEL: tl.constexpr):
    """Pixels of points of the camera frame, whether they are valid, and x / z, y / z, 1 / z and the distortion's Jacobian.

    ``camera`` holds fx fy cx cy, eight coefficients, and the square of the largest radius, as ``Camera.project`` uses them.
    """
    front = z >= 1e-4
    z = tl.where(front, z, 1.0)
    a, b = x / z, y / z
    if MODEL != 0:
        a = tl.minimum(tl.maximum(a, -1e4), 1e4)
        b = tl.minimum(tl.maximum(b, -1e4), 1e4)
    valid = front & (a * a + b * b < tl.load(camera + 12).to(x.dtype))
    u, v, xx, xy, yx, yy = _distort(a, b, camera, MODEL)
    u = u * tl.load(camera).to(x.dtype) + tl.load(camera + 2).to(x.dtype)
    v = v * tl.load(camera + 1).to(x.dtype) + tl.load(camera + 3).to(x.dtype)
    return u, v, valid, a, b, z, xx, xy, yx, yy


# --- loss maps --------------------------------------------------------------------------------------


@triton.jit
def normalisers(
    z, sampled, starts, weights, bound, reverse, cells, background, ROWS: tl.constexpr, CELLS: tl.constexpr
):
    """First pass: ln of the sum over a keyframe's points and background, for each of the query's cells."""
    keyframe = tl.program_id(0)
    at = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    inside = at < cells
    shift = tl.load(bound)
    first, last = tl.load(starts + keyframe), tl.load(starts + keyframe + 1)
    total = tl.zeros((CELLS,), dtype=tl.float32)
    for row in range(first, last, ROWS):
        rows = row + tl.arange(0, ROWS)
        held = (rows < last)[:, None] & inside[None, :]
        value = tl.load(z + rows.to(tl.int64)[:, None] * cells + at[None, :], mask=held, other=float("-inf"))
        total += tl.sum(tl.exp(value - shift), axis=0)
    behind = tl.zeros((CELLS,), dtype=tl.float32)
    for row in range(0, background, ROWS):
        rows = row + tl.arange(0, ROWS)
        held = (rows < background)[:, None] & inside[None, :]
        line = (keyframe * background + rows).to(tl.int64)
        value = tl.load(sampled + line[:, None] * cells + at[None, :], mask=held, other=float("-inf"))
        behind += tl.sum(tl.exp(value - shift), axis=0)
    total = tl.maximum(total + behind * tl.load(weights + keyframe), 1e-37)
    tl.store(reverse + keyframe * cells + at, tl.log(total), mask=inside)


@triton.jit
def losses(
    z, reverse, owners, bound, limits, loss, entropy, lowest, best, rate,
    cells, width, match_columns, match_cells, STRIDE: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Second pass: losses, entropy, minimum and share of matches of one point's map.

    ``limits`` holds the largest loss, the largest entropy, and the loss below which a cell is a match.
    """
    point = tl.program_id(0).to(tl.int64)
    shift = tl.load(bound)
    line, other = z + point * cells, reverse + tl.load(owners + point) * cells
    mass = tl.zeros((CELLS,), dtype=tl.float32)
    moment = tl.zeros((CELLS,), dtype=tl.float32)
    reverse_moment = tl.zeros((CELLS,), dtype=tl.float32)
    for first in range(0, cells, CELLS):
        at = first + tl.arange(0, CELLS)
        inside = at < cells
        value = tl.load(line + at, mask=inside, other=0.0) - shift
        r = tl.load(other + at, mask=inside, other=0.0)
        weight = tl.where(inside, tl.exp(value) * tl.exp(value) * tl.exp(-r), 0.0)
        mass += weight
        moment += weight * value
        reverse_moment += weight * r
    total = tl.sum(mass, axis=0)
    largest = tl.load(limits)
    known = total > 1e-37
    safe = tl.where(known, total, 1.0)
    log_mass = tl.where(known, tl.log(safe), float("inf"))
    told = log_mass - (2.0 * tl.sum(moment, axis=0) - tl.sum(reverse_moment, axis=0)) / safe
    tl.store(entropy + point, tl.where(known, told, tl.load(limits + 1)))
    match = tl.load(limits + 2)
    low, where, matches = largest + 1.0, 0, 0
    for first in range(0, cells, CELLS):
        at = first + tl.arange(0, CELLS)
        inside = at < cells
        value = tl.load(line + at, mask=inside, other=0.0) - shift
        r = tl.load(other + at, mask=inside, other=0.0)
        found = tl.minimum(r + log_mass - 2.0 * value, largest)
        tl.store(loss + point * cells + at, found.to(loss.dtype.element_ty), mask=inside)
        found = tl.where(inside, found, largest + 2.0)
        lowest_here = tl.min(found, axis=0)
        first_of_them = tl.min(tl.where(found == lowest_here, at, cells), axis=0)
        where = tl.where(lowest_here < low, first_of_them, where)
        low = tl.minimum(low, lowest_here)
        x, y = at % width, at // width
        counted = inside & (x % STRIDE == 0) & (y % STRIDE == 0) & (found < match)
        matches += tl.sum(counted.to(tl.int32), axis=0)
    tl.store(lowest + point, low)
    tl.store(best + point, where.to(tl.int64))
    tl.store(rate + point, matches.to(tl.float32) / match_cells)


# --- scores of poses --------------------------------------------------------------------------------


@triton.jit
def mean_losses(
    T, points, loss, rows, camera, grid, mean, count, height, width, MODEL: tl.constexpr, POINTS: tl.constexpr
):
    """Mean loss of all points under one pose, in single precision; ``grid`` holds stride, offset and ln|Omega|."""
    pose = tl.program_id(0)
    t = T + pose * 16
    stride, offset, outside = (
        tl.load(grid).to(tl.float32),
        tl.load(grid + 1).to(tl.float32),
        tl.load(grid + 2).to(tl.float32),
    )
    total = tl.zeros((POINTS,), dtype=tl.float64)
    for first in range(0, count, POINTS):
        n = first + tl.arange(0, POINTS)
        held = n < count
        X = tl.load(points + n * 3, mask=held, other=0.0).to(tl.float32)
        Y = tl.load(points + n * 3 + 1, mask=held, other=0.0).to(tl.float32)
        Z = tl.load(points + n * 3 + 2, mask=held, other=0.0).to(tl.float32)
        x = X * tl.load(t).to(tl.float32) + Y * tl.load(t + 1).to(tl.float32) + Z * tl.load(t + 2).to(tl.float32)
        y = X * tl.load(t + 4).to(tl.float32) + Y * tl.load(t + 5).to(tl.float32) + Z * tl.load(t + 6).to(tl.float32)
        z = X * tl.load(t + 8).to(tl.float32) + Y * tl.load(t + 9).to(tl.float32) + Z * tl.load(t + 10).to(tl.float32)
        x += tl.load(t + 3).to(tl.float32)
        y += tl.load(t + 7).to(tl.float32)
        z += tl.load(t + 11).to(tl.float32)
        u, v, valid, _a, _b, _z, _xx, _xy, _yx, _yy = _project(x, y, z, camera, MODEL)
        u, v = (u - offset) / stride, (v - offset) / stride
        inside = held & valid & (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
        u = tl.where(inside, tl.minimum(tl.maximum(u, 0.0), width - 1.0), 0.0)
        v = tl.where(inside, tl.minimum(tl.maximum(v, 0.0), height - 1.0), 0.0)
        left = tl.minimum(u.to(tl.int32), tl.maximum(width - 2, 0))
        top = tl.minimum(v.to(tl.int32), tl.maximum(height - 2, 0))
        right, down = tl.minimum(left + 1, width - 1) - left, (tl.minimum(top + 1, height - 1) - top) * width
        fx, fy = u - left.to(tl.float32), v - top.to(tl.float32)
        corner = loss + tl.load(rows + n, mask=held, other=0) * (height * width) + top * width + left
        a = tl.load(corner, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(corner + right, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(corner + down, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(corner + down + right, mask=inside, other=0.0).to(tl.float32)
        upper, lower = a + (b - a) * fx, c + (d - c) * fx
        value = tl.where(inside, upper + (lower - upper) * fy, outside)
        total += tl.where(held, value, 0.0).to(tl.float64)
    tl.store(mean + pose, tl.sum(total, axis=0) / count)


# --- refinement -------------------------------------------------------------------------------------


@triton.jit
def _expand(
    T, T_centre, points, maps, rows, origins, camera, grid, sigma, radius, side, count, height, width,
    MODEL: tl.constexpr, CUT: tl.constexpr, POINTS: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """Cost, [8, 8] with the Newton matrix and the gradient in column 6, and the IRLS matrix [8, 8], at the pose T [4, 4].

    ``T_centre`` is the pose around whose projections the windows are cut.
    """
    i = tl.arange(0, 8)
    stride, offset, outside = tl.load(grid), tl.load(grid + 1), tl.load(grid + 2).to(tl.float32)
    s = sigma.to(tl.float32)
    newton = tl.zeros((8, 8), dtype=tl.float64)
    irls = tl.zeros((8, 8), dtype=tl.float64)
    cost = tl.zeros((POINTS,), dtype=tl.float64)
    dx = tl.arange(0, SIDE)
    for first in range(0, count, POINTS):
        n = first + tl.arange(0, POINTS)
        held = n < count
        X = tl.load(points + n * 3, mask=held, other=0.0)
        Y = tl.load(points + n * 3 + 1, mask=held, other=0.0)
        Z = tl.load(points + n * 3 + 2, mask=held, other=0.0)
        row = tl.load(rows + n, mask=held, other=0)
        if CUT:
            x = X * tl.load(T_centre) + Y * tl.load(T_centre + 1) + Z * tl.load(T_centre + 2) + tl.load(T_centre + 3)
            y = (
                X * tl.load(T_centre + 4)
                + Y * tl.load(T_centre + 5)
                + Z * tl.load(T_centre + 6)
                + tl.load(T_centre + 7)
            )
            z = (
                X * tl.load(T_centre + 8)
                + Y * tl.load(T_centre + 9)
                + Z * tl.load(T_centre + 10)
                + tl.load(T_centre + 11)
            )
            u, v, valid, _a, _b, _z, _xx, _xy, _yx, _yy = _project(x, y, z, camera, MODEL)
            far = tl.maximum(height, width) + 2.0 * radius + 2.0
            u = tl.where(
                valid, tl.minimum(tl.maximum((u - offset) / stride, -2.0 * radius - 2.0), far), -2.0 * radius - 2.0
            )
            v = tl.where(
                valid, tl.minimum(tl.maximum((v - offset) / stride, -2.0 * radius - 2.0), far), -2.0 * radius - 2.0
            )
            left, top = _round(u) - radius, _round(v) - radius
        else:
            left = tl.load(origins + n * 2, mask=held, other=0).to(tl.int32)
            top = tl.load(origins + n * 2 + 1, mask=held, other=0).to(tl.int32)
        rx_ = X * tl.load(T) + Y * tl.load(T + 1) + Z * tl.load(T + 2)
        ry_ = X * tl.load(T + 4) + Y * tl.load(T + 5) + Z * tl.load(T + 6)
        rz_ = X * tl.load(T + 8) + Y * tl.load(T + 9) + Z * tl.load(T + 10)
        u, v, valid, a, b, z, xx, xy, yx, yy = _project(
            rx_ + tl.load(T + 3), ry_ + tl.load(T + 7), rz_ + tl.load(T + 11), camera, MODEL
        )
        u, v = (u - offset) / stride, (v - offset) / stride
        # moments of the window, in single precision: rows one after the other, the columns of a row at once
        rx = (left.to(tl.float64) - u).to(tl.float32)[:, None] + dx.to(tl.float32)[None, :]
        norm = 0.3989422804014327 / s
        gx = norm * tl.exp(rx * rx / (-2.0 * s * s))
        column = left[:, None] + dx[None, :]
        here = held[:, None] & (dx < side)[None, :]
        if CUT:
            here = here & (column >= 0) & (column < width)
        ry0 = (top.to(tl.float64) - v).to(tl.float32)
        m00 = tl.zeros((POINTS,), dtype=tl.float32)
        m01 = tl.zeros((POINTS,), dtype=tl.float32)
        m02 = tl.zeros((POINTS,), dtype=tl.float32)
        m10 = tl.zeros((POINTS,), dtype=tl.float32)
        m11 = tl.zeros((POINTS,), dtype=tl.float32)
        m20 = tl.zeros((POINTS,), dtype=tl.float32)
        for dy in range(0, side):
            if CUT:
                line = top + dy
                inside = here & ((line >= 0) & (line < height))[:, None]
                place = maps + row[:, None] * (height * width) + line[:, None] * width + column
                value = tl.where(inside, outside - tl.load(place, mask=inside, other=0.0).to(tl.float32), 0.0)
            else:
                place = maps + row[:, None] * (side * side) + dy * side + dx[None, :]
                value = tl.load(place, mask=here, other=0.0).to(tl.float32)
            ry = ry0 + dy
            gy = tl.where(valid, norm * tl.exp(ry * ry / (-2.0 * s * s)), 0.0)
            weighted = gx * value
            row0 = gy * tl.sum(weighted, axis=1)
            row1 = gy * tl.sum(weighted * rx, axis=1)
            m00 += row0
            m01 += row1
            m02 += gy * tl.sum(weighted * rx * rx, axis=1)
            m10 += row0 * ry
            m11 += row1 * ry
            m20 += row0 * ry * ry
        cost += m00.to(tl.float64)
        # the curvature A_n, its eigenvalues at least a share of the IRLS weight
        s2 = s * s
        weight = m00 / s2
        axx, axy, ayy = m02 / (s2 * s2), m11 / (s2 * s2), m20 / (s2 * s2)
        middle, difference = weight - (axx + ayy) / 2.0, (ayy - axx) / 2.0
        spread = tl.sqrt(difference * difference + axy * axy)
        high = tl.maximum(middle + spread, 0.05 * weight)
        low = tl.maximum(middle - spread, 0.05 * weight)
        middle, shrink = (high + low) / 2.0, (high - low) / tl.maximum(2.0 * spread, 1e-30)
        nxx = (middle + difference * shrink).to(tl.float64)
        nyy = (middle - difference * shrink).to(tl.float64)
        nxy = -(axy * shrink).to(tl.float64)
        pull_x, pull_y = m01.to(tl.float64) / (sigma * sigma), m10.to(tl.float64) / (sigma * sigma)
        w = m00.to(tl.float64) / (sigma * sigma)
        # the Jacobian of the cell: d = d cell / d x_cam, and (x_rotated x d, d)
        fx, fy = tl.load(camera) / stride / z, tl.load(camera + 1) / stride / z
        d00, d01 = fx * xx, fx * xy
        d10, d11 = fy * yx, fy * yy
        d02, d12 = -(d00 * a + d01 * b), -(d10 * a + d11 * b)
        Jx = _six(ry_ * d02 - rz_ * d01, rz_ * d00 - rx_ * d02, rx_ * d01 - ry_ * d00, d00, d01, d02, i)
        Jy = _six(ry_ * d12 - rz_ * d11, rz_ * d10 - rx_ * d12, rx_ * d11 - ry_ * d10, d10, d11, d12, i)
        Nx, Ny = nxx[:, None] * Jx + nxy[:, None] * Jy, nxy[:, None] * Jx + nyy[:, None] * Jy
        gradient = -tl.sum(Jx * pull_x[:, None] + Jy * pull_y[:, None], axis=0)
        newton += tl.sum(Jx[:, :, None] * Nx[:, None, :] + Jy[:, :, None] * Ny[:, None, :], axis=0)
        newton += tl.where((i == 6)[None, :], gradient[:, None], 0.0)
        irls += tl.sum(w[:, None, None] * (Jx[:, :, None] * Jx[:, None, :] + Jy[:, :, None] * Jy[:, None, :]), axis=0)
    return -tl.sum(cost, axis=0), newton, irls


@triton.jit
def _round(x):
    """The nearest integer, halves to the even one, as torch rounds."""
    low = tl.floor(x)
    rest = x - low
    odd = (low.to(tl.int64) % 2) != 0
    return (low + tl.where((rest > 0.5) | ((rest == 0.5) & odd), 1.0, 0.0)).to(tl.int32)


@triton.jit
def _six(a, b, c, d, e, f, i):
    """[P, 8] with six columns."""
    i = i[None, :]
    left = tl.where(i == 0, a[:, None], tl.where(i == 1, b[:, None], tl.where(i == 2, c[:, None], 0.0)))
    right = tl.where(i == 3, d[:, None], tl.where(i == 4, e[:, None], tl.where(i == 5, f[:, None], 0.0)))
    return left + right


@triton.jit
def _solve(newton, irls, damping):
    """The damped step [8]; zero where it is not finite."""
    i = tl.arange(0, 8)
    row, column = i[:, None], i[None, :]
    used = (row < 6) & (column < 6)
    damped = tl.where(used, newton + damping * irls, 0.0)
    diagonal = tl.sum(tl.where(row == column, damped, 0.0), axis=1)
    # angles and lengths have scales of their own
    scale = tl.where(i < 6, 1.0 / tl.sqrt(tl.maximum(diagonal, 1e-30)), 1.0)
    system = damped * scale[:, None] * scale[None, :] + tl.where(row == column, tl.where(row < 6, 1e-12, 1.0), 0.0)
    gradient = tl.sum(tl.where(column == 6, newton, 0.0), axis=1)
    right = -scale * tl.where(i < 6, gradient, 0.0)
    for k in tl.static_range(6):  # Gauss and Jordan; the matrix is positive, so that no pivot has to be looked for
        pivot_row = tl.sum(tl.where(row == k, system, 0.0), axis=0)
        pivot = tl.sum(tl.where(i == k, pivot_row, 0.0), axis=0)
        pivot_right = tl.sum(tl.where(i == k, right, 0.0), axis=0) / pivot
        pivot_row = pivot_row / pivot
        factor = tl.sum(tl.where(column == k, system, 0.0), axis=1)
        system = tl.where(row == k, pivot_row[None, :], system - factor[:, None] * pivot_row[None, :])
        right = tl.where(i == k, pivot_right, right - factor * pivot_right)
    step = scale * right
    return tl.where((i < 6) & (tl.abs(step) < 1e300), step, 0.0)


@triton.jit
def _element(vector, i, k):
    return tl.sum(tl.where(i == k, vector, 0.0), axis=0)


@triton.jit
def _updated(T, delta, target):
    """Writes the pose T, moved by the left increment [8], to ``target``."""
    i = tl.arange(0, 8)
    x, y, z = _element(delta, i, 0), _element(delta, i, 1), _element(delta, i, 2)
    angle2 = x * x + y * y + z * z
    angle = tl.sqrt(tl.maximum(angle2, 1e-24))
    small = angle2 < 1e-8
    a = tl.where(small, 1.0 - angle2 / 6.0, tl.sin(angle) / angle)
    b = tl.where(small, 0.5 - angle2 / 24.0, (1.0 - tl.cos(angle)) / (angle * angle))
    for column in tl.static_range(3):
        p, q, r = tl.load(T + column), tl.load(T + 4 + column), tl.load(T + 8 + column)
        # omega x (p, q, r), twice
        cx, cy, cz = y * r - z * q, z * p - x * r, x * q - y * p
        tl.store(target + column, p + a * cx + b * (y * cz - z * cy))
        tl.store(target + 4 + column, q + a * cy + b * (z * cx - x * cz))
        tl.store(target + 8 + column, r + a * cz + b * (x * cy - y * cx))
    tl.store(target + 3, tl.load(T + 3) + _element(delta, i, 3))
    tl.store(target + 7, tl.load(T + 7) + _element(delta, i, 4))
    tl.store(target + 11, tl.load(T + 11) + _element(delta, i, 5))


@triton.jit
def _copied(source, target):
    i = tl.arange(0, 16)
    tl.store(target + i, tl.load(source + i))


@triton.jit
def refine(
    T, points, maps, rows, origins, camera, grid, sigmas, radii, gain, costs, steps, scratch,
    scales, side, count, height, width,
    MODEL: tl.constexpr, CUT: tl.constexpr, POINTS: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """All scales and steps of one pose: ``gnc._descend`` with its damping and its stopping rule.

    ``T`` [B, 4, 4] is read and written; ``scratch`` [B, 2, 16] holds the tried pose and the pose of the windows.
    """
    pose = tl.program_id(0)
    here, tried, centre = T + pose * 16, scratch + pose * 32, scratch + pose * 32 + 16
    _copied(here, tried)
    enough = tl.load(gain)
    cost = tl.load(here) * 0.0
    accepted_steps = 0
    for k in range(0, scales):
        sigma = tl.load(sigmas + k)
        radius = tl.load(radii + k)
        window = side
        if CUT:
            window = 2 * radius + 1
        tl.debug_barrier()
        _copied(here, centre)
        tl.debug_barrier()
        cost, newton, irls = _expand(
            here, centre, points, maps, rows, origins, camera, grid, sigma, radius, window, count, height, width,
            MODEL, CUT, POINTS, SIDE,
        )  # fmt: skip
        damping = sigma * 0.0 + 1e-3
        step = 0
        active = 1
        while (step < 25) & (active > 0):
            delta = _solve(newton, irls, damping)
            tl.debug_barrier()
            _updated(here, delta, tried)
            tl.debug_barrier()
            new_cost, new_newton, new_irls = _expand(
                tried, centre, points, maps, rows, origins, camera, grid, sigma, radius, window, count, height, width,
                MODEL, CUT, POINTS, SIDE,
            )  # fmt: skip
            gained = cost - new_cost
            better = gained > 0.0
            finished = tl.abs(gained) <= enough * tl.abs(cost)
            damping = tl.where(better, tl.maximum(damping * 0.2, 1e-6), damping * 10.0)
            if better:
                tl.debug_barrier()
                _copied(tried, here)
                tl.debug_barrier()
            cost = tl.where(better, new_cost, cost)
            newton = tl.where(better, new_newton, newton)
            irls = tl.where(better, new_irls, irls)
            accepted_steps += better.to(tl.int32)
            active = tl.where(finished | (damping >= 1e2), 0, 1)
            step += 1
    tl.store(costs + pose, cost)
    tl.store(steps + pose, accepted_steps.to(tl.int64))


# --- fine windows -----------------------------------------------------------------------------------


@triton.jit
def window_values(
    descriptors, features, centre, cubic, offset, values, half, temperature, channels, height, width, side, fine,
    CHANNELS: tl.constexpr, CELLS: tl.constexpr, FINE: tl.constexpr,
):  # fmt: skip
    """V = max(0, offset + ln softmax(correlations / temperature)) in one point's window.

    ``features`` [H, W, C]; ``side`` cells of the map along a window with its reach, ``fine`` fine cells.
    """
    point = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, CHANNELS)
    i = tl.arange(0, CELLS)
    j = tl.arange(0, FINE)
    descriptor = tl.load(descriptors + point * channels + c, mask=c < channels, other=0.0)
    left = tl.load(centre + point * 2).to(tl.int32) - half - 2
    top = tl.load(centre + point * 2 + 1).to(tl.int32) - half - 2
    x = tl.minimum(tl.maximum(left + i, 0), width - 1)
    weights = tl.load(cubic + j[:, None] * side + i[None, :], mask=(j < fine)[:, None] & (i < side)[None, :], other=0.0)
    enlarged = tl.zeros((FINE, FINE), dtype=tl.float32)
    for row in range(0, side):
        y = tl.minimum(tl.maximum(top + row, 0), height - 1)
        cells = tl.load(
            features + ((y * width + x) * channels)[:, None] + c[None, :],
            mask=(i < side)[:, None] & (c < channels)[None, :],
            other=0.0,
        ).to(tl.float32)
        correlation = tl.sum(cells * descriptor[None, :], axis=1)
        across = tl.sum(weights * correlation[None, :], axis=1)
        down = tl.load(cubic + j * side + row, mask=j < fine, other=0.0)
        enlarged += down[:, None] * across[None, :]
    inside = (j < fine)[:, None] & (j < fine)[None, :]
    scores = tl.where(inside, enlarged * (1.0 / tl.load(temperature)).to(tl.float32), float("-inf"))
    largest = tl.max(tl.max(scores, axis=1), axis=0)
    total = tl.sum(tl.sum(tl.exp(scores - largest), axis=1), axis=0)
    value = scores - largest - tl.log(total) + tl.load(offset + point)
    value = tl.where(value != value, value, tl.maximum(value, 0.0))
    tl.store(values + point * fine * fine + j[:, None] * fine + j[None, :], value, mask=inside)
