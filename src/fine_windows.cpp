// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Fine loss windows: `window_correlations` and `fine_maps` in nre_ros/nre/fine.py.
#include "kernels.h"
#include "vectors.h"

namespace {

constexpr int64_t CUBIC_REACH = 2;

inline int64_t clamped(int64_t value, int64_t last) { return value < 0 ? 0 : (value > last ? last : value); }

// out [rows, columns] = a [rows, inner] b [inner, columns], with rows of b and out padded to `stride`
inline void multiply(const float* a, const float* b, int64_t rows, int64_t inner, int64_t stride, float* out) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < stride; j += LANES) {
      Vector sum = {};
      for (int64_t k = 0; k < inner; ++k) sum += load(b + k * stride + j) * a[i * inner + k];
      store(out + i * stride + j, sum);
    }
  }
}

}  // namespace

namespace nre {
namespace NRE_TARGET {

Outcome fine_windows(const FineWindows& task, int threads) {
  const int64_t side = task.side, inner = task.reach_side, channels = task.channels;
  const int64_t inner_stride = (inner + LANES - 1) / LANES * LANES, stride = (side + LANES - 1) / LANES * LANES;
  const int64_t whole = channels / LANES * LANES, reach = task.half + CUBIC_REACH;
  Scratch<float> cubic_t(inner * stride);  // cubic', [inner, stride]
  if (!cubic_t.ok()) return Outcome::NO_MEMORY;
  for (int64_t k = 0; k < inner; ++k) {
    for (int64_t j = 0; j < stride; ++j) cubic_t[k * stride + j] = j < side ? task.cubic[j * inner + k] : 0.0f;
  }
  bool enough = true, finite = true;
#pragma omp parallel num_threads(threads)
  {
    Scratch<float> window(inner * inner_stride), tall(side * inner_stride), values(side * stride);
    const bool mine = window.ok() && tall.ok() && values.ok();
    if (!mine) {
#pragma omp atomic write
      enough = false;
    } else {
      memset(window.get(), 0, inner * inner_stride * sizeof(float));
    }
#pragma omp for schedule(static)
    for (int64_t n = 0; n < task.points; ++n) {
      if (!mine) continue;
      const float* descriptor = task.descriptors + n * channels;
      const int64_t x = task.centre[2 * n] - reach, y = task.centre[2 * n + 1] - reach;
      for (int64_t j = 0; j < inner; ++j) {
        const float* row = task.features + clamped(y + j, task.height - 1) * task.width * channels;
        for (int64_t i = 0; i < inner; ++i) {
          const float* cell = row + clamped(x + i, task.width - 1) * channels;
          Vector sum = {};
          for (int64_t c = 0; c < whole; c += LANES) sum += load(cell + c) * load(descriptor + c);
          float rest = 0.0f;
          for (int64_t c = whole; c < channels; ++c) rest += cell[c] * descriptor[c];
          window[j * inner_stride + i] = total(sum) + rest;
        }
      }
      multiply(task.cubic, window.get(), side, inner, inner_stride, tall.get());
      // the second product has the same shape with the transposed matrix
      for (int64_t j = 0; j < side; ++j) {
        for (int64_t i = 0; i < stride; i += LANES) {
          Vector sum = {};
          for (int64_t k = 0; k < inner; ++k) sum += load(&cubic_t[k * stride + i]) * tall[j * inner_stride + k];
          store(&values[j * stride + i], sum * (1.0f / task.temperature));
        }
      }
      float largest = -INFINITY;
      for (int64_t j = 0; j < side; ++j) {
        for (int64_t i = 0; i < side; ++i) {
          const float value = values[j * stride + i];
          largest = value > largest || is_nan(value) ? value : largest;
        }
      }
      if (!(fabsf(largest) < INFINITY)) {
#pragma omp atomic write
        finite = false;
      }
      float mass = 0.0f;
      for (int64_t j = 0; j < side; ++j) {
        int64_t i = 0;
        Vector sum = {};
        for (; i + LANES <= side; i += LANES) sum += exponential(load(&values[j * stride + i]) - largest);
        mass += total(sum);
        for (; i < side; ++i) mass += expf(values[j * stride + i] - largest);
      }
      const float shift = task.offset[n] - largest - logf(mass);
      float* out = task.values + n * side * side;
      for (int64_t j = 0; j < side; ++j) {
        for (int64_t i = 0; i < side; ++i) {
          const float value = values[j * stride + i] + shift;
          out[j * side + i] = value < 0.0f ? 0.0f : value;
        }
      }
    }
  }
  return !enough ? Outcome::NO_MEMORY : (finite ? Outcome::DONE : Outcome::NOT_FINITE);
}

}  // namespace NRE_TARGET
}  // namespace nre
