// The kernels of a GPU as functions of a CPU: one thread of the grid after the other, each of them
// a warp of its own.

#define ON_GPU
#define __global__
#define __grid_constant__

struct Place {
    unsigned x;
};

static thread_local Place blockIdx, threadIdx, blockDim, gridDim;
static constexpr int warpSize = 1;

template <class T>
T __shfl_xor_sync(unsigned, T part, int) {
    return part;
}

template <class T>
void atomicAdd(T* sum, T part) {
    *sum += part;
}

template <class T>
void atomicMax(T* most, T part) {
    *most = part > *most ? part : *most;
}

#include "pass_list.h"

// Runs a kernel of that name; whether there is one.
extern "C" bool launch(const char* name, unsigned blocks, unsigned threads, void** given) {
    const auto& task = *static_cast<const Task*>(given[0]);
    const auto& floats = *static_cast<const Floats*>(given[1]);
    const auto& ints = *static_cast<const Ints*>(given[2]);
    bool found = false;
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) {
#define RUN_MERGE(pass, ...) \
    if (std::strcmp(name, #pass) == 0) pass##_kernel(task, floats, ints), found = true;
#define RUN_LOOK(pass, ...)            \
    if (std::strcmp(name, #pass) == 0) \
        pass##_kernel(task, floats, ints, *static_cast<int64_t**>(given[3])), found = true;
            MERGES(RUN_MERGE)
            GPU_LOOKS(RUN_LOOK)
        }
    return found;
}
