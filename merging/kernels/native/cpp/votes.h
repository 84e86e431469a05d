// The sum of the deltas that have the sign of the whole sum, as entrywise_kernels.py and merge_kernels.py take it.

#pragma once

#include <cstdint>

#include "entries.h"

namespace {

// Votes on the signs of a block.
class Vote {
  public:
    // Turns `total`, the sum of all deltas, into the sum of those with its sign, times their own
    // weights where `WEIGHTED`; weights are a row of the table. 0 in sum counts as plus.
    template <bool WEIGHTED>
    void sum_up(Blocks& deltas, const Table& table, FloatRow row, int64_t count, float* total) {
        for (int64_t j = 0; j < count; ++j) {
            sign[j] = total[j] >= 0.0f ? 1.0f : -1.0f;
            total[j] = divisor[j] = 0.0f;
        }
        for (int64_t i = 0; i < table.inputs; ++i) {
            const float own = table.number(row, i);
            const float* delta = deltas[i];
            for (int64_t j = 0; j < count; ++j) {
                const float agreeing = delta[j] * sign[j];
                const float part = agreeing <= 0.0f ? 0.0f : agreeing;  // NaN stays
                total[j] = total[j] + (WEIGHTED ? part * own : part);
                divisor[j] = divisor[j] + (agreeing <= 0.0f ? 0.0f : own);
            }
        }
    }

    float sign[BLOCK], divisor[BLOCK];  // the sum's sign, and the sum of the weights of those
};

}  // namespace
