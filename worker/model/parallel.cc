#include "worker/model/parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <exception>

namespace latentforge::model {

#ifdef _OPENMP

void ParallelFor(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body) {
  std::exception_ptr first;
#pragma omp parallel
  {
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    const int64_t begin = count * thread / threads, end = count * (thread + 1) / threads;
    try {
      if (begin < end) body(begin, end);
    } catch (...) {  // none may leave the region
#pragma omp critical
      if (!first) first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
}

#else

void ParallelFor(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body) {
  if (count > 0) body(0, count);
}

#endif

}  // namespace latentforge::model
