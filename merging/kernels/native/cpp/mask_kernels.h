// Random masks: mask_kernels.py once more.

#pragma once

#include <cstdint>

#include "entries.h"

namespace {

inline uint32_t mixed_bits(uint32_t word) {
    word = (word ^ (word >> 16)) * 0x7FEB352Du;
    word = (word ^ (word >> 15)) * 0x846CA68Bu;
    return word ^ (word >> 16);
}

inline uint32_t random_bits(int64_t at, uint32_t step, uint32_t offset) {
    return mixed_bits(uint32_t(at) * step + offset);
}

// A mask that keeps hashes up to a limit.
struct Mask {
    uint32_t step, offset, limit;

    Mask(const Table& table, int64_t i)
        : step(table.word(MASK_STEP, i)),
          offset(table.word(MASK_OFFSET, i)),
          limit(uint32_t(table.word(MASK_LIMIT, i)) ^ 0x80000000u) {}

    float kept(int64_t at) const { return random_bits(at, step, offset) <= limit ? 1.0f : 0.0f; }
};

// A mask that likes high ranks.
struct RankMask {
    uint32_t step, offset;
    float least, slope;

    RankMask(const Table& table, int64_t i, FloatRow least, FloatRow slope)
        : step(table.word(MASK_STEP, i)),
          offset(table.word(MASK_OFFSET, i)),
          least(table.number(least, i)),
          slope(table.number(slope, i)) {}

    float kept(int64_t at, float rank) const {
        const float uniform = float(int32_t(random_bits(at, step, offset) >> 8));
        return uniform < rank * slope + least ? 1.0f : 0.0f;
    }
};

}  // namespace
