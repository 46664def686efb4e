// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// What needs no vectors: `draw_weighted_triplets` in nre_ros/nre/consensus.py and `project_points` in nre_ros/nre/gnc.py.
#include <algorithm>

#include "kernels.h"
#include "projection.h"

namespace nre {

void draw_weighted_triplets(int64_t points, int64_t count, const double* weight, const double* ends, const double* uniform,
                            int64_t* drawn) {
  const double whole = ends[points - 1];
  for (int64_t b = 0; b < count; ++b) {
    int64_t* triplet = drawn + 3 * b;
    int64_t gone[2] = {0, 0};  // the earlier ones, from left to right
    double taken = 0.0;
    for (int k = 0; k < 3; ++k) {
      double place = uniform[3 * b + k] * (whole - taken);
      for (int i = 0; i < k; ++i) {
        if (place >= ends[gone[i]] - weight[gone[i]]) place += weight[gone[i]];
      }
      const int64_t found = std::upper_bound(ends, ends + points, place) - ends;
      triplet[k] = std::min(found, points - 1);
      taken += weight[triplet[k]];
      if (k < 2) gone[k] = triplet[k];
      if (k == 1 && gone[1] < gone[0]) std::swap(gone[0], gone[1]);
    }
  }
}

void project_points(int64_t poses, int64_t points, const double* T, const double* points_, const Camera& camera, double* pixels,
                    uint8_t* valid, int threads) {
  const Projection<double> projection(camera);
#pragma omp parallel for num_threads(threads) schedule(static) if (poses * points > 8192)
  for (int64_t job = 0; job < poses * points; ++job) {
    const Pose<double> pose(T + 16 * (job / points));
    valid[job] = project(projection, pose, points_ + 3 * (job % points), pixels + 2 * job);
  }
}

}  // namespace nre
