// The passes that thin deltas, mix them and add them to a base: merge_kernels.py once more.

#pragma once

#include <cstdint>

#include "entries.h"
#include "mask_kernels.h"
#include "votes.h"

namespace {

// How a block of an input's deltas is thinned, in place.

struct Whole {
    static void thin(const Task&, const Table&, int64_t, int64_t, int64_t, float*) {}
};

struct Trimmed {
    static void thin(const Task&, const Table& table, int64_t i, int64_t start, int64_t count,
                     float* deltas) {
        const Limit limit(table, i, OUTER_BEFORE, OUTER_AFTER, OUTER_CUTOFF);
        const int32_t first = int32_t(start);
        for (int32_t j = 0; j < int32_t(count); ++j)  // NaN stays
            deltas[j] = magnitude(deltas[j]) <= limit.at(first + j) ? 0.0f : deltas[j];
    }
};

struct Banded {
    static void thin(const Task& task, const Table& table, int64_t i, int64_t start, int64_t count,
                     float* deltas) {
        const Limit limit(table, i, INNER_BEFORE, INNER_AFTER, INNER_CUTOFF);
        const int32_t first = int32_t(start);
        float inner[BLOCK];
        for (int32_t j = 0; j < int32_t(count); ++j)
            inner[j] = magnitude(deltas[j]) <= limit.at(first + j) ? 1.0f : 0.0f;
        Trimmed::thin(task, table, i, start, count, deltas);
        for (int64_t j = 0; j < count; ++j) deltas[j] = deltas[j] * inner[j];
    }
};

struct Dropped {
    static void thin(const Task&, const Table& table, int64_t i, int64_t start, int64_t count,
                     float* deltas) {
        const Mask mask(table, i);
        for (int64_t j = 0; j < count; ++j) deltas[j] = deltas[j] * mask.kept(start + j);
    }
};

struct Ranked {
    static void thin(const Task& task, const Table& table, int64_t i, int64_t start, int64_t count,
                     float* deltas) {
        const RankMask mask(table, i, RANK_LEAST, RANK_SLOPE);
        float ranks[BLOCK];
        task.ranks(i).read(start, count, ranks);
        for (int64_t j = 0; j < count; ++j) deltas[j] = deltas[j] * mask.kept(start + j, ranks[j]);
    }
};

// How scaled deltas become what is added to the base; `total` holds their sum, and then the result.

struct Sum {
    static void mix(Blocks&, const Table&, int64_t, float*) {}
};

struct Consensus {
    static void mix(Blocks& deltas, const Table& table, int64_t count, float* total) {
        Vote vote;
        vote.sum_up<false>(deltas, table, DIVISOR, count, total);
        for (int64_t j = 0; j < count; ++j) {
            const float divisor = vote.divisor[j] == 0.0f ? 1.0f : vote.divisor[j];
            total[j] = total[j] / divisor * vote.sign[j];
        }
    }
};

template <class Thin, class Mix>
void task_vectors(const Task& task, const Table& table) {
    Blocks deltas(task.inputs);
    float origin[BLOCK], total[BLOCK];
    const float strength = table.number(STRENGTH, 0);
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        task.base.read(start, count, origin);
        for (int64_t i = 0; i < task.inputs; ++i) {
            float* delta = deltas[i];
            task.input(i).read_deltas(start, origin, count, delta);
            Thin::thin(task, table, i, start, count, delta);
            const float scale = table.number(SCALE, i);
            if (i == 0)
                for (int64_t j = 0; j < count; ++j) total[j] = delta[j] = delta[j] * scale;
            else
                for (int64_t j = 0; j < count; ++j) {
                    delta[j] = delta[j] * scale;
                    total[j] = total[j] + delta[j];
                }
        }
        Mix::mix(deltas, table, count, total);
        for (int64_t j = 0; j < count; ++j) total[j] = total[j] * strength + origin[j];
        task.out.write(start, total, count);
    });
}

}  // namespace
