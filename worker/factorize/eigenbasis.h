// Eigenbases with a reproducible order and sign, and the unit-RMS gauge of latents:
// shared by the decompositions.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace latentforge::factorize {

struct Eigenbasis {
  std::vector<double> values;  // descending, never negative
  at::Tensor vectors;          // [m, m], columns in the order of `values`
};

// Of a finite symmetric fp64 matrix. Negative eigenvalues, which moments have
// only by rounding, count as 0. The largest entry of each vector is positive.
Eigenbasis DescendingEigenbasis(const at::Tensor& symmetric);

// Its values alone, which take a third of the time.
std::vector<double> DescendingEigenvalues(const at::Tensor& symmetric);

// The elements of an fp64 tensor, row by row.
std::vector<double> ToVector(const at::Tensor& tensor);

// The root mean squares of the first `rank` latents, given E c_i^2, as a tensor
// [rank] like `like`. Latents far quieter than the loudest get a lower bound, and
// 1 stands for all of them when all are silent, so that they can be divided by.
at::Tensor LatentScales(const std::vector<double>& energy, int64_t rank, const at::Tensor& like);

}  // namespace latentforge::factorize
