// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Refinement by graduated non-convexity: `refine` in nre_ros/nre/gnc.py has the equations, the names and the constants.
#include "kernels.h"
#include "projection.h"
#include "vectors.h"

namespace {

using nre::Grid;
using nre::Windows;

constexpr double FLATTEST = 0.05, DAMPING_START = 1e-3, DAMPING_MIN = 1e-6, DAMPING_MAX = 1e2;
constexpr int MAX_STEPS = 25;
constexpr int64_t BLOCK = 64;      // points whose sums are kept together
constexpr double NEGLIGIBLE = 5.0; // beyond so many sigma the Gaussian is below 4e-6 of its height

// The windows of one pose, each row padded with zeros to whole vectors.
class PaddedWindows {
 public:
  PaddedWindows(int64_t points, int64_t side)
      : points_(points), side_(side), stride_((side + LANES - 1) / LANES * LANES), values_(points * side_ * stride_),
        origin_(2 * points), held_(points), finite_(points) {}

  bool ok() const { return values_.ok() && origin_.ok() && held_.ok() && finite_.ok(); }
  int64_t side() const { return side_; }
  int64_t stride() const { return stride_; }
  const float* values(int64_t n) const { return &values_[n * side_ * stride_]; }
  const int64_t* origin(int64_t n) const { return &origin_[2 * n]; }
  // Whether any value of the window is above zero.
  bool held(int64_t n) const { return held_[n] != 0; }
  // Whether all windows hold numbers that are finite.
  bool finite() const {
    bool all = true;
    for (int64_t n = 0; n < points_; ++n) all &= finite_[n] != 0;
    return all;
  }

  // Copies a given window.
  void take(int64_t n, const float* values, const int64_t* origin) {
    for (int64_t y = 0; y < side_; ++y) memcpy(row(n, y), values + y * side_, side_ * sizeof(float));
    finish(n, origin[0], origin[1]);
  }

  // Cuts a window out of a map around a cell (x, y), which may lie anywhere.
  void cut(int64_t n, const Windows& windows, double x, double y) {
    const int64_t radius = side_ / 2, width = windows.width, height = windows.height;
    const double low = -2.0 * radius - 2, high = double(larger(width, height)) + 2.0 * radius + 2;
    const int64_t left = rounded(x, low, high) - radius, top = rounded(y, low, high) - radius;
    const float* map = windows.loss + windows.rows[n] * width * height;
    const int64_t first = larger(0, -left), last = smaller(side_, width - left);
    for (int64_t j = 0; j < side_; ++j) {
      float* to = row(n, j);
      memset(to, 0, side_ * sizeof(float));
      if (top + j < 0 || top + j >= height) continue;
      const float* from = map + (top + j) * width + left;
      for (int64_t i = first; i < last; ++i) to[i] = windows.outlier_loss - from[i];
    }
    finish(n, left, top);
  }

 private:
  float* row(int64_t n, int64_t y) { return &values_[(n * side_ + y) * stride_]; }

  static int64_t rounded(double value, double low, double high) {
    const double whole = nearbyint(value);
    return int64_t(whole > high ? high : (whole >= low ? whole : low));  // a NaN becomes low
  }

  void finish(int64_t n, int64_t left, int64_t top) {
    origin_[2 * n] = left, origin_[2 * n + 1] = top;
    bool held = false, finite = true;
    for (int64_t y = 0; y < side_; ++y) {
      float* values = row(n, y);
      for (int64_t x = side_; x < stride_; ++x) values[x] = 0.0f;
      for (int64_t x = 0; x < side_; ++x) held |= values[x] > 0.0f;
      for (int64_t x = 0; x < side_; ++x) finite &= fabsf(values[x]) < INFINITY;
    }
    held_[n] = held, finite_[n] = finite;
  }

  int64_t points_, side_, stride_;
  Scratch<float> values_;
  Scratch<int64_t> origin_;
  Scratch<uint8_t> held_, finite_;
};


// sum_x k_sigma(r) V(x) r_y^j r_x^i of one point's window at a cell, [3, 3]
inline void window_sums(const PaddedWindows& windows, int64_t n, double cell_x, double cell_y, double sigma, float (&sums)[9]) {
  const int64_t side = windows.side(), stride = windows.stride();
  const float start_x = float(double(windows.origin(n)[0]) - cell_x), start_y = float(double(windows.origin(n)[1]) - cell_y);
  const float norm = float(1.0 / (sqrt(2 * M_PI) * sigma)), falloff = float(-1.0 / (2 * sigma * sigma));
  for (float& sum : sums) sum = 0.0f;
  // beyond `reach` of the cell the Gaussian is negligible
  const float reach = float(NEGLIGIBLE * sigma);
  const float low = -reach - start_y, high = reach - start_y;
  if (!(low < float(side) && high > -1.0f)) return;
  const int64_t top = low > 0.0f ? int64_t(low) : 0, bottom = high < float(side - 1) ? int64_t(high) + 1 : side;
  // whole vectors of columns from the first one within reach
  const float near = -reach - start_x, far = reach - start_x;
  if (!(near < float(side) && far > -1.0f)) return;
  const int64_t first_column = near > 0.0f ? int64_t(near) : 0, last_column = far < float(side - 1) ? int64_t(far) : side - 1;
  const int64_t columns = (last_column - first_column + LANES) / LANES * LANES;
  const int64_t left = smaller(first_column, stride - columns), right = left + columns;
  const float* values = windows.values(n);
  float weights[3][64];  // of the rows; windows of more than 64 rows take several rounds
  Vector moments[9] = {};
  for (int64_t first = top; first < bottom; first += 64) {
    const int64_t rows = smaller(64, bottom - first);
    for (int64_t j = 0; j < rows; j += LANES) {
      const Vector ry = counting() + (start_y + float(first + j));
      const Vector g = exponential(ry * ry * falloff) * norm, once = g * ry, twice = once * ry;
      store(weights[0] + j, g), store(weights[1] + j, once), store(weights[2] + j, twice);
    }
    for (int64_t i = left; i < right; i += LANES) {
      Vector column[3] = {};
      for (int64_t j = 0; j < rows; ++j) {
        const Vector v = load(values + (first + j) * stride + i);
        for (int k = 0; k < 3; ++k) column[k] += v * weights[k][j];
      }
      const Vector rx = counting() + (start_x + float(i));
      const Vector g = exponential(rx * rx * falloff) * norm, once = g * rx, twice = once * rx;
      for (int k = 0; k < 3; ++k) {
        moments[3 * k] += column[k] * g;
        moments[3 * k + 1] += column[k] * once;
        moments[3 * k + 2] += column[k] * twice;
      }
    }
  }
  for (int k = 0; k < 9; ++k) sums[k] = total(moments[k]);
}

// A_n from the moments, its eigenvalues at least FLATTEST of the IRLS weight: [xx, xy, yy]. In single precision, as there.
inline void bounded_curvature(const float (&sums)[9], double sigma, double (&A)[3]) {
  const float square = float(sigma * sigma), fourth = float(sigma * sigma * sigma * sigma);
  const float weight = sums[0] / square, xx = sums[2] / fourth, yy = sums[6] / fourth;
  float xy = sums[4] / fourth, mean = weight - (xx + yy) / 2, difference = (yy - xx) / 2;
  const float spread = sqrtf(difference * difference + xy * xy), least = float(FLATTEST) * weight;
  const float high = mean + spread < least ? least : mean + spread, low = mean - spread < least ? least : mean - spread;
  mean = (high + low) / 2;
  const float shrink = (high - low) / (2 * spread < 1e-30f ? 1e-30f : 2 * spread);
  difference *= shrink, xy *= shrink;
  A[0] = mean + difference, A[1] = -xy, A[2] = mean - difference;
}

// Second-order model of E_sigma: the upper triangles of the Newton and IRLS matrices, row by row.
struct Model {
  double cost, gradient[6], newton[21], majorant[21];

  void clear() { memset(this, 0, sizeof *this); }
  void add(const Model& other) {
    cost += other.cost;
    for (int i = 0; i < 6; ++i) gradient[i] += other.gradient[i];
    for (int i = 0; i < 21; ++i) newton[i] += other.newton[i], majorant[i] += other.majorant[i];
  }
  // Adds J' A J to a triangle, A = [a b; b c].
  static void add_product(const double* J, double a, double b, double c, double* triangle) {
    for (int i = 0, k = 0; i < 6; ++i) {
      const double p = a * J[i] + b * J[6 + i], q = b * J[i] + c * J[6 + i];
      for (int j = i; j < 6; ++j, ++k) triangle[k] += p * J[j] + q * J[6 + j];
    }
  }
};

// The model at a pose.
void expand(const double* T, int64_t points, const double* points_, const Projection<double>& camera, const Grid& grid,
            const PaddedWindows& windows, double sigma, Model* blocks, Model& model, int threads) {
  const Pose<double> pose(T);
  const int64_t count = (points + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static) if (count > 1)
  for (int64_t block = 0; block < count; ++block) {
    Model& sum = blocks[block];
    sum.clear();
    for (int64_t n = block * BLOCK; n < smaller(points, (block + 1) * BLOCK); ++n) {
      if (!windows.held(n)) continue;
      double pixel[2], J[12], A[3];
      if (!project_with_jacobian(camera, pose, points_ + 3 * n, pixel, J)) continue;
      for (double& value : J) value /= grid.stride;
      float sums[9];
      window_sums(windows, n, (pixel[0] - grid.offset) / grid.stride, (pixel[1] - grid.offset) / grid.stride, sigma, sums);
      if (sums[0] == 0.0f) continue;
      bounded_curvature(sums, sigma, A);
      const double square = sigma * sigma, pull_x = sums[1] / square, pull_y = sums[3] / square, weight = sums[0] / square;
      sum.cost -= sums[0];
      for (int i = 0; i < 6; ++i) sum.gradient[i] -= J[i] * pull_x + J[6 + i] * pull_y;
      Model::add_product(J, A[0], A[1], A[2], sum.newton);
      Model::add_product(J, weight, 0.0, weight, sum.majorant);
    }
  }
  model.clear();
  for (int64_t block = 0; block < count; ++block) model.add(blocks[block]);
}

// Solves A x = b by elimination with row pivots; false where A is singular.
bool solve(double (&A)[6][6], double (&b)[6]) {
  for (int k = 0; k < 6; ++k) {
    int pivot = k;
    for (int i = k + 1; i < 6; ++i) {
      if (fabs(A[i][k]) > fabs(A[pivot][k])) pivot = i;
    }
    if (A[pivot][k] == 0.0) return false;
    if (pivot != k) {
      for (int j = 0; j < 6; ++j) {
        const double held = A[k][j];
        A[k][j] = A[pivot][j], A[pivot][j] = held;
      }
      const double held = b[k];
      b[k] = b[pivot], b[pivot] = held;
    }
    for (int i = k + 1; i < 6; ++i) {
      const double factor = A[i][k] / A[k][k];
      for (int j = k; j < 6; ++j) A[i][j] -= factor * A[k][j];
      b[i] -= factor * b[k];
    }
  }
  for (int k = 5; k >= 0; --k) {
    for (int j = k + 1; j < 6; ++j) b[k] -= A[k][j] * b[j];
    b[k] /= A[k][k];
  }
  return true;
}

// The damped step; zero where the system cannot be solved.
void damped_step(const Model& model, double damping, double (&delta)[6]) {
  double damped[6][6], scale[6], system[6][6];
  for (int i = 0, k = 0; i < 6; ++i) {
    for (int j = i; j < 6; ++j, ++k) damped[i][j] = damped[j][i] = model.newton[k] + damping * model.majorant[k];
  }
  for (int i = 0; i < 6; ++i) scale[i] = 1.0 / sqrt(damped[i][i] < 1e-30 ? 1e-30 : damped[i][i]);
  for (int i = 0; i < 6; ++i) {
    for (int j = 0; j < 6; ++j) system[i][j] = scale[i] * damped[i][j] * scale[j];
    system[i][i] += 1e-12;
    delta[i] = -scale[i] * model.gradient[i];
  }
  const bool solved = solve(system, delta);
  for (int i = 0; i < 6; ++i) {
    delta[i] *= scale[i];
    if (!solved || !(fabs(delta[i]) < INFINITY)) delta[i] = 0.0;
  }
}

// R <- exp(omega) R, t <- t + delta
void left_update(const double* T, const double (&delta)[6], double* updated) {
  const double x = delta[0], y = delta[1], z = delta[2], square = x * x + y * y + z * z;
  const double angle = sqrt(square < 1e-24 ? 1e-24 : square);
  const double a = square < 1e-8 ? 1 - square / 6 : sin(angle) / angle;
  const double b = square < 1e-8 ? 0.5 - square / 24 : (1 - cos(angle)) / (angle * angle);
  const double W[9] = {0, -z, y, z, 0, -x, -y, x, 0};
  double E[9];
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      double squared = 0.0;
      for (int k = 0; k < 3; ++k) squared += W[3 * i + k] * W[3 * k + j];
      E[3 * i + j] = (i == j ? 1.0 : 0.0) + a * W[3 * i + j] + b * squared;
    }
  }
  memcpy(updated, T, 16 * sizeof(double));
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      updated[4 * i + j] = E[3 * i] * T[j] + E[3 * i + 1] * T[4 + j] + E[3 * i + 2] * T[8 + j];
    }
    updated[4 * i + 3] = T[4 * i + 3] + delta[3 + i];
  }
}

// The windows of one pose at the start of a scale.
void fill_windows(const Windows& source, int64_t pose, int64_t points, const double* T, const double* points_,
                  const Projection<double>& camera, const Grid& grid, PaddedWindows& windows, int threads) {
  const int64_t set = source.sets == 1 ? 0 : pose, area = source.side * source.side;
  const Pose<double> at(T);
#pragma omp parallel for num_threads(threads) schedule(static) if (points > BLOCK)
  for (int64_t n = 0; n < points; ++n) {
    if (source.values) {
      windows.take(n, source.values + (set * points + n) * area, source.origin + 2 * (set * points + n));
      continue;
    }
    double pixel[2];
    const bool valid = project(camera, at, points_ + 3 * n, pixel);
    windows.cut(n, source, valid ? (pixel[0] - grid.offset) / grid.stride : -1e6,
                valid ? (pixel[1] - grid.offset) / grid.stride : -1e6);
  }
}

}  // namespace

namespace nre {
namespace NRE_TARGET {

Outcome refine(const Refinement& task, int threads) {
  const Projection<double> camera(task.camera);
  Scratch<Model> blocks((task.points + BLOCK - 1) / BLOCK);
  if (!blocks.ok()) return Outcome::NO_MEMORY;
  for (int64_t b = 0; b < task.poses; ++b) task.cost[b] = 0.0, task.steps[b] = 0;
  for (int64_t scale = 0; scale < task.scales; ++scale) {
    const double sigma = task.sigmas[scale];
    const int64_t side = task.windows.values ? task.windows.side : 2 * (int64_t(ceil(3 * sigma)) + 1) + 1;
    PaddedWindows windows(task.points, side);
    if (!windows.ok()) return Outcome::NO_MEMORY;
    for (int64_t b = 0; b < task.poses; ++b) {
      double* T = task.T + 16 * b;
      if (b == 0 || task.windows.sets != 1 || !task.windows.values) {
        fill_windows(task.windows, b, task.points, T, task.points_, camera, task.grid, windows, threads);
        if (!windows.finite()) return Outcome::NOT_FINITE;
      }
      Model model, next;
      expand(T, task.points, task.points_, camera, task.grid, windows, sigma, blocks.get(), model, threads);
      double damping = DAMPING_START;
      for (int step = 0; step < MAX_STEPS; ++step) {
        double delta[6], moved[16];
        damped_step(model, damping, delta);
        left_update(T, delta, moved);
        expand(moved, task.points, task.points_, camera, task.grid, windows, sigma, blocks.get(), next, threads);
        const double gained = model.cost - next.cost;
        const bool finished = fabs(gained) <= task.gain * fabs(model.cost);
        if (gained > 0) {
          memcpy(T, moved, sizeof moved);
          model = next;
          damping = damping * 0.2 < DAMPING_MIN ? DAMPING_MIN : damping * 0.2;
          ++task.steps[b];
        } else {
          damping *= 10;
        }
        if (finished || !(damping < DAMPING_MAX)) break;
      }
      task.cost[b] = model.cost;
    }
  }
  return Outcome::DONE;
}

Outcome window_moments(const Moments& task, int threads) {
  const Projection<double> camera(task.camera);
  PaddedWindows windows(task.points, task.windows.side);
  if (!windows.ok()) return Outcome::NO_MEMORY;
  for (int64_t b = 0; b < task.poses; ++b) {
    const Pose<double> pose(task.T + 16 * b);
    if (b == 0 || task.windows.sets != 1) {
      fill_windows(task.windows, b, task.points, task.T + 16 * b, task.points_, camera, task.grid, windows, threads);
      if (!windows.finite()) return Outcome::NOT_FINITE;
    }
#pragma omp parallel for num_threads(threads) schedule(static) if (task.points > BLOCK)
    for (int64_t n = 0; n < task.points; ++n) {
      const int64_t at = b * task.points + n;
      double* pixel = task.pixels + 2 * at;
      double* J = task.jacobian + 12 * at;
      const bool valid = project_with_jacobian(camera, pose, task.points_ + 3 * n, pixel, J);
      for (int k = 0; k < 12; ++k) J[k] /= task.grid.stride;
      float sums[9] = {};
      if (valid) {
        window_sums(windows, n, (pixel[0] - task.grid.offset) / task.grid.stride,
                    (pixel[1] - task.grid.offset) / task.grid.stride, task.sigma, sums);
      }
      memcpy(task.moments + 9 * at, sums, sizeof sums);
    }
  }
  return Outcome::DONE;
}

}  // namespace NRE_TARGET
}  // namespace nre
