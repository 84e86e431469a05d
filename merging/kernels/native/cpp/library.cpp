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

#include "entries.h"
#include "pass_list.h"
#include "statistics.h"

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

#define NAMED(name, ...) {#name, __VA_ARGS__},
const NamedMerge NAMED_MERGES[] = {MERGES(NAMED)};
const NamedLook NAMED_LOOKS[] = {LOOKS(NAMED)};

}  // namespace

extern "C" {

// Places of the passes by name; -1 where there is none.
int64_t merge_of(const char* name) {
    for (const auto& one : NAMED_MERGES)
        if (std::strcmp(one.name, name) == 0) return &one - NAMED_MERGES;
    return -1;
}

int64_t look_of(const char* name) {
    for (const auto& one : NAMED_LOOKS)
        if (std::strcmp(one.name, name) == 0) return &one - NAMED_LOOKS;
    return -1;
}

// How many numbers a pass finds in so many tensors.
int64_t found_by(int64_t which, int64_t tensors) {
    return NAMED_LOOKS[which].each * tensors + NAMED_LOOKS[which].more;
}

void run_merge(int64_t which, const int64_t* task, const float* floats, const int32_t* ints) {
    const Task& given = *reinterpret_cast<const Task*>(task);
    NAMED_MERGES[which].run(given, Table{floats, ints, given.inputs});
}

void run_look(int64_t which, const int64_t* task, const float* floats, const int32_t* ints,
              int64_t* found) {
    const Task& given = *reinterpret_cast<const Task*>(task);
    NAMED_LOOKS[which].run(given, Table{floats, ints, 1}, found);
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
