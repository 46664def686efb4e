// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// The kernels behind nre_ros/nre/operators, with plain pointers. The caller has checked all sizes; arrays are row-major and
// without gaps. Results do not depend on the number of threads: sums are taken over fixed blocks first, and over the blocks
// in their order.
#pragma once

#include <stdint.h>

namespace nre {

// What a kernel reports. NOT_FINITE: it met numbers whose result the reference in torch has to say, such as a NaN.
enum class Outcome { DONE, NO_MEMORY, NOT_FINITE };

enum CameraModel : int { PINHOLE = 0, RADIAL_TANGENTIAL = 1, EQUIDISTANT = 2 };

// As in nre_ros/geometry.py.
struct Camera {
  CameraModel model;
  bool distorted;
  double fx, fy, cx, cy;
  double k[8];  // k1 k2 p1 p2 k3 k4 k5 k6, or k1 k2 k3 k4 of the fisheye
  double max_radius;
};

// Pixel of a cell's centre: offset + stride * cell.
struct Grid {
  double stride, offset;
};

struct LossMaps {
  int64_t points, channels, height, width, keyframes, backgrounds;
  const float* descriptors;         // [points, channels]
  const float* features;            // [channels, height * width]
  const float* background;          // [keyframes, backgrounds, channels]
  const int64_t* counts;            // [keyframes]
  const int64_t* background_cells;  // [keyframes]
  float temperature, match_limit;
  int rate_stride;
  float* loss;       // [points, height * width]
  float* entropy;    // [points]
  float* lowest;     // [points]
  int64_t* best;     // [points]
  float* match_rate; // [points]
};

struct PeakHeights {
  int64_t points, channels, cells;
  const float* descriptors;  // [points, channels]
  const float* features;     // [channels, cells]
  float temperature;
  float* height;  // [points]
};

struct MeanLosses {
  int64_t poses, points, maps, height, width;
  const double* T;        // [poses, 4, 4]
  const double* points_;  // [points, 3]
  const float* loss;      // [maps, height, width]
  const int64_t* rows;    // [points]
  Camera camera;
  Grid grid;
  float outlier_loss;
  double* mean;  // [poses]
};

// Windows of V = ln|Omega| - L: given, or cut out of maps around the projections at the start of each scale.
struct Windows {
  int64_t sets;           // 1: the same for all poses
  int64_t side;
  const float* values;    // [sets, points, side, side]; null: cut from `loss`
  const int64_t* origin;  // [sets, points, 2]
  int64_t maps, height, width;
  const float* loss;      // [maps, height, width]
  const int64_t* rows;    // [points]
  float outlier_loss;
};

struct Refinement {
  int64_t poses, points, scales;
  double* T;              // [poses, 4, 4], changed
  const double* points_;  // [points, 3]
  Camera camera;
  Grid grid;
  Windows windows;
  const double* sigmas;  // [scales]
  double gain;
  double* cost;    // [poses]
  int64_t* steps;  // [poses]
};

struct Moments {
  int64_t poses, points;
  const double* T;
  const double* points_;
  Camera camera;
  Grid grid;
  Windows windows;  // given
  double sigma;
  float* moments;    // [poses, points, 3, 3]
  double* jacobian;  // [poses, points, 2, 6]
  double* pixels;    // [poses, points, 2]
};

struct FineWindows {
  int64_t points, channels, height, width, half, enlarge, side, reach_side;
  const float* descriptors;  // [points, channels]
  const float* features;     // [height, width, channels]
  const int64_t* centre;     // [points, 2]
  const float* cubic;        // [side, reach_side]
  const float* offset;       // [points]
  float temperature;
  float* values;  // [points, side, side]
};

struct Kernels {
  const char* name;
  Outcome (*loss_maps)(const LossMaps&, int threads);
  Outcome (*peak_heights)(const PeakHeights&, int threads);
  Outcome (*mean_losses)(const MeanLosses&, int threads);
  Outcome (*refine)(const Refinement&, int threads);
  Outcome (*window_moments)(const Moments&, int threads);
  Outcome (*fine_windows)(const FineWindows&, int threads);
};

// Perspective-three-point for `count` triplets: rays and points [count, 3, 3]; T [count, 4, 4, 4] and valid [count, 4].
void solve_p3p(int64_t count, const double* rays, const double* points, double* T, uint8_t* valid, int threads);

// Draws `count` triplets without replacement: weight and ends (its running sums) [points], uniform and drawn [count, 3].
void draw_weighted_triplets(int64_t points, int64_t count, const double* weight, const double* ends, const double* uniform,
                            int64_t* drawn);

// Pixels [poses, points, 2] of points [points, 3] under poses [poses, 4, 4], and whether each is in view [poses, points].
void project_points(int64_t poses, int64_t points, const double* T, const double* points_, const Camera& camera, double* pixels,
                    uint8_t* valid, int threads);

}  // namespace nre
