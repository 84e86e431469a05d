// The passes by name: as a call each on a CPU (library.cpp), as a kernel each on a GPU.

#pragma once

#include "entrywise_kernels.h"
#include "reduction_kernels.h"
#include "task_vectors.h"

// Calls PASS(name, function) for each that writes an output.
#define MERGES(PASS)                                \
    PASS(weighted_sum, weighted_sum)                \
    PASS(whole_sum, task_vectors<Whole, Sum>)       \
    PASS(trimmed_vote, task_vectors<Trimmed, Consensus>) \
    PASS(banded_sum, task_vectors<Banded, Sum>)     \
    PASS(banded_vote, task_vectors<Banded, Consensus>) \
    PASS(dropped_sum, task_vectors<Dropped, Sum>)   \
    PASS(dropped_vote, task_vectors<Dropped, Consensus>) \
    PASS(ranked_sum, task_vectors<Ranked, Sum>)     \
    PASS(ranked_vote, task_vectors<Ranked, Consensus>) \
    PASS(ram_mean, ram_mean)                        \
    PASS(sce_mean, sce<false>)                      \
    PASS(sce_selected, sce<true>)                   \
    PASS(near_pair, near_pair)

// Calls PASS(name, function, each, more) for each that finds so many numbers for each tensor, and
// so many more. What is not among the first ones runs on CPUs only.
#define GPU_LOOKS(PASS)                  \
    PASS(kept_norm, kept_norm, 0, 2)     \
    PASS(ranked_norm, ranked_norm, 0, 2) \
    PASS(seal, seal, 0, 3)
#define LOOKS(PASS) GPU_LOOKS(PASS) PASS(overlaps, overlaps, 2, -2)

#ifdef ON_GPU

struct Floats {
    float at[FLOAT_ROWS * MOST_INPUTS];
};

struct Ints {
    int32_t at[INT_ROWS * MOST_INPUTS];
};

#define GIVEN \
    const __grid_constant__ Task task, const __grid_constant__ Floats floats, \
        const __grid_constant__ Ints ints
#define MERGE(name, ...)                                      \
    extern "C" __global__ void name##_kernel(GIVEN) {         \
        __VA_ARGS__(task, Table{floats.at, ints.at, task.inputs}); \
    }
#define LOOK(name, function, each, more)                          \
    extern "C" __global__ void name##_kernel(GIVEN, int64_t* found) { \
        function(task, Table{floats.at, ints.at, 1}, found);      \
    }

MERGES(MERGE)
GPU_LOOKS(LOOK)

#endif
