// The passes of merge_kernels.py, entrywise_kernels.py and reduction_kernels.py, and sums and counts for statistics, once more:
// as loops over memory for one CPU.
//
// Same bits as there: every operation of float32 numbers is rounded by itself (the compiler is told
// not to contract multiplications and additions), sums over entries are of whole numbers or in one
// order, and int32 arithmetic wraps. Entries are read in blocks that stay in the first-level cache,
// whatever their dtype, and computed as float32. Functions take plain numbers only, so that nothing
// of torch or Python is needed to compile them; merging/kernels/native/native_library.py says how they are called.

#include <cstdint>
#include <cstring>

#include "entrywise_kernels.h"
#include "entries.h"
#include "reduction_kernels.h"
#include "statistics.h"
#include "task_vectors.h"

namespace {

using Merge = void (*)(const Task&, const Table&);
using Look = void (*)(const Task&, const Table&, int64_t*);

struct NamedMerge {
    const char* name;
    Merge run;
};

struct NamedLook {
    const char* name;
    Look run;
    int64_t each, more;  // it finds so many numbers for each tensor, and so many more
};

const NamedMerge MERGES[] = {
    {"weighted_sum", weighted_sum},
    {"whole_sum", task_vectors<Whole, Sum>},
    {"trimmed_vote", task_vectors<Trimmed, Consensus>},
    {"banded_sum", task_vectors<Banded, Sum>},
    {"banded_vote", task_vectors<Banded, Consensus>},
    {"dropped_sum", task_vectors<Dropped, Sum>},
    {"dropped_vote", task_vectors<Dropped, Consensus>},
    {"ranked_sum", task_vectors<Ranked, Sum>},
    {"ranked_vote", task_vectors<Ranked, Consensus>},
    {"ram_mean", ram_mean},
    {"sce_mean", sce<false>},
    {"sce_selected", sce<true>},
    {"near_pair", near_pair},
};

const NamedLook LOOKS[] = {
    {"kept_norm", kept_norm, 0, 2},
    {"ranked_norm", ranked_norm, 0, 2},
    {"overlaps", overlaps, 2, -2},
    {"seal", seal, 0, 3},
};

}  // namespace

extern "C" {

// Places of the passes by name; -1 where there is none.
int64_t merge_of(const char* name) {
    for (const auto& one : MERGES)
        if (std::strcmp(one.name, name) == 0) return &one - MERGES;
    return -1;
}

int64_t look_of(const char* name) {
    for (const auto& one : LOOKS)
        if (std::strcmp(one.name, name) == 0) return &one - LOOKS;
    return -1;
}

// How many numbers a pass finds in so many tensors.
int64_t found_by(int64_t which, int64_t tensors) {
    return LOOKS[which].each * tensors + LOOKS[which].more;
}

void run_merge(int64_t which, const int64_t* task, const float* floats, const int32_t* ints) {
    const Task& given = *reinterpret_cast<const Task*>(task);
    MERGES[which].run(given, Table{floats, ints, given.inputs});
}

void run_look(int64_t which, const int64_t* task, const float* floats, const int32_t* ints,
              int64_t* found) {
    const Task& given = *reinterpret_cast<const Task*>(task);
    LOOKS[which].run(given, Table{floats, ints, 1}, found);
}

void run_products(const int64_t* task, double* found) {
    products(*reinterpret_cast<const Task*>(task), found);
}

void run_magnitudes(const int64_t* task, double* found) {
    magnitudes(*reinterpret_cast<const Task*>(task), found);
}

int64_t run_distinct(const int64_t* task, int64_t most, int64_t step, int32_t* bits,
                     int64_t* counts, int64_t* places) {
    return distinct(*reinterpret_cast<const Task*>(task), most, step, bits, counts, places);
}

void run_ranked_bits(const int64_t* task, int64_t low, int64_t high, int64_t count,
                     int64_t* found) {
    const Task& given = *reinterpret_cast<const Task*>(task);
    ranked_bits(given, int32_t(low), int32_t(high), count, found);
}

int64_t run_position(const int64_t* task, int64_t begin, int64_t bits, int64_t wanted) {
    const Task& given = *reinterpret_cast<const Task*>(task);
    return position(given, begin, int32_t(bits), wanted);
}

void run_high_bits(const int64_t* task, int64_t* counts) {
    high_bits(*reinterpret_cast<const Task*>(task), counts);
}
}
