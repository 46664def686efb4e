// SPDX-FileCopyrightText: 2026 nre_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Perspective-three-point, one triplet at a time: nre_ros/nre/p3p.py has the derivation, the sources and the names.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels.h"

namespace {

struct Vector3 {
  double x, y, z;

  double& operator[](int k) { return (&x)[k]; }
  double operator[](int k) const { return (&x)[k]; }
};

Vector3 operator+(Vector3 a, Vector3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vector3 operator-(Vector3 a, Vector3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Vector3 operator*(double s, Vector3 a) { return {s * a.x, s * a.y, s * a.z}; }
double dot(Vector3 a, Vector3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
double norm(Vector3 a) { return std::sqrt(dot(a, a)); }
Vector3 cross(Vector3 a, Vector3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }

struct Matrix3 {
  Vector3 row[3];

  Vector3 column(int j) const { return {row[0][j], row[1][j], row[2][j]}; }
};

Vector3 operator*(const Matrix3& A, Vector3 v) { return {dot(A.row[0], v), dot(A.row[1], v), dot(A.row[2], v)}; }
Matrix3 combine(double a, const Matrix3& A, double b, const Matrix3& B) {
  return {{a * A.row[0] + b * B.row[0], a * A.row[1] + b * B.row[1], a * A.row[2] + b * B.row[2]}};
}
// A adj(A) = det(A) I: the cross products of the rows are the columns.
Matrix3 adjugate(const Matrix3& A) {
  const Vector3 c0 = cross(A.row[1], A.row[2]), c1 = cross(A.row[2], A.row[0]), c2 = cross(A.row[0], A.row[1]);
  return {{{c0.x, c1.x, c2.x}, {c0.y, c1.y, c2.y}, {c0.z, c1.z, c2.z}}};
}
double trace_of_product(const Matrix3& A, const Matrix3& B) {
  return dot(A.row[0], B.column(0)) + dot(A.row[1], B.column(1)) + dot(A.row[2], B.column(2));
}
double sign(double x) { return x > 0 ? 1.0 : (x < 0 ? -1.0 : x); }

// Real roots of a x^3 + b x^2 + c x + d; one root thrice where only one is real.
void cubic_roots(double a, double b, double c, double d, double (&x)[3]) {
  if (std::abs(a) < 1e-14) a = 1e-14;
  b /= a, c /= a, d /= a;
  const double shift = b / 3, p = c - b * shift, q = 2 * shift * shift * shift - shift * c + d;
  const double discriminant = (q / 2) * (q / 2) + (p / 3) * (p / 3) * (p / 3);
  if (discriminant > 0) {
    const double u = -sign(q) * std::cbrt(std::abs(q) / 2 + std::sqrt(discriminant));
    const double single = u - (u == 0 ? 0.0 : p / (3 * u));
    x[0] = x[1] = x[2] = single - shift;
  } else {
    const double radius = 2 * std::sqrt(std::max(-p / 3, 0.0));
    const double cosine = p * radius != 0 ? 3 * q / (p * radius) : 1.0;
    const double angle = std::acos(std::min(std::max(cosine, -1.0), 1.0)) / 3;
    for (int k = 0; k < 3; ++k) x[k] = radius * std::cos(angle - k * (2 * M_PI / 3)) - shift;
  }
  for (double& root : x) {
    for (int step = 0; step < 2; ++step) {
      const double value = ((root + b) * root + c) * root + d, slope = (3 * root + 2 * b) * root + c;
      if (std::abs(slope) > 1e-12) root -= value / slope;
    }
  }
}

// The member C1 + g C2 of the pencil that is a pair of real lines.
Matrix3 degenerate_member(const Matrix3& C1, const Matrix3& C2) {
  const Matrix3 adj1 = adjugate(C1), adj2 = adjugate(C2);
  double roots[3];
  cubic_roots(trace_of_product(adj2, C2) / 3, trace_of_product(adj2, C1), trace_of_product(adj1, C2),
              trace_of_product(adj1, C1) / 3, roots);
  Matrix3 best = {};
  double clearest = 0.0;
  for (int k = 0; k < 3; ++k) {
    Matrix3 member = combine(1.0, C1, roots[k], C2);
    const double size = std::sqrt(dot(member.row[0], member.row[0]) + dot(member.row[1], member.row[1]) +
                                  dot(member.row[2], member.row[2]));
    const double scale = size < 1e-30 ? 1e-30 : size;
    for (Vector3& row : member.row) row = {row.x / scale, row.y / scale, row.z / scale};
    const Matrix3 adj = adjugate(member);
    double realness = -std::min({adj.row[0].x, adj.row[1].y, adj.row[2].z});
    if (std::isnan(realness)) realness = -1.0;
    if (k == 0 || realness > clearest) clearest = realness, best = member;
  }
  return best;
}

// Splits a pair of lines; false where they are not real.
bool split(const Matrix3& C, Vector3 (&lines)[2]) {
  const Matrix3 adj = adjugate(C);
  const double diagonal[3] = {-adj.row[0].x, -adj.row[1].y, -adj.row[2].z};
  int largest = 0;
  for (int k = 1; k < 3; ++k) {
    if (diagonal[k] > diagonal[largest]) largest = k;
  }
  const double pivot = diagonal[largest], root = std::sqrt(std::max(pivot, 1e-30));
  const Vector3 column = adj.column(largest), point = {-column.x / root, -column.y / root, -column.z / root};
  const Matrix3 skew = {{{0, -point.z, point.y}, {point.z, 0, -point.x}, {-point.y, point.x, 0}}};
  const Matrix3 N = combine(1.0, C, 1.0, skew);
  int i = 0, j = 0;
  for (int k = 1; k < 9; ++k) {
    if (std::abs(N.row[k / 3][k % 3]) > std::abs(N.row[i][j])) i = k / 3, j = k % 3;
  }
  lines[0] = N.row[i];
  lines[1] = N.column(j);
  return pivot > -1e-12;
}

Vector3 unit(Vector3 a) {
  const double length = std::max(norm(a), 1e-30);
  return {a.x / length, a.y / length, a.z / length};
}

// Where a line meets a conic: two points, and whether they are real.
void meet(Vector3 line, const Matrix3& C, Vector3 (&points)[2], bool (&real)[2]) {
  line = unit(line);
  int least = 0;
  for (int k = 1; k < 3; ++k) {
    if (std::abs(line[k]) < std::abs(line[least])) least = k;
  }
  Vector3 axis = {0, 0, 0};
  axis[least] = 1.0;
  const Vector3 u = unit(cross(line, axis)), v = cross(line, u);
  const double a = dot(u, C * u), b = dot(u, C * v), c = dot(v, C * v), discriminant = b * b - a * c;
  const bool meets = discriminant > -1e-9 * (b * b + std::abs(a * c));
  const double root = std::sqrt(std::max(discriminant, 0.0)), w = -(b + (b < 0 ? -root : root));
  points[0] = w * u + a * v;
  points[1] = c * u + w * v;
  for (int k = 0; k < 2; ++k) {
    const double length = norm(points[k]);
    real[k] = meets && length > 1e-30;
    points[k] = unit(points[k]);
  }
}

constexpr int FIRST[3] = {0, 0, 1}, SECOND[3] = {1, 2, 2};

double residual(Vector3 d, Vector3 cosines, Vector3 squared, int k) {
  const double di = d[FIRST[k]], dj = d[SECOND[k]];
  return di * di + dj * dj - 2 * cosines[k] * di * dj - squared[k];
}

double finite_or_zero(double value) { return std::isfinite(value) ? value : 0.0; }

Vector3 polish(Vector3 d, Vector3 cosines, Vector3 squared) {
  for (int step = 0; step < 4; ++step) {
    const double r1 = residual(d, cosines, squared, 0), r2 = residual(d, cosines, squared, 1);
    const double r3 = residual(d, cosines, squared, 2);
    const double a1 = 2 * (d.x - cosines.x * d.y), a2 = 2 * (d.y - cosines.x * d.x);
    const double b1 = 2 * (d.x - cosines.y * d.z), b3 = 2 * (d.z - cosines.y * d.x);
    const double e2 = 2 * (d.y - cosines.z * d.z), e3 = 2 * (d.z - cosines.z * d.y);
    const double lower = r2 * e3 - b3 * r3, determinant = -(a1 * b3 * e2 + a2 * b1 * e3);
    Vector3 move = {finite_or_zero((-r1 * b3 * e2 - a2 * lower) / determinant),
                    finite_or_zero((a1 * lower - r1 * b1 * e3) / determinant),
                    finite_or_zero((r1 * b1 * e2 - a1 * r2 * e2 - a2 * b1 * r3) / determinant)};
    const double limit = 0.5 * norm(d), length = std::max(norm(move), 1e-30);
    d = d - std::min(limit / length, 1.0) * move;
  }
  return d;
}

// Axes spanned by a triangle, as columns; false where it spans none.
bool triangle_frame(const Vector3* corners, Matrix3& frame) {
  const Vector3 a = corners[1] - corners[0], normal = cross(a, corners[2] - corners[0]);
  const Vector3 x = unit(a), z = unit(normal), y = cross(z, x);
  frame = {{{x.x, y.x, z.x}, {x.y, y.y, z.y}, {x.z, y.z, z.z}}};
  return norm(a) > 1e-12 && norm(normal) > 1e-12;
}

// Motion that takes points onto distances along rays.
bool pose_from_distances(Vector3 d, const Vector3* rays, const Vector3* points, const Matrix3& frame_map, double scale,
                         double* T) {
  const Vector3 seen[3] = {d.x * rays[0], d.y * rays[1], d.z * rays[2]};
  Matrix3 frame_cam;
  const bool rigid = triangle_frame(seen, frame_cam);
  const Vector3 centre_cam = (1.0 / 3.0) * (seen[0] + seen[1] + seen[2]);
  const Vector3 centre_map = (1.0 / 3.0) * (points[0] + points[1] + points[2]);
  bool finite = true;
  for (int i = 0; i < 3; ++i) {
    Vector3 row;
    for (int j = 0; j < 3; ++j) row[j] = dot(frame_cam.row[i], frame_map.row[j]);
    const double t = scale * (centre_cam[i] - dot(row, centre_map));
    for (int j = 0; j < 3; ++j) T[4 * i + j] = row[j];
    T[4 * i + 3] = t;
    finite = finite && std::isfinite(row.x) && std::isfinite(row.y) && std::isfinite(row.z) && std::isfinite(t);
  }
  return rigid && finite;
}

void identity(double* T) {
  for (int k = 0; k < 16; ++k) T[k] = k % 5 ? 0.0 : 1.0;
}

void solve_one(const Vector3* rays, const Vector3* given, double* T, uint8_t* valid) {
  for (int k = 0; k < 4; ++k) identity(T + 16 * k), valid[k] = 0;
  const Vector3 a = given[1] - given[0], b = given[2] - given[0];
  const double size = std::max({norm(a), norm(b), norm(a - b)});
  if (!(norm(cross(a, b)) > 1e-9 * size * size)) return;
  Vector3 points[3], cosines, squared;
  for (int k = 0; k < 3; ++k) points[k] = {given[k].x / size, given[k].y / size, given[k].z / size};
  Matrix3 M[3] = {};
  for (int k = 0; k < 3; ++k) {
    const int i = FIRST[k], j = SECOND[k];
    const Vector3 side = points[i] - points[j];
    cosines[k] = dot(rays[i], rays[j]);
    squared[k] = dot(side, side);
    M[k].row[i][i] = M[k].row[j][j] = 1.0;
    M[k].row[i][j] = M[k].row[j][i] = -cosines[k];
  }
  const Matrix3 C1 = combine(squared.z, M[0], -squared.x, M[2]), C2 = combine(squared.z, M[1], -squared.y, M[2]);
  Vector3 lines[2], directions[4];
  bool meets[4];
  if (!split(degenerate_member(C1, C2), lines)) return;
  for (int line = 0; line < 2; ++line) {
    Vector3 two[2];
    bool real[2];
    meet(lines[line], C1, two, real);
    for (int k = 0; k < 2; ++k) directions[2 * line + k] = two[k], meets[2 * line + k] = real[k];
  }
  Matrix3 sum = combine(1.0, M[0], 1.0, M[1]), frame_map;
  sum = combine(1.0, sum, 1.0, M[2]);
  triangle_frame(points, frame_map);
  for (int k = 0; k < 4; ++k) {
    Vector3 d = directions[k];
    const double quadric = dot(d, sum * d);
    if (!meets[k] || !(quadric > 1e-12)) continue;
    const double length = std::sqrt((squared.x + squared.y + squared.z) / quadric);
    d = polish((d.x + d.y + d.z < 0 ? -length : length) * d, cosines, squared);
    double worst = 0.0;
    for (int pair = 0; pair < 3; ++pair) worst = std::max(worst, std::abs(residual(d, cosines, squared, pair)));
    if (!(d.x > 0 && d.y > 0 && d.z > 0 && worst < 1e-6)) continue;
    if (pose_from_distances(d, rays, points, frame_map, size, T + 16 * k)) {
      valid[k] = 1;
    } else {
      identity(T + 16 * k);
    }
  }
}

}  // namespace

namespace nre {

void solve_p3p(int64_t count, const double* rays, const double* points, double* T, uint8_t* valid, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (count > 16)
  for (int64_t n = 0; n < count; ++n) {
    Vector3 r[3], p[3];
    for (int k = 0; k < 3; ++k) {
      const double* ray = rays + 9 * n + 3 * k;
      const double* point = points + 9 * n + 3 * k;
      r[k] = {ray[0], ray[1], ray[2]};
      p[k] = {point[0], point[1], point[2]};
    }
    solve_one(r, p, T + 64 * n, valid + 4 * n);
  }
}

}  // namespace nre
