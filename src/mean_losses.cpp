// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Mean losses of poses: `PoseProblem.mean_losses` and `sample_loss`. In single precision, as there.
#include "kernels.h"
#include "projection.h"
#include "vectors.h"

namespace {

// The loss of one point at a cell (x, y), bilinearly.
inline float sample(const float* map, int64_t height, int64_t width, float x, float y, float outside) {
  const float right_end = float(width - 1), bottom_end = float(height - 1);
  if (!(x >= -0.5f && x <= right_end + 0.5f && y >= -0.5f && y <= bottom_end + 0.5f)) return outside;
  x = x < 0.0f ? 0.0f : (x > right_end ? right_end : x);
  y = y < 0.0f ? 0.0f : (y > bottom_end ? bottom_end : y);
  const int64_t x0 = smaller(int64_t(x), larger(width - 2, 0)), y0 = smaller(int64_t(y), larger(height - 2, 0));
  const float fx = x - float(x0), fy = y - float(y0);
  const int64_t right = width > 1, down = height > 1 ? width : 0;
  const float* corner = map + y0 * width + x0;
  const float top = corner[0] + fx * (corner[right] - corner[0]);
  const float bottom = corner[down] + fx * (corner[down + right] - corner[down]);
  return top + fy * (bottom - top);
}

}  // namespace

namespace nre {
namespace NRE_TARGET {

bool mean_losses(const MeanLosses& task, int threads) {
  const Projection<float> camera(task.camera);
  const float offset = float(task.grid.offset), stride = float(task.grid.stride);
  Scratch<float> points(3 * task.points);
  if (!points.ok()) return false;
  for (int64_t k = 0; k < 3 * task.points; ++k) points[k] = float(task.points_[k]);
  const int64_t cells = task.height * task.width;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < task.poses; ++b) {
    const Pose<float> pose(task.T + 16 * b);
    double sum = 0.0;
    for (int64_t n = 0; n < task.points; ++n) {
      float pixel[2];
      const bool valid = project(camera, pose, &points[3 * n], pixel);
      const float x = (pixel[0] - offset) / stride, y = (pixel[1] - offset) / stride;
      sum += valid ? sample(task.loss + task.rows[n] * cells, task.height, task.width, x, y, task.outlier_loss)
                   : task.outlier_loss;
    }
    task.mean[b] = sum / double(task.points);
  }
  return true;
}

}  // namespace NRE_TARGET
}  // namespace nre
