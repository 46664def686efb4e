// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Mean losses of poses: `PoseProblem.mean_losses` and `sample_loss`. In single precision, as there.
#include "kernels.h"
#include "projection.h"
#include "vectors.h"

namespace {

// The projection of some points: pixels, and 1 for points in view, 0 for others.
struct Seen {
  Vector u, v, in_view;
};

class LaneProjection {
 public:
  explicit LaneProjection(const nre::Camera& camera)
      : lanes_(camera.model != nre::EQUIDISTANT), distorted_(camera.distorted), scalar_(camera) {
    fx_ = float(camera.fx), fy_ = float(camera.fy), cx_ = float(camera.cx), cy_ = float(camera.cy);
    for (int i = 0; i < 8; ++i) k_[i] = float(camera.k[i]);
    max_square_ = float(camera.max_radius * camera.max_radius);
    limited_ = camera.max_radius < INFINITY;
  }

  inline Seen project(const Pose<float>& pose, Vector px, Vector py, Vector pz) const {
    const Vector a = px * pose.R[0] + py * pose.R[1] + pz * pose.R[2] + pose.t[0];
    const Vector b = px * pose.R[3] + py * pose.R[4] + pz * pose.R[5] + pose.t[1];
    const Vector c = px * pose.R[6] + py * pose.R[7] + pz * pose.R[8] + pose.t[2];
    return lanes_ ? in_lanes(a, b, c) : one_by_one(a, b, c);
  }

 private:
  inline Seen in_lanes(Vector a, Vector b, Vector c) const {
    const Vector one = fill(1.0f), nothing = {};
    Vector in_view = c >= float(MIN_DEPTH) ? one : nothing;
    const Vector z = c >= float(MIN_DEPTH) ? c : one;
    Vector x = a / z, y = b / z;
    if (distorted_) {
      x = lower(higher(x, fill(float(-FAR))), fill(float(FAR)));
      y = lower(higher(y, fill(float(-FAR))), fill(float(FAR)));
    }
    const Vector r2 = x * x + y * y;
    if (limited_) in_view = r2 < max_square_ ? in_view : nothing;
    if (distorted_) {
      const Vector numerator = r2 * (r2 * (r2 * k_[4] + k_[1]) + k_[0]) + 1.0f;
      const Vector denominator = r2 * (r2 * (r2 * k_[7] + k_[6]) + k_[5]) + 1.0f;
      const Vector radial = numerator / denominator, xy = x * y * 2.0f;
      const Vector u = x * radial + xy * k_[2] + (r2 + x * x * 2.0f) * k_[3];
      y = y * radial + (r2 + y * y * 2.0f) * k_[2] + xy * k_[3];
      x = u;
    }
    return {x * fx_ + cx_, y * fy_ + cy_, in_view};
  }

  // For models that need functions which have no vectors here.
  inline Seen one_by_one(Vector a, Vector b, Vector c) const {
    Seen seen;
    for (int k = 0; k < LANES; ++k) {
      const float point[3] = {a[k], b[k], c[k]};
      float pixel[2];
      seen.in_view[k] = scalar_.project<false>(point, pixel, nullptr) ? 1.0f : 0.0f;
      seen.u[k] = pixel[0], seen.v[k] = pixel[1];
    }
    return seen;
  }

  bool lanes_, distorted_, limited_;
  float fx_, fy_, cx_, cy_, max_square_, k_[8];
  Projection<float> scalar_;
};

// The losses of some points at cells, bilinearly.
class Sampler {
 public:
  explicit Sampler(const nre::MeanLosses& task)
      : loss_(task.loss), width_(task.width), cells_(task.height * task.width), right_(task.width > 1),
        down_(task.height > 1 ? task.width : 0), outside_(task.outlier_loss), right_end_(float(task.width - 1)),
        bottom_end_(float(task.height - 1)), last_x_(float(larger(task.width - 2, 0))), last_y_(float(larger(task.height - 2, 0))) {}

  inline Vector sample(const int64_t* rows, Vector x, Vector y, Vector in_view) const {
    const Vector nothing = {};
    Vector inside = in_view;
    inside = x >= -0.5f ? inside : nothing;
    inside = x <= right_end_ + 0.5f ? inside : nothing;
    inside = y >= -0.5f ? inside : nothing;
    inside = y <= bottom_end_ + 0.5f ? inside : nothing;
    x = inside > 0.0f ? x : nothing;  // any place: the result is not used
    y = inside > 0.0f ? y : nothing;
    x = lower(higher(x, nothing), fill(right_end_));
    y = lower(higher(y, nothing), fill(bottom_end_));
    const Integers x0 = __builtin_convertvector(lower(x, fill(last_x_)), Integers);
    const Integers y0 = __builtin_convertvector(lower(y, fill(last_y_)), Integers);
    const Vector fx = x - __builtin_convertvector(x0, Vector), fy = y - __builtin_convertvector(y0, Vector);
    Vector a, b, c, d;
    for (int k = 0; k < LANES; ++k) {
      const float* corner = loss_ + rows[k] * cells_ + int64_t(y0[k]) * width_ + x0[k];
      a[k] = corner[0], b[k] = corner[right_], c[k] = corner[down_], d[k] = corner[down_ + right_];
    }
    const Vector top = a + fx * (b - a), bottom = c + fx * (d - c);
    return inside > 0.0f ? top + fy * (bottom - top) : fill(outside_);
  }

 private:
  const float* loss_;
  int64_t width_, cells_, right_, down_;
  float outside_, right_end_, bottom_end_, last_x_, last_y_;
};

}  // namespace

namespace nre {
namespace NRE_TARGET {

Outcome mean_losses(const MeanLosses& task, int threads) {
  const LaneProjection camera(task.camera);
  const Sampler sampler(task);
  const float offset = float(task.grid.offset), stride = float(task.grid.stride);
  const int64_t padded = (task.points + LANES - 1) / LANES * LANES;
  Scratch<float> columns(3 * padded);
  Scratch<int64_t> rows(padded);
  if (!columns.ok() || !rows.ok()) return Outcome::NO_MEMORY;
  for (int64_t n = 0; n < padded; ++n) {
    const int64_t held = smaller(n, task.points - 1);
    for (int k = 0; k < 3; ++k) columns[k * padded + n] = float(task.points_[3 * held + k]);
    rows[n] = task.rows[held];
  }
#pragma omp parallel for num_threads(threads) schedule(static) if (task.poses > 1)
  for (int64_t b = 0; b < task.poses; ++b) {
    const Pose<float> pose(task.T + 16 * b);
    double sum = 0.0;
    for (int64_t n = 0; n < padded; n += LANES) {
      const Seen seen = camera.project(pose, load(&columns[n]), load(&columns[padded + n]), load(&columns[2 * padded + n]));
      const Vector loss = sampler.sample(&rows[n], (seen.u - offset) / stride, (seen.v - offset) / stride, seen.in_view);
      if (n + LANES <= task.points) {
        sum += total(loss);
      } else {
        for (int64_t k = 0; k < task.points - n; ++k) sum += loss[k];
      }
    }
    task.mean[b] = sum / double(task.points);
  }
  return Outcome::DONE;
}

}  // namespace NRE_TARGET
}  // namespace nre
