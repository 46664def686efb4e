// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// The Python module nre_ros._operators: checks arrays, and calls the kernels of the best instruction set that the processor
// has. nre_ros/nre/native.py is its only user. Whatever is refused here (ValueError, IndexError, TypeError) goes to the
// references in torch, which answer or raise their own error.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace py = pybind11;

namespace nre {

#define NRE_DECLARE(target)                              \
  namespace target {                                     \
  Outcome loss_maps(const LossMaps&, int threads);       \
  Outcome peak_heights(const PeakHeights&, int threads); \
  Outcome mean_losses(const MeanLosses&, int threads);   \
  Outcome refine(const Refinement&, int threads);        \
  Outcome window_moments(const Moments&, int threads);   \
  Outcome fine_windows(const FineWindows&, int threads); \
  }
#define NRE_KERNELS(target) \
  Kernels{#target,        target::loss_maps,      target::peak_heights, target::mean_losses, \
          target::refine, target::window_moments, target::fine_windows}

NRE_DECLARE(baseline)
#ifdef NRE_HAS_AVX
NRE_DECLARE(avx2)
NRE_DECLARE(avx512)
#endif

// The sets that this processor can run, best first.
std::vector<Kernels> usable_kernels() {
  std::vector<Kernels> found;
#ifdef NRE_HAS_AVX
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    found.push_back(NRE_KERNELS(avx512));
  }
  if (avx2) found.push_back(NRE_KERNELS(avx2));
#endif
  found.push_back(NRE_KERNELS(baseline));
  return found;
}

}  // namespace nre

namespace {

std::vector<nre::Kernels> usable = nre::usable_kernels();
nre::Kernels kernels = usable.front();

constexpr int64_t LARGEST = int64_t(1) << 40;
constexpr int64_t ANY = -1;

std::string text(const std::vector<int64_t>& shape) {
  std::string joined = "[";
  for (size_t k = 0; k < shape.size(); ++k) {
    joined += (k ? ", " : "") + (shape[k] == ANY ? std::string("any") : std::to_string(shape[k]));
  }
  return joined + "]";
}

// An array without gaps, of one type and shape. ANY stands for any length.
template <typename T>
T* data(const py::array& array, const char* name, const std::vector<int64_t>& shape, bool writeable = false) {
  std::vector<int64_t> found(array.shape(), array.shape() + array.ndim());
  bool fits = found.size() == shape.size();
  for (size_t k = 0; fits && k < shape.size(); ++k) fits = shape[k] == ANY || shape[k] == found[k];
  if (!fits) throw py::value_error(std::string(name) + " has the shape " + text(found) + ", expected " + text(shape));
  if (!py::isinstance<py::array_t<T>>(array)) throw py::type_error(std::string(name) + " has another type of numbers");
  if (!(array.flags() & py::array::c_style)) throw py::value_error(std::string(name) + " has gaps between its numbers");
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) throw py::value_error(std::string(name) + " is not aligned");
  if (writeable && !array.writeable()) throw py::value_error(std::string(name) + " cannot be written");
  return static_cast<T*>(const_cast<void*>(array.data()));
}

void within(int64_t value, int64_t low, int64_t high, const char* name) {
  if (value < low || value > high) {
    throw py::value_error(std::string(name) + " is " + std::to_string(value) + ", expected " + std::to_string(low) + " to " +
                          std::to_string(high));
  }
}

int checked_threads(int threads) { return threads < 1 ? 1 : (threads > 1024 ? 1024 : threads); }

void indices_within(const int64_t* rows, int64_t count, int64_t limit, const char* name) {
  for (int64_t k = 0; k < count; ++k) {
    if (rows[k] < 0 || rows[k] >= limit) {
      throw py::index_error(std::string(name) + " holds " + std::to_string(rows[k]) + ", expected 0 to " + std::to_string(limit - 1));
    }
  }
}

// Refuses NaN, infinity, and what a product in single precision could take there.
void moderate(const double* values, int64_t count, double largest, const char* name) {
  bool fits = true;
  for (int64_t k = 0; k < count; ++k) fits &= std::fabs(values[k]) <= largest;
  if (!fits) throw py::value_error(std::string(name) + " holds a number that is not finite, or too large");
}

constexpr double LARGEST_LENGTH = 1e12, LARGEST_COEFFICIENT = 1e3, SMALLEST = 1e-6, LARGEST_SIGMA = 1e6;

nre::Grid grid_of(double stride, double offset) {
  const double both[2] = {stride, offset};
  moderate(both, 2, LARGEST_LENGTH, "grid");
  if (std::fabs(stride) < SMALLEST) throw py::value_error("the stride of the grid is zero");
  return {stride, offset};
}

void check_sigma(double sigma) {
  if (!(sigma >= SMALLEST && sigma <= LARGEST_SIGMA)) throw py::value_error("a scale is no positive number, or too large");
}

// Poses [poses, 4, 4] and points [points, 3].
void check_geometry(const double* T, int64_t poses, const double* points, int64_t count) {
  moderate(T, 16 * poses, LARGEST_LENGTH, "T");
  moderate(points, 3 * count, LARGEST_LENGTH, "points");
}

nre::Camera camera_of(int model, const std::vector<double>& intrinsics, const std::vector<double>& distortion, double max_radius) {
  if (intrinsics.size() != 4) throw py::value_error("a camera has four intrinsics");
  within(model, nre::PINHOLE, nre::EQUIDISTANT, "camera model");
  within(int64_t(distortion.size()), 0, 8, "number of distortion coefficients");
  moderate(intrinsics.data(), 4, LARGEST_LENGTH, "camera");
  moderate(distortion.data(), int64_t(distortion.size()), LARGEST_COEFFICIENT, "distortion");
  nre::Camera camera = {};
  camera.model = nre::CameraModel(model);
  camera.fx = intrinsics[0], camera.fy = intrinsics[1], camera.cx = intrinsics[2], camera.cy = intrinsics[3];
  for (size_t k = 0; k < distortion.size(); ++k) {
    camera.k[k] = distortion[k];
    camera.distorted = camera.distorted || distortion[k] != 0.0;
  }
  camera.max_radius = max_radius;
  return camera;
}

struct CameraHandle {
  nre::Camera camera;
};

template <typename Task>
void run(nre::Outcome (*kernel)(const Task&, int), const Task& task, int threads) {
  nre::Outcome outcome;
  {
    py::gil_scoped_release release;
    outcome = kernel(task, checked_threads(threads));
  }
  if (outcome == nre::Outcome::NO_MEMORY) throw std::bad_alloc();
  if (outcome == nre::Outcome::NOT_FINITE) throw py::value_error("numbers are not finite, or too large");
}

void loss_maps(py::array descriptors, py::array features, py::array background, py::array counts, py::array background_cells,
               float temperature, float match_limit, int rate_stride, py::array loss, py::array entropy, py::array lowest,
               py::array best, py::array match_rate, int threads) {
  nre::LossMaps task = {};
  if (features.ndim() != 3) throw py::value_error("features are [channels, height, width]");
  task.channels = features.shape(0), task.height = features.shape(1), task.width = features.shape(2);
  if (background.ndim() != 3) throw py::value_error("background is [keyframes, backgrounds, channels]");
  task.keyframes = background.shape(0), task.backgrounds = background.shape(1);
  task.points = descriptors.ndim() ? descriptors.shape(0) : 0;
  within(task.height * task.width, 1, LARGEST, "number of cells");
  within(rate_stride, 1, 1 << 20, "rate_stride");
  task.descriptors = data<float>(descriptors, "descriptors", {task.points, task.channels});
  task.features = data<float>(features, "features", {ANY, ANY, ANY});
  task.background = data<float>(background, "background", {ANY, ANY, task.channels});
  task.counts = data<int64_t>(counts, "counts", {task.keyframes});
  task.background_cells = data<int64_t>(background_cells, "background_cells", {task.keyframes});
  int64_t points = 0;
  for (int64_t k = 0; k < task.keyframes; ++k) {
    within(task.counts[k], 0, task.points, "number of points of a keyframe");
    points += task.counts[k];
  }
  if (points != task.points) throw py::value_error("the counts do not add up to the number of points");
  within(task.keyframes, 1, LARGEST, "number of keyframes");
  for (int64_t k = 0; k < task.keyframes; ++k) within(task.counts[k] + task.backgrounds, 1, LARGEST, "descriptors of a keyframe");
  task.temperature = temperature, task.match_limit = match_limit, task.rate_stride = rate_stride;
  task.loss = data<float>(loss, "loss", {task.points, task.height, task.width}, true);
  task.entropy = data<float>(entropy, "entropy", {task.points}, true);
  task.lowest = data<float>(lowest, "lowest", {task.points}, true);
  task.best = data<int64_t>(best, "best", {task.points}, true);
  task.match_rate = data<float>(match_rate, "match_rate", {task.points}, true);
  run(kernels.loss_maps, task, threads);
}

void peak_heights(py::array descriptors, py::array features, float temperature, py::array height, int threads) {
  nre::PeakHeights task = {};
  if (features.ndim() != 3) throw py::value_error("features are [channels, height, width]");
  task.channels = features.shape(0), task.cells = features.shape(1) * features.shape(2);
  task.points = descriptors.ndim() ? descriptors.shape(0) : 0;
  within(task.cells, 1, LARGEST, "number of cells");
  task.descriptors = data<float>(descriptors, "descriptors", {ANY, task.channels});
  task.features = data<float>(features, "features", {ANY, ANY, ANY});
  task.temperature = temperature;
  task.height = data<float>(height, "height", {task.points}, true);
  run(kernels.peak_heights, task, threads);
}

void mean_losses(py::array T, py::array points, py::array loss, py::array rows, const CameraHandle& camera, double stride,
                 double offset, float outlier_loss, py::array mean, int threads) {
  nre::MeanLosses task = {};
  task.poses = T.ndim() ? T.shape(0) : 0, task.points = points.ndim() ? points.shape(0) : 0;
  if (loss.ndim() != 3) throw py::value_error("loss is [maps, height, width]");
  task.maps = loss.shape(0), task.height = loss.shape(1), task.width = loss.shape(2);
  within(task.height * task.width, 1, LARGEST, "number of cells");
  task.T = data<double>(T, "T", {ANY, 4, 4});
  task.points_ = data<double>(points, "points", {ANY, 3});
  task.loss = data<float>(loss, "loss", {ANY, ANY, ANY});
  task.rows = data<int64_t>(rows, "rows", {task.points});
  indices_within(task.rows, task.points, task.maps, "rows");
  task.camera = camera.camera;
  task.grid = grid_of(stride, offset);
  task.outlier_loss = outlier_loss;
  task.mean = data<double>(mean, "mean", {task.poses}, true);
  check_geometry(task.T, task.poses, task.points_, task.points);
  run(kernels.mean_losses, task, threads);
  moderate(task.mean, task.poses, std::numeric_limits<double>::max(), "mean");  // a map may hold a NaN
}

nre::Windows given_windows(const py::array& values, const py::array& origin, int64_t poses, int64_t points) {
  if (values.ndim() != 4) throw py::value_error("values are [sets, points, side, side]");
  nre::Windows windows = {};
  windows.sets = values.shape(0), windows.side = values.shape(2);
  within(windows.side, 1, LARGEST, "side of a window");
  if (windows.sets != 1 && windows.sets != poses) throw py::value_error("windows are of one pose, or of each pose");
  windows.values = data<float>(values, "values", {ANY, points, ANY, windows.side});
  windows.origin = data<int64_t>(origin, "origin", {windows.sets, points, 2});
  return windows;
}

nre::Refinement refinement(const py::array& T, const py::array& points, const CameraHandle& camera, double stride, double offset,
                           const py::array& sigmas, double gain, const py::array& cost, const py::array& steps) {
  nre::Refinement task = {};
  task.poses = T.ndim() ? T.shape(0) : 0, task.points = points.ndim() ? points.shape(0) : 0;
  task.scales = sigmas.ndim() ? sigmas.shape(0) : 0;
  task.T = data<double>(T, "T", {ANY, 4, 4}, true);
  task.points_ = data<double>(points, "points", {ANY, 3});
  task.camera = camera.camera;
  task.grid = grid_of(stride, offset);
  task.sigmas = data<double>(sigmas, "sigmas", {ANY});
  for (int64_t k = 0; k < task.scales; ++k) {
    check_sigma(task.sigmas[k]);
  }
  task.gain = gain;
  within(task.poses, 1, LARGEST, "number of poses");
  check_geometry(task.T, task.poses, task.points_, task.points);
  task.cost = data<double>(cost, "cost", {task.poses}, true);
  task.steps = data<int64_t>(steps, "steps", {task.poses}, true);
  return task;
}

void refine_in_windows(py::array T, py::array points, const CameraHandle& camera, double stride, double offset, py::array values,
                       py::array origin, py::array sigmas, double gain, py::array cost, py::array steps, int threads) {
  nre::Refinement task = refinement(T, points, camera, stride, offset, sigmas, gain, cost, steps);
  task.windows = given_windows(values, origin, task.poses, task.points);
  run(kernels.refine, task, threads);
}

void refine_in_maps(py::array T, py::array points, const CameraHandle& camera, double stride, double offset, py::array loss,
                    py::array rows, float outlier_loss, py::array sigmas, double gain, py::array cost, py::array steps,
                    int threads) {
  nre::Refinement task = refinement(T, points, camera, stride, offset, sigmas, gain, cost, steps);
  if (loss.ndim() != 3) throw py::value_error("loss is [maps, height, width]");
  task.windows.maps = loss.shape(0), task.windows.height = loss.shape(1), task.windows.width = loss.shape(2);
  task.windows.loss = data<float>(loss, "loss", {ANY, ANY, ANY});
  task.windows.rows = data<int64_t>(rows, "rows", {task.points});
  indices_within(task.windows.rows, task.points, task.windows.maps, "rows");
  task.windows.outlier_loss = outlier_loss;
  for (int64_t k = 0; k < task.scales; ++k) {
    const double side = 6 * task.sigmas[k] + 64;
    if (side * side * double(task.points) > double(LARGEST)) throw py::value_error("the windows of a scale are too large");
  }
  run(kernels.refine, task, threads);
}

void window_moments(py::array T, py::array points, const CameraHandle& camera, double stride, double offset, py::array values,
                    py::array origin, double sigma, py::array moments, py::array jacobian, py::array pixels, int threads) {
  nre::Moments task = {};
  task.poses = T.ndim() ? T.shape(0) : 0, task.points = points.ndim() ? points.shape(0) : 0;
  task.T = data<double>(T, "T", {ANY, 4, 4});
  task.points_ = data<double>(points, "points", {ANY, 3});
  task.camera = camera.camera;
  task.grid = grid_of(stride, offset);
  task.windows = given_windows(values, origin, task.poses, task.points);
  check_sigma(sigma);
  task.sigma = sigma;
  check_geometry(task.T, task.poses, task.points_, task.points);
  task.moments = data<float>(moments, "moments", {task.poses, task.points, 3, 3}, true);
  task.jacobian = data<double>(jacobian, "jacobian", {task.poses, task.points, 2, 6}, true);
  task.pixels = data<double>(pixels, "pixels", {task.poses, task.points, 2}, true);
  run(kernels.window_moments, task, threads);
}

void fine_windows(py::array descriptors, py::array features, py::array centre, py::array cubic, py::array offset,
                  float temperature, int64_t half, py::array values, int threads) {
  nre::FineWindows task = {};
  if (features.ndim() != 3) throw py::value_error("features are [height, width, channels]");
  task.height = features.shape(0), task.width = features.shape(1), task.channels = features.shape(2);
  task.points = descriptors.ndim() ? descriptors.shape(0) : 0;
  within(task.height * task.width, 1, LARGEST, "number of cells");
  within(half, 1, 1 << 12, "half");
  task.half = half, task.reach_side = 2 * (half + 2) + 1;
  task.side = cubic.ndim() ? cubic.shape(0) : 0;
  within(task.side, 1, 1 << 12, "side");
  task.descriptors = data<float>(descriptors, "descriptors", {ANY, task.channels});
  task.features = data<float>(features, "features", {ANY, ANY, ANY});
  task.centre = data<int64_t>(centre, "centre", {task.points, 2});
  for (int64_t k = 0; k < task.points; ++k) {
    within(task.centre[2 * k], half, task.width - 1 - half, "centre");
    within(task.centre[2 * k + 1], half, task.height - 1 - half, "centre");
  }
  task.cubic = data<float>(cubic, "cubic", {ANY, task.reach_side});
  task.offset = data<float>(offset, "offset", {task.points});
  if (!(std::fabs(temperature) > 0)) throw py::value_error("the temperature is zero");
  task.temperature = temperature;
  task.values = data<float>(values, "values", {task.points, task.side, task.side}, true);
  run(kernels.fine_windows, task, threads);
}

void solve_p3p(py::array rays, py::array points, py::array T, py::array valid, int threads) {
  const int64_t count = rays.ndim() ? rays.shape(0) : 0;
  const double* r = data<double>(rays, "rays", {ANY, 3, 3});
  const double* p = data<double>(points, "points", {count, 3, 3});
  double* poses = data<double>(T, "T", {count, 4, 4, 4}, true);
  uint8_t* flags = data<uint8_t>(valid, "valid", {count, 4}, true);
  py::gil_scoped_release release;
  nre::solve_p3p(count, r, p, poses, flags, checked_threads(threads));
}

void draw_weighted_triplets(py::array weight, py::array ends, py::array uniform, py::array drawn) {
  const int64_t points = weight.ndim() ? weight.shape(0) : 0, count = uniform.ndim() ? uniform.shape(0) : 0;
  within(points, 3, LARGEST, "number of points");
  const double* w = data<double>(weight, "weight", {points});
  const double* e = data<double>(ends, "ends", {points});
  const double* u = data<double>(uniform, "uniform", {count, 3});
  moderate(w, points, LARGEST_LENGTH, "weight");
  moderate(u, 3 * count, LARGEST_LENGTH, "uniform");
  for (int64_t k = 0; k < points; ++k) {
    if (w[k] < 0) throw py::value_error("a weight is negative");
  }
  nre::draw_weighted_triplets(points, count, w, e, u, data<int64_t>(drawn, "drawn", {count, 3}, true));
}

void project_points(py::array T, py::array points, const CameraHandle& camera, py::array pixels, py::array valid, int threads) {
  const int64_t poses = T.ndim() ? T.shape(0) : 0, count = points.ndim() ? points.shape(0) : 0;
  const double* t = data<double>(T, "T", {poses, 4, 4});
  const double* p = data<double>(points, "points", {count, 3});
  double* found = data<double>(pixels, "pixels", {poses, count, 2}, true);
  uint8_t* flags = data<uint8_t>(valid, "valid", {poses, count}, true);
  check_geometry(t, poses, p, count);
  py::gil_scoped_release release;
  nre::project_points(poses, count, t, p, camera.camera, found, flags, checked_threads(threads));
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const nre::Kernels& set : usable) names.push_back(set.name);
  return names;
}

void use_instruction_set(const std::string& name) {
  for (const nre::Kernels& set : usable) {
    if (name == set.name) {
      kernels = set;
      return;
    }
  }
  throw py::value_error("this processor has no instruction set " + name);
}

}  // namespace

PYBIND11_MODULE(_operators, module) {
  module.doc() = "Kernels of nre_ros/nre/operators for CPUs.";
  module.attr("INTERFACE") = NRE_INTERFACE;
  py::class_<CameraHandle>(module, "Camera")
      .def(py::init([](int model, const std::vector<double>& intrinsics, const std::vector<double>& distortion, double max_radius) {
        return CameraHandle{camera_of(model, intrinsics, distortion, max_radius)};
      }));
  module.def("instruction_sets", &instruction_sets, "Names of the usable instruction sets, best first.");
  module.def("instruction_set", [] { return std::string(kernels.name); }, "Name of the instruction set in use.");
  module.def("use_instruction_set", &use_instruction_set, "Uses another instruction set, for tests.");
  module.def("loss_maps", &loss_maps);
  module.def("peak_heights", &peak_heights);
  module.def("mean_losses", &mean_losses);
  module.def("refine_in_windows", &refine_in_windows);
  module.def("refine_in_maps", &refine_in_maps);
  module.def("window_moments", &window_moments);
  module.def("fine_windows", &fine_windows);
  module.def("solve_p3p", &solve_p3p);
  module.def("draw_weighted_triplets", &draw_weighted_triplets);
  module.def("project_points", &project_points);
}
