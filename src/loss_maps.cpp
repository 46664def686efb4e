// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// NRE maps with reciprocal matching: `reciprocal_loss` in nre_ros/nre/maps.py has the equations and the names.
#include "kernels.h"
#include "vectors.h"

namespace {

using nre::LossMaps;
using nre::PeakHeights;

// A tile of the matrix product stays in registers: ROWS x VECTORS accumulators.
#if defined(__AVX512F__)
constexpr int ROWS = 8, VECTORS = 3;
#elif defined(__AVX2__)
constexpr int ROWS = 4, VECTORS = 3;
#elif defined(__aarch64__)
constexpr int ROWS = 8, VECTORS = 3;
#else
constexpr int ROWS = 4, VECTORS = 2;
#endif
constexpr int PANEL = VECTORS * LANES;
constexpr int64_t BLOCK = 10 * PANEL;  // cells whose sums are kept together
constexpr int64_t PART = 512;         // cells of a finished map that are searched for the smallest at once
constexpr float TINY = 1e-36f, LARGEST_EXPONENT = 80.0f;

// Rows of descriptors / temperature, ROWS of them side by side for each channel; missing rows are zero.
void pack_rows(const float* rows, int64_t count, int64_t channels, float scale, float* packed) {
  for (int64_t first = 0; first < count; first += ROWS) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t k = 0; k < ROWS; ++k) {
        *packed++ = first + k < count ? rows[(first + k) * channels + c] * scale : 0.0f;
      }
    }
  }
}

int64_t packed_size(int64_t count, int64_t channels) { return (count + ROWS - 1) / ROWS * ROWS * channels; }

// One panel of cells [channels, PANEL]; missing cells are zero.
void pack_cells(const float* features, int64_t channels, int64_t cells, int64_t first, float* panel) {
  const int64_t held = smaller(PANEL, cells - first);
  for (int64_t c = 0; c < channels; ++c) {
    const float* from = features + c * cells + first;
    for (int64_t k = 0; k < held; ++k) panel[k] = from[k];
    for (int64_t k = held; k < PANEL; ++k) panel[k] = 0.0f;
    panel += PANEL;
  }
}

// The products of ROWS rows with a panel, [ROWS, PANEL]. Never inlined: what surrounds a call would take registers away
// from the accumulators.
__attribute__((noinline)) void multiply(const float* rows, const float* panel, int64_t channels, float* z) {
  Vector sums[ROWS][VECTORS] = {};
  for (int64_t c = 0; c < channels; ++c) {
    Vector x[VECTORS];
    for (int j = 0; j < VECTORS; ++j) x[j] = load(panel + c * PANEL + j * LANES);
    for (int i = 0; i < ROWS; ++i) {
      const Vector d = fill(rows[c * ROWS + i]);
      for (int j = 0; j < VECTORS; ++j) sums[i][j] += d * x[j];
    }
  }
  for (int i = 0; i < ROWS; ++i) {
    for (int j = 0; j < VECTORS; ++j) store(z + i * PANEL + j * LANES, sums[i][j]);
  }
}

float largest_norm(const float* rows, int64_t count, int64_t channels) {
  float largest = 0.0f;
  for (int64_t n = 0; n < count; ++n) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < channels; ++c) sum += rows[n * channels + c] * rows[n * channels + c];
    largest = sum > largest || is_nan(sum) ? sum : largest;
  }
  return sqrtf(largest);
}

float largest_cell_norm(const float* features, int64_t channels, int64_t cells, float* squares) {
  memset(squares, 0, cells * sizeof(float));
  for (int64_t c = 0; c < channels; ++c) {
    const float* row = features + c * cells;
    for (int64_t x = 0; x < cells; ++x) squares[x] += row[x] * row[x];
  }
  float largest = 0.0f;
  for (int64_t x = 0; x < cells; ++x) largest = squares[x] > largest || is_nan(squares[x]) ? squares[x] : largest;
  return sqrtf(largest);
}

// What the blocks of cells know of each point: sums of e^2 / norm, times r, times z.
struct Sums {
  float mass, reverse, moment;
};

// The same before the lanes of a vector are added.
struct LaneSums {
  Vector mass, reverse, moment;
};

class KeyframeMaps {
 public:
  KeyframeMaps(const LossMaps& task, int64_t keyframe, int64_t first, const float* rows, const float* background, float bound)
      : task_(task), first_(first), count_(task.counts[keyframe]), rows_(rows), background_(background), bound_(bound),
        weight_(task.backgrounds ? float(task.background_cells[keyframe]) / float(task.backgrounds) : 0.0f) {}

  // Writes r - 2 z into the maps of one block of cells, and the sums of each point.
  void block(int64_t begin, float* panel, float* z_tile, float* e_tile, LaneSums* lanes, Sums* sums) const {
    const int64_t cells = task_.height * task_.width, end = smaller(begin + BLOCK, cells);
    memset(lanes, 0, count_ * sizeof(LaneSums));
    for (int64_t x = begin; x < end; x += PANEL) {
      pack_cells(task_.features, task_.channels, cells, x, panel);
      one_panel(x, smaller(PANEL, end - x), panel, z_tile, e_tile, lanes);
    }
    for (int64_t n = 0; n < count_; ++n) {
      sums[n] = Sums{total(lanes[n].mass), total(lanes[n].reverse), total(lanes[n].moment)};
    }
  }

 private:
  void one_panel(int64_t x, int64_t held, const float* panel, float* z_tile, float* e_tile, LaneSums* lanes) const {
    const int64_t cells = task_.height * task_.width;
    Vector total_[VECTORS] = {}, sampled[VECTORS] = {};
    float z[ROWS * PANEL];
    for (int64_t n = 0; n < count_; n += ROWS) {
      const int64_t rows = smaller(ROWS, count_ - n);
      // fetched while the processor multiplies: the maps are written below, each row on a page of its own
      for (int64_t i = 0; i < rows; ++i) {
        const float* out = task_.loss + (first_ + n + i) * cells + x;
        for (int64_t k = 0; k < held; k += 16) __builtin_prefetch(out + k, 1, 2);
      }
      multiply(rows_ + n * task_.channels, panel, task_.channels, z);
      for (int64_t i = 0; i < rows; ++i) {
        for (int j = 0; j < VECTORS; ++j) {
          const Vector shifted = load(z + i * PANEL + j * LANES) - bound_, e = exponential(shifted);
          store(z_tile + (n + i) * PANEL + j * LANES, shifted);
          store(e_tile + (n + i) * PANEL + j * LANES, e);
          total_[j] += e;
        }
      }
    }
    for (int64_t n = 0; n < task_.backgrounds; n += ROWS) {
      multiply(background_ + n * task_.channels, panel, task_.channels, z);
      const int64_t rows = smaller(ROWS, task_.backgrounds - n);
      for (int64_t i = 0; i < rows; ++i) {
        for (int j = 0; j < VECTORS; ++j) sampled[j] += exponential(load(z + i * PANEL + j * LANES) - bound_);
      }
    }
    float weight[PANEL], reverse[PANEL];
    for (int j = 0; j < VECTORS; ++j) store(reverse + j * LANES, total_[j] + sampled[j] * weight_);
    for (int64_t k = 0; k < PANEL; ++k) {
      const float normaliser = reverse[k] < TINY ? TINY : reverse[k];
      weight[k] = k < held ? 1.0f / normaliser : 0.0f;
      reverse[k] = logf(normaliser);
    }
    for (int64_t n = 0; n < count_; ++n) {
      float* out = task_.loss + (first_ + n) * cells + x;
      LaneSums sums = lanes[n];
      float spill[PANEL];
      for (int j = 0; j < VECTORS; ++j) {
        const Vector z_n = load(z_tile + n * PANEL + j * LANES), e = load(e_tile + n * PANEL + j * LANES);
        const Vector r = load(reverse + j * LANES), part = e * e * load(weight + j * LANES);
        sums.mass += part;
        sums.reverse += part * r;
        sums.moment += part * z_n;
        const Vector value = r - z_n * 2.0f;
        if (held == PANEL) {
          store(out + j * LANES, value);
        } else {
          store(spill + j * LANES, value);
        }
      }
      if (held < PANEL) memcpy(out, spill, held * sizeof(float));
      lanes[n] = sums;
    }
  }

  const LossMaps& task_;
  int64_t first_, count_;
  const float* rows_;
  const float* background_;
  float bound_, weight_;
};

// Turns r - 2 z into the loss, and finds the lowest cell and the share of cells below the limit.
void finish_map(const LossMaps& task, int64_t point, const Sums& sums, const int32_t* counted) {
  const int64_t cells = task.height * task.width;
  const float everywhere = float(log(double(cells))), outlier = float(log(double(cells + 1)));
  const bool says_something = sums.mass > TINY;
  const float log_mass = says_something ? logf(sums.mass) : (is_nan(sums.mass) ? sums.mass : INFINITY);
  task.entropy[point] =
      says_something ? log_mass - (2.0f * sums.moment - sums.reverse) / sums.mass : (is_nan(sums.mass) ? sums.mass : everywhere);
  float* loss = task.loss + point * cells;
  const Vector shift = fill(log_mass), limit = fill(outlier);
  float smallest = INFINITY;
  int64_t part = 0;  // where the smallest value lies
  for (int64_t begin = 0; begin < cells; begin += PART) {
    const int64_t end = smaller(begin + PART, cells);
    Vector lowest = fill(INFINITY);
    int64_t x = begin;
    for (; x + LANES <= end; x += LANES) {
      const Vector value = lower(load(loss + x) + shift, limit);
      store(loss + x, value);
      lowest = lower(lowest, value);
    }
    float least = INFINITY, lanes[LANES];
    store(lanes, lowest);
    for (int k = 0; k < LANES; ++k) least = lanes[k] < least ? lanes[k] : least;
    for (; x < end; ++x) {
      const float value = loss[x] + log_mass;
      loss[x] = value > outlier ? outlier : value;
      least = loss[x] < least ? loss[x] : least;
    }
    if (least < smallest) smallest = least, part = begin;
  }
  int64_t where = part;
  const int64_t end = smaller(part + PART, cells);
  while (where + 1 < end && loss[where] != smallest) ++where;
  task.lowest[point] = loss[where];
  task.best[point] = where;
  int64_t matches = 0, rows = 0;
  for (int64_t row = 0; row < task.height; row += task.rate_stride, ++rows) {
    const float* values = loss + row * task.width;
    int32_t found = 0;
    for (int64_t x = 0; x < task.width; ++x) found += (values[x] < task.match_limit) & counted[x];
    matches += found;
  }
  const int64_t columns = (task.width + task.rate_stride - 1) / task.rate_stride;
  task.match_rate[point] = float(matches) / float(rows * columns);
}

}  // namespace

namespace nre {
namespace NRE_TARGET {

Outcome loss_maps(const LossMaps& task, int threads) {
  const int64_t cells = task.height * task.width, blocks = (cells + BLOCK - 1) / BLOCK;
  const float scale = 1.0f / task.temperature;
  int64_t most = 0, rows_size = 0;
  for (int64_t k = 0; k < task.keyframes; ++k) {
    most = larger(most, task.counts[k]);
    rows_size += packed_size(task.counts[k], task.channels);
  }
  const int64_t background_size = packed_size(task.backgrounds, task.channels);
  Scratch<float> rows(rows_size), background(background_size * task.keyframes), squares(cells), bounds(task.keyframes);
  Scratch<int64_t> first(task.keyframes), first_row(task.keyframes);
  Scratch<Sums> sums(blocks * task.points);
  if (!(rows.ok() && background.ok() && squares.ok() && bounds.ok() && first.ok() && first_row.ok() && sums.ok())) return Outcome::NO_MEMORY;
  const float largest = largest_cell_norm(task.features, task.channels, cells, squares.get());
  int64_t point = 0, row = 0;
  for (int64_t k = 0; k < task.keyframes; ++k) {
    first[k] = point, first_row[k] = row;
    point += task.counts[k], row += packed_size(task.counts[k], task.channels);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < task.keyframes; ++k) {
    const float* mine = task.descriptors + first[k] * task.channels;
    const float* others = task.background + k * task.backgrounds * task.channels;
    const float a = largest_norm(mine, task.counts[k], task.channels);
    const float b = largest_norm(others, task.backgrounds, task.channels);
    bounds[k] = (b > a || is_nan(b) ? b : a) * largest * scale;
    pack_rows(mine, task.counts[k], task.channels, scale, &rows[first_row[k]]);
    pack_rows(others, task.backgrounds, task.channels, scale, background.get() + k * background_size);
  }
  for (int64_t k = 0; k < task.keyframes; ++k) {
    if (!(bounds[k] >= 0 && bounds[k] < INFINITY)) return Outcome::NOT_FINITE;
  }
  Scratch<int32_t> counted(task.width);
  if (!counted.ok()) return Outcome::NO_MEMORY;
  for (int64_t x = 0; x < task.width; ++x) counted[x] = x % task.rate_stride == 0;
  bool enough = true;
#pragma omp parallel num_threads(threads)
  {
    Scratch<float> panel(task.channels * PANEL), z_tile((most + ROWS) * PANEL), e_tile((most + ROWS) * PANEL);
    Scratch<LaneSums> lanes(most);
    const bool mine = panel.ok() && z_tile.ok() && e_tile.ok() && lanes.ok();
    if (!mine) {
#pragma omp atomic write
      enough = false;
    }
    // keyframe after keyframe: its maps are finished while they are in the cache
    for (int64_t k = 0; k < task.keyframes; ++k) {
      const KeyframeMaps maps(task, k, first[k], &rows[first_row[k]], background.get() + k * background_size, bounds[k]);
#pragma omp for schedule(dynamic)
      for (int64_t block = 0; block < blocks; ++block) {
        Sums* found = &sums[block * task.points + first[k]];
        if (mine) maps.block(block * BLOCK, panel.get(), z_tile.get(), e_tile.get(), lanes.get(), found);
      }
#pragma omp for schedule(static)
      for (int64_t n = first[k]; n < first[k] + task.counts[k]; ++n) {
        Sums all = {0.0f, 0.0f, 0.0f};
        for (int64_t block = 0; block < blocks; ++block) {
          const Sums& part = sums[block * task.points + n];
          all.mass += part.mass, all.reverse += part.reverse, all.moment += part.moment;
        }
        finish_map(task, n, all, counted.get());
      }
    }
  }
  return enough ? Outcome::DONE : Outcome::NO_MEMORY;
}

Outcome peak_heights(const PeakHeights& task, int threads) {
  const int64_t cells = task.cells, blocks = (cells + BLOCK - 1) / BLOCK;
  const float scale = 1.0f / task.temperature;
  Scratch<float> rows(packed_size(task.points, task.channels)), squares(cells);
  Scratch<float> highest(blocks * task.points), sums(blocks * task.points);
  if (!(rows.ok() && squares.ok() && highest.ok() && sums.ok())) return Outcome::NO_MEMORY;
  pack_rows(task.descriptors, task.points, task.channels, scale, rows.get());
  const float bound = largest_norm(task.descriptors, task.points, task.channels) *
                      largest_cell_norm(task.features, task.channels, cells, squares.get()) * scale;
  // beyond it exponentials leave the range of floats
  if (!(bound >= 0 && 2 * bound < LARGEST_EXPONENT)) return Outcome::NOT_FINITE;
  bool enough = true;
#pragma omp parallel num_threads(threads)
  {
    Scratch<float> panel(task.channels * PANEL);
    Scratch<Vector> high(task.points + ROWS), sum(task.points + ROWS);
    const bool mine = panel.ok() && high.ok() && sum.ok();
    if (!mine) {
#pragma omp atomic write
      enough = false;
    }
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; ++block) {
      if (!mine) continue;
      for (int64_t n = 0; n < task.points + ROWS; ++n) high[n] = fill(-INFINITY), sum[n] = Vector{};
      for (int64_t x = block * BLOCK; x < smaller(cells, (block + 1) * BLOCK); x += PANEL) {
        pack_cells(task.features, task.channels, cells, x, panel.get());
        const int64_t held = smaller(PANEL, cells - x);
        Vector missing[VECTORS] = {};  // lowers the cells beyond the last one, which count for nothing
        for (int j = 0; j < VECTORS; ++j) {
          for (int k = 0; k < LANES; ++k) missing[j][k] = j * LANES + k < held ? 0.0f : -INFINITY;
        }
        float z[ROWS * PANEL];
        for (int64_t n = 0; n < task.points; n += ROWS) {
          multiply(&rows[n * task.channels], panel.get(), task.channels, z);
          for (int i = 0; i < ROWS; ++i) {
            Vector most = high[n + i], added = sum[n + i];
            for (int j = 0; j < VECTORS; ++j) {
              const Vector shifted = load(z + i * PANEL + j * LANES) + missing[j] - bound;
              most = higher(most, shifted);
              added += exponential(shifted);
            }
            high[n + i] = most, sum[n + i] = added;
          }
        }
      }
      for (int64_t n = 0; n < task.points; ++n) {
        float most = -INFINITY;
        for (int k = 0; k < LANES; ++k) most = high[n][k] > most ? high[n][k] : most;
        highest[block * task.points + n] = most;
        sums[block * task.points + n] = total(sum[n]);
      }
    }
  }
  if (!enough) return Outcome::NO_MEMORY;
  for (int64_t n = 0; n < task.points; ++n) {
    float most = -INFINITY, sum = 0.0f;
    for (int64_t block = 0; block < blocks; ++block) {
      const float high = highest[block * task.points + n];
      most = high > most ? high : most;
      sum += sums[block * task.points + n];
    }
    task.height[n] = expf(most) / sum;
  }
  return Outcome::DONE;
}

}  // namespace NRE_TARGET
}  // namespace nre
