// Tensors: reading their entries as float32, whatever their dtype, and writing them.
//
// On a CPU a call computes all entries, block by block. On a GPU (`ON_GPU`) blocks are of a single
// entry, and each thread of a grid has its share of them, as far apart as there are threads.

#pragma once

#include <cstdint>
#include <cstring>
#ifndef ON_GPU
#include <vector>
#endif

#include "table_rows.h"  // made of merging/kernels/table_rows.py

namespace {

constexpr int64_t COUNTED = 4096;     // entries that sums of float64 begin with: looks.BLOCK
constexpr float TO_WHOLE = 12582912;  // 1.5 * 2**23: adding it rounds to a whole number

enum Kind : int64_t { FLOAT32, BFLOAT16, FLOAT16, INT16, INT32 };

template <class To, class From>
inline To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    std::memcpy(&result, &value, sizeof(To));
    return result;
}

inline float magnitude(float value) { return __builtin_fabsf(value); }

// --- Whose entries ---------------------------------------------------------------------------

#ifdef ON_GPU

constexpr int64_t BLOCK = 1;                  // entries computed at a time
constexpr int64_t LISTED = 2 * MOST_INPUTS;  // tensors that a task has room for

inline int64_t first_block() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
inline int64_t next_block() { return int64_t(gridDim.x) * blockDim.x; }

// Adds each thread's part to a sum: those of neighbouring threads first, which all have to call it.
inline void add(int64_t& sum, int64_t part) {
    for (int apart = warpSize / 2; apart > 0; apart /= 2)
        part += __shfl_xor_sync(0xFFFFFFFFu, part, apart);
    if (threadIdx.x % warpSize == 0)
        atomicAdd(reinterpret_cast<unsigned long long*>(&sum), static_cast<unsigned long long>(part));
}

inline void raise(int64_t& most, int64_t part) {
    for (int apart = warpSize / 2; apart > 0; apart /= 2) {
        const int64_t other = __shfl_xor_sync(0xFFFFFFFFu, part, apart);
        part = other > part ? other : part;
    }
    if (threadIdx.x % warpSize == 0) atomicMax(reinterpret_cast<long long*>(&most), (long long)part);
}

// A number for each input.
struct Numbers {
    explicit Numbers(int64_t) {}
    float& operator[](int64_t i) { return of[i]; }
    float of[MOST_INPUTS];
};

#else

constexpr int64_t BLOCK = 512;
constexpr int64_t LISTED = 1;  // and as many as there are

using Numbers = std::vector<float>;

constexpr int64_t first_block() { return 0; }
constexpr int64_t next_block() { return 1; }
inline void add(int64_t& sum, int64_t part) { sum += part; }
inline void raise(int64_t& most, int64_t part) { most = part > most ? part : most; }

#endif

// --- Reading and writing ---------------------------------------------------------------------

inline float widened(float value) { return value; }

struct Brain {
    uint16_t bits;
};

inline float widened(Brain value) { return same_bits<float>(uint32_t(value.bits) << 16); }

struct Half {
    uint16_t bits;
};

inline float widened(Half value) {
    const uint32_t rest = uint32_t(value.bits & 0x7FFF) << 13;
    const float finite = same_bits<float>(rest) * 0x1p112f;  // exact, also for subnormal numbers
    const uint32_t found = rest >= 0x0F800000 ? rest | 0x7F800000 : same_bits<uint32_t>(finite);
    return same_bits<float>(found | uint32_t(value.bits & 0x8000) << 16);
}

inline float widened(int16_t value) { return float(value); }
inline float widened(int32_t value) { return float(value); }

inline void narrowed(float value, float& out) { out = value; }

inline void narrowed(float value, Brain& out) {  // to nearest, ties to even
    const uint32_t bits = same_bits<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    out.bits = uint16_t(value != value ? 0x7FC0 : rounded);
}

inline void narrowed(float value, Half& out) {  // to nearest, ties to even
    const uint32_t bits = same_bits<uint32_t>(value), size = bits & 0x7FFFFFFF;
    const uint32_t normal = (size + 0xFFF + ((size >> 13) & 1) - (112u << 23)) >> 13;
    // 0.5 has steps of 2**-24, which are those of float16's subnormal numbers
    const uint32_t subnormal = same_bits<uint32_t>(same_bits<float>(size) + 0.5f) - 0x3F000000;
    uint32_t found = size < 0x38800000 ? subnormal : normal;
    found = size >= 0x47800000 ? 0x7C00 : found;
    found = size > 0x7F800000 ? 0x7E00 : found;
    out.bits = uint16_t(found | (bits >> 16 & 0x8000));
}

template <class T>
void read_as(const T* from, int64_t count, float* into) {
    for (int64_t j = 0; j < count; ++j) into[j] = widened(from[j]);
}

template <class T>
void read_minus(const T* from, const float* minus, int64_t count, float* into) {
    for (int64_t j = 0; j < count; ++j) into[j] = widened(from[j]) - minus[j];
}

template <class T>
void write_as(const float* from, int64_t count, T* into) {
    for (int64_t j = 0; j < count; ++j) narrowed(from[j], into[j]);
}

// Flat entries of one kind.
struct Entries {
    int64_t address, kind;

    template <class T>
    const T* at(int64_t start) const {
        return reinterpret_cast<const T*>(address) + start;
    }

    void read(int64_t start, int64_t count, float* into) const {
        switch (kind) {
            case FLOAT32: return read_as(at<float>(start), count, into);
            case BFLOAT16: return read_as(at<Brain>(start), count, into);
            case FLOAT16: return read_as(at<Half>(start), count, into);
            case INT16: return read_as(at<int16_t>(start), count, into);
            case INT32: return read_as(at<int32_t>(start), count, into);
        }
    }

    void read_deltas(int64_t start, const float* minus, int64_t count, float* into) const {
        switch (kind) {
            case FLOAT32: return read_minus(at<float>(start), minus, count, into);
            case BFLOAT16: return read_minus(at<Brain>(start), minus, count, into);
            case FLOAT16: return read_minus(at<Half>(start), minus, count, into);
        }
    }

    void write(int64_t start, const float* from, int64_t count) const {
        switch (kind) {
            case FLOAT32: return write_as(from, count, const_cast<float*>(at<float>(start)));
            case BFLOAT16: return write_as(from, count, const_cast<Brain*>(at<Brain>(start)));
            case FLOAT16: return write_as(from, count, const_cast<Half*>(at<Half>(start)));
        }
    }
};

// What a pass is given: number of entries, of inputs, then base, output, inputs, and ranks, with
// address and kind each; and tables with a column per input.
struct Task {
    int64_t entries, inputs;
    Entries base, out;
    Entries tensors[LISTED];  // inputs, then their ranks

    const Entries& input(int64_t i) const { return tensors[i]; }
    const Entries& ranks(int64_t i) const { return tensors[inputs + i]; }
};

struct Table {
    const float* floats;
    const int32_t* ints;
    int64_t inputs;

    float number(FloatRow row, int64_t i) const { return floats[row * inputs + i]; }
    int32_t word(IntRow row, int64_t i) const { return ints[row * inputs + i]; }
};

// A limit that changes at an index.
struct Limit {
    float before, after;
    int32_t cutoff;

    Limit(const Table& table, int64_t i, FloatRow before, FloatRow after, IntRow cutoff)
        : before(table.number(before, i)),
          after(table.number(after, i)),
          cutoff(table.word(cutoff, i)) {}

    float at(int32_t index) const { return index < cutoff ? before : after; }
};

// Calls `part(start, count)` for every block.
template <class Part>
inline void in_blocks(int64_t entries, Part part) {
    for (int64_t start = first_block() * BLOCK; start < entries; start += next_block() * BLOCK)
        part(start, BLOCK == 1 || entries - start > BLOCK ? BLOCK : entries - start);
}

// A block of every input.
class Blocks {
  public:
    explicit Blocks(int64_t inputs) : entries_(inputs * BLOCK) {}
    float* operator[](int64_t i) { return &entries_[i * BLOCK]; }

  private:
    Numbers entries_;
};

}  // namespace
