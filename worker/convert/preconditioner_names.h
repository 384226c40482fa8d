// latentforge.v1.Preconditioner by its names in the .proto.
#pragma once

#include <array>
#include <optional>
#include <utility>

#include "worker/factorize/preconditioner.h"

namespace latentforge::convert {

// nullopt stands for the Fisher information, which weighs outputs too.
inline constexpr std::array<std::pair<const char*, std::optional<factorize::Preconditioner>>, 8>
    kPreconditionerNames = {{
        {"PRECONDITIONER_UNSPECIFIED", std::nullopt},
        {"PRECONDITIONER_IDENTITY", factorize::Preconditioner::kIdentity},
        {"PRECONDITIONER_DIAGONAL_L1", factorize::Preconditioner::kDiagonalL1},
        {"PRECONDITIONER_DIAGONAL_L2", factorize::Preconditioner::kDiagonalL2},
        {"PRECONDITIONER_DIAGONAL_HESSIAN", factorize::Preconditioner::kDiagonalHessian},
        {"PRECONDITIONER_COVARIANCE", factorize::Preconditioner::kCovariance},
        {"PRECONDITIONER_ROOT_COVARIANCE", factorize::Preconditioner::kRootCovariance},
        {"PRECONDITIONER_FISHER", std::nullopt},
    }};

}  // namespace latentforge::convert
