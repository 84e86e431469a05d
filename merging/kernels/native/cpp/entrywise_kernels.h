// The passes that choose entry by entry, and the weighted sum: entrywise_kernels.py once more.

#pragma once

#include <cstdint>

#include "entries.h"
#include "votes.h"

namespace {

void weighted_sum(const Task& task, const Table& table) {
    float input[BLOCK], total[BLOCK];
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        for (int64_t i = 0; i < task.inputs; ++i) {
            const float weight = table.number(WEIGHT, i);
            task.input(i).read(start, count, input);
            if (i == 0)
                for (int64_t j = 0; j < count; ++j) total[j] = input[j] * weight;
            else
                for (int64_t j = 0; j < count; ++j) total[j] = total[j] + input[j] * weight;
        }
        task.out.write(start, total, count);
    });
}

inline float changed(float delta, float epsilon) {  // NaN counts as changed
    return magnitude(delta) <= epsilon ? 0.0f : 1.0f;
}

void ram_mean(const Task& task, const Table& table) {
    Blocks deltas(task.inputs);
    float origin[BLOCK], active[BLOCK], total[BLOCK];
    const float epsilon = table.number(EPSILON, 0);
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        task.base.read(start, count, origin);
        for (int64_t j = 0; j < count; ++j) active[j] = total[j] = 0.0f;
        for (int64_t i = 0; i < task.inputs; ++i) {
            task.input(i).read_deltas(start, origin, count, deltas[i]);
            const float* delta = deltas[i];
            for (int64_t j = 0; j < count; ++j) active[j] += changed(delta[j], epsilon);
        }
        for (int64_t i = 0; i < task.inputs; ++i) {
            const float more = table.number(MORE, i);
            const float* delta = deltas[i];
            for (int64_t j = 0; j < count; ++j) {
                const float alone = active[j] == 1.0f ? 1.0f : 0.0f;
                const float moved = delta[j] * changed(delta[j], epsilon);
                total[j] = total[j] + moved * (alone * more + 1.0f);
            }
        }
        for (int64_t j = 0; j < count; ++j)
            total[j] = total[j] / (active[j] < 1.0f ? 1.0f : active[j]) + origin[j];
        task.out.write(start, total, count);
    });
}

// The mean by share of the deltas with the sign of the sum, which `total` becomes.
void agreed(Blocks& deltas, const Table& table, int64_t count, float* total) {
    const float least = table.number(LEAST_SHARE, 0);
    for (int64_t j = 0; j < count; ++j) total[j] = deltas[0][j];
    for (int64_t i = 1; i < table.inputs; ++i) {
        const float* delta = deltas[i];
        for (int64_t j = 0; j < count; ++j) total[j] = total[j] + delta[j];
    }
    Vote vote;
    vote.sum_up<true>(deltas, table, SHARE, count, total);
    for (int64_t j = 0; j < count; ++j) {
        const float divisor = vote.divisor[j] <= least ? least : vote.divisor[j];
        total[j] = total[j] / divisor * vote.sign[j];
    }
}

// 1 where the population variance of the deltas is above a limit, else 0.
void varied(Blocks& deltas, const Table& table, int64_t start, int64_t count, float* keep) {
    double mean[BLOCK], spread[BLOCK];
    const double inputs = double(table.inputs);
    for (int64_t j = 0; j < count; ++j) mean[j] = spread[j] = 0.0;
    for (int64_t i = 0; i < table.inputs; ++i) {
        const float* delta = deltas[i];
        for (int64_t j = 0; j < count; ++j) mean[j] = mean[j] + double(delta[j]);
    }
    for (int64_t j = 0; j < count; ++j) mean[j] = mean[j] / inputs;
    for (int64_t i = 0; i < table.inputs; ++i) {
        const float* delta = deltas[i];
        for (int64_t j = 0; j < count; ++j) {
            const double apart = double(delta[j]) - mean[j];
            spread[j] = spread[j] + apart * apart;
        }
    }
    const Limit limit(table, 0, SPREAD_BEFORE, SPREAD_AFTER, OUTER_CUTOFF);
    const int32_t first = int32_t(start);
    for (int32_t j = 0; j < int32_t(count); ++j)
        keep[j] = float(spread[j] / inputs) > limit.at(first + j) ? 1.0f : 0.0f;
}

template <bool SELECTED>
void sce(const Task& task, const Table& table) {
    Blocks deltas(task.inputs);
    float origin[BLOCK], total[BLOCK], keep[BLOCK];
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        task.base.read(start, count, origin);
        for (int64_t i = 0; i < task.inputs; ++i)
            task.input(i).read_deltas(start, origin, count, deltas[i]);
        if (SELECTED) {
            varied(deltas, table, start, count, keep);
            for (int64_t i = 0; i < task.inputs; ++i) {
                float* delta = deltas[i];
                for (int64_t j = 0; j < count; ++j) delta[j] = delta[j] * keep[j];
            }
        }
        agreed(deltas, table, count, total);
        for (int64_t j = 0; j < count; ++j) total[j] = total[j] + origin[j];
        task.out.write(start, total, count);
    });
}

void near_pair(const Task& task, const Table& table) {
    float first[BLOCK], second[BLOCK];
    const float t = table.number(NEAR_T, 0), nearest = table.number(NEAREST, 0);
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        task.input(0).read(start, count, first);
        task.input(task.inputs - 1).read(start, count, second);
        for (int64_t j = 0; j < count; ++j) {
            const float difference = magnitude(first[j] - second[j]);
            const float asked = t / (difference <= nearest ? nearest : difference);
            const float positive = asked < 0.0f ? 0.0f : asked;
            const float share = positive > 1.0f ? 1.0f : positive;
            first[j] = share * second[j] + (1.0f - share) * first[j];
        }
        task.out.write(start, first, count);
    });
}

}  // namespace
