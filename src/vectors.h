// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Vectors of floats as wide as the processor's registers, by the vector extensions of GCC and Clang. The files that include
// this one are compiled once for each instruction set. Nothing in them may have external linkage except in NRE_TARGET, nor
// come from the standard library's templates: the linker keeps one copy of a function, and must not keep one that only newer
// processors can run.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(LANES * sizeof(float))));
typedef float Unaligned __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }
inline Vector fill(float value) { return value - Vector{}; }
// 0, 1, 2, ...
inline Vector counting() {
  Vector result;
  for (int k = 0; k < LANES; ++k) result[k] = float(k);
  return result;
}
// A NaN in the first argument stays.
inline Vector lower(Vector a, Vector b) { return b < a ? b : a; }
inline Vector higher(Vector a, Vector b) { return b > a ? b : a; }

// The sum of the lanes, always in the same order: halves are added to each other.
inline float total(Vector value) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#if defined(__AVX512F__)
  value += __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  value += __builtin_shufflevector(value, value, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  value += __builtin_shufflevector(value, value, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
#elif defined(__AVX2__)
  value += __builtin_shufflevector(value, value, 4, 5, 6, 7, 0, 1, 2, 3);
  value += __builtin_shufflevector(value, value, 2, 3, 0, 1, 6, 7, 4, 5);
#else
  value += __builtin_shufflevector(value, value, 2, 3, 0, 1);
#endif
  return value[0] + value[1];
#else
  float sums[LANES];
  store(sums, value);
  for (int half = LANES / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
  }
  return sums[0];
#endif
}

// Natural exponential, within two units in the last place; 0 below the smallest normal number. The polynomial is that of
// the Cephes library (Moshier), on [-ln 2 / 2, ln 2 / 2].
inline Vector exponential(Vector x) {
  const Vector lowest = fill(-87.3365f);
  const Vector clamped = lower(higher(x, lowest), fill(88.37f));
  const Vector scaled = clamped * 1.44269504088896341f;
  const Vector half = scaled < 0.0f ? fill(-0.5f) : fill(0.5f);
  const Integers power = __builtin_convertvector(scaled + half, Integers);
  const Vector whole = __builtin_convertvector(power, Vector);
  const Vector r = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Integers bits = (power + 127) << 23;
  Vector result;
  Vector scale;
  memcpy(&scale, &bits, sizeof scale);
  result = p * scale;
  return x < lowest ? Vector{} : result;
}

// Memory for intermediate results, on a boundary of 64 bytes. `ok()` is false where there is none left.
template <typename T>
class Scratch {
 public:
  explicit Scratch(size_t count) : data_(nullptr) {
    const size_t bytes = (count * sizeof(T) + 127) / 64 * 64;
    if (posix_memalign(reinterpret_cast<void**>(&data_), 64, bytes) != 0) data_ = nullptr;
  }
  ~Scratch() { free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  bool ok() const { return data_ != nullptr; }
  T* get() { return data_; }
  T& operator[](size_t k) { return data_[k]; }
  const T& operator[](size_t k) const { return data_[k]; }

 private:
  T* data_;
};

inline bool is_nan(float value) { return value != value; }  // std::isnan is a template of the standard library
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace
