// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Projection of points, as `Camera.project` and `pose_jacobian` in nre_ros/geometry.py do it.
#pragma once

#include <math.h>
#include <stdint.h>

#include "kernels.h"

namespace {

constexpr double MIN_DEPTH = 1e-4, FAR = 1e4;

// The rotation and translation of a pose [4, 4].
template <typename Real>
struct Pose {
  Real R[9], t[3];

  explicit Pose(const double* T) {
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) R[3 * i + j] = Real(T[4 * i + j]);
      t[i] = Real(T[4 * i + 3]);
    }
  }
};

template <typename Real>
inline Real clamp_far(Real value) {
  if (value > Real(FAR)) return Real(FAR);
  return value < Real(-FAR) ? Real(-FAR) : value;
}

// A camera with its numbers in single or double precision.
template <typename Real>
class Projection {
 public:
  explicit Projection(const nre::Camera& camera)
      : model_(camera.model), distorted_(camera.distorted), limited_(camera.max_radius < INFINITY), fx_(Real(camera.fx)),
        fy_(Real(camera.fy)), cx_(Real(camera.cx)), cy_(Real(camera.cy)), max_square_(camera.max_radius * camera.max_radius) {
    for (int i = 0; i < 8; ++i) k_[i] = Real(camera.k[i]);
  }

  // Pixel of a point of the camera frame, and whether it is in view; with `jacobian` d pixel / d point [2, 3].
  template <bool jacobian>
  inline bool project(const Real* point, Real* pixel, Real* d_point) const {
    bool valid = point[2] >= Real(MIN_DEPTH);
    const Real z = valid ? point[2] : Real(1);
    Real x = point[0] / z, y = point[1] / z;
    if (distorted_) x = clamp_far(x), y = clamp_far(y);
    if (limited_) valid = valid && x * x + y * y < Real(max_square_);
    Real u = x, v = y, d[4] = {Real(1), Real(0), Real(0), Real(1)};
    if (model_ == nre::EQUIDISTANT) {
      equidistant<jacobian>(x, y, u, v, d);
    } else if (distorted_) {
      radial_tangential<jacobian>(x, y, u, v, d);
    }
    pixel[0] = u * fx_ + cx_;
    pixel[1] = v * fy_ + cy_;
    if (jacobian) {
      const Real inverse = Real(1) / z;
      for (int i = 0; i < 2; ++i) {
        const Real focal = i == 0 ? fx_ : fy_, a = d[2 * i] * focal, b = d[2 * i + 1] * focal;
        d_point[3 * i] = a * inverse;
        d_point[3 * i + 1] = b * inverse;
        d_point[3 * i + 2] = -(a * x + b * y) * inverse;
      }
    }
    return valid;
  }

 private:
  template <bool jacobian>
  inline void radial_tangential(Real x, Real y, Real& u, Real& v, Real* d) const {
    const Real k1 = k_[0], k2 = k_[1], p1 = k_[2], p2 = k_[3], k3 = k_[4], k4 = k_[5], k5 = k_[6], k6 = k_[7];
    const Real r2 = x * x + y * y, numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3));
    const Real denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6)), radial = numerator / denominator;
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x);
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y;
    if (jacobian) {
      const Real d_numerator = k1 + r2 * (2 * k2 + r2 * 3 * k3), d_denominator = k4 + r2 * (2 * k5 + r2 * 3 * k6);
      const Real slope = 2 * (d_numerator - radial * d_denominator) / denominator;
      d[0] = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x;
      d[1] = d[2] = slope * x * y + 2 * p1 * x + 2 * p2 * y;
      d[3] = radial + slope * y * y + 6 * p1 * y + 2 * p2 * x;
    }
  }

  template <bool jacobian>
  inline void equidistant(Real x, Real y, Real& u, Real& v, Real* d) const {
    const Real square = x * x + y * y, r = Real(sqrt(double(square > Real(1e-24) ? square : Real(1e-24))));
    const Real angle = Real(atan(double(r))), a2 = angle * angle;
    const Real scale = angle * (1 + a2 * (k_[0] + a2 * (k_[1] + a2 * (k_[2] + a2 * k_[3])))) / r;
    u = x * scale, v = y * scale;
    if (jacobian) {
      const Real slope = (1 + a2 * (3 * k_[0] + a2 * (5 * k_[1] + a2 * (7 * k_[2] + a2 * 9 * k_[3])))) / (1 + r * r);
      const Real dx = x / r, dy = y / r, rest = slope - scale;
      d[0] = scale + rest * dx * dx;
      d[1] = d[2] = rest * dx * dy;
      d[3] = scale + rest * dy * dy;
    }
  }

  nre::CameraModel model_;
  bool distorted_, limited_;
  Real fx_, fy_, cx_, cy_;
  double max_square_;
  Real k_[8];
};

// Pixel of a point of the map.
template <typename Real>
inline bool project(const Projection<Real>& camera, const Pose<Real>& pose, const Real* point, Real* pixel) {
  Real seen[3];
  for (int i = 0; i < 3; ++i) {
    seen[i] = pose.R[3 * i] * point[0] + pose.R[3 * i + 1] * point[1] + pose.R[3 * i + 2] * point[2] + pose.t[i];
  }
  return camera.template project<false>(seen, pixel, nullptr);
}

// Pixel of a point of the map, and d pixel / d (omega, t) [2, 6] of the left increment.
inline bool project_with_jacobian(
    const Projection<double>& camera, const Pose<double>& pose, const double* point, double* pixel, double* J) {
  double rotated[3], seen[3], d[6];
  for (int i = 0; i < 3; ++i) {
    rotated[i] = pose.R[3 * i] * point[0] + pose.R[3 * i + 1] * point[1] + pose.R[3 * i + 2] * point[2];
    seen[i] = rotated[i] + pose.t[i];
  }
  const bool valid = camera.project<true>(seen, pixel, d);
  for (int i = 0; i < 2; ++i) {
    const double* u = d + 3 * i;
    J[6 * i] = rotated[1] * u[2] - rotated[2] * u[1];
    J[6 * i + 1] = rotated[2] * u[0] - rotated[0] * u[2];
    J[6 * i + 2] = rotated[0] * u[1] - rotated[1] * u[0];
    J[6 * i + 3] = u[0], J[6 * i + 4] = u[1], J[6 * i + 5] = u[2];
  }
  return valid;
}

}  // namespace
