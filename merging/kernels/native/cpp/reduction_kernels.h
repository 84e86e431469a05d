// The passes without an output: reduction_kernels.py once more.

#pragma once

#include <cstdint>

#include "entrywise_kernels.h"
#include "entries.h"
#include "mask_kernels.h"

namespace {

// Adds up numbers up to 2**11: their whole parts, and 2**-12 of the rest.
void add_parts(const float* values, int64_t count, int64_t* found) {
    int32_t whole = 0, rest = 0;
    for (int64_t j = 0; j < count; ++j) {
        const float round = (values[j] + TO_WHOLE) - TO_WHOLE;
        whole += int32_t(round);
        rest += int32_t(((values[j] - round) * 4096.0f + TO_WHOLE) - TO_WHOLE);
    }
    found[0] += whole;
    found[1] += rest;
}

// The magnitudes of a block of the first tensor minus the second.
void read_sizes(const Task& task, int64_t start, int64_t count, float* into) {
    float minus[BLOCK];
    task.input(1).read(start, count, minus);
    task.input(0).read_deltas(start, minus, count, into);
    for (int64_t j = 0; j < count; ++j) into[j] = magnitude(into[j]);
}

void kept_norm(const Task& task, const Table& table, int64_t* found) {
    const Mask mask(table, 0);
    const float factor = table.number(FACTOR, 0);
    float sizes[BLOCK];
    int64_t sums[2] = {0, 0};
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        read_sizes(task, start, count, sizes);
        for (int64_t j = 0; j < count; ++j) sizes[j] = sizes[j] * mask.kept(start + j) * factor;
        add_parts(sizes, count, sums);
    });
    for (int i = 0; i < 2; ++i) add(found[i], sums[i]);
}

void ranked_norm(const Task& task, const Table& table, int64_t* found) {
    const RankMask mask(table, 0, NORM_LEAST, NORM_SLOPE);
    const float factor = table.number(FACTOR, 0);
    float sizes[BLOCK], ranks[BLOCK];
    int64_t sums[2] = {0, 0};
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        read_sizes(task, start, count, sizes);
        task.input(2).read(start, count, ranks);
        for (int64_t j = 0; j < count; ++j)
            sizes[j] = sizes[j] * mask.kept(start + j, ranks[j]) * factor;
        add_parts(sizes, count, sums);
    });
    for (int i = 0; i < 2; ++i) add(found[i], sums[i]);
}

void overlaps(const Task& task, const Table& table, int64_t* found) {
    const int64_t inputs = task.inputs - 1;  // the base comes last
    const float epsilon = table.number(EPSILON, 0);
    Blocks active(inputs);
    float origin[BLOCK], all[BLOCK];
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        task.input(inputs).read(start, count, origin);
        for (int64_t j = 0; j < count; ++j) all[j] = 0.0f;
        for (int64_t i = 0; i < inputs; ++i) {
            float* one = active[i];
            task.input(i).read_deltas(start, origin, count, one);
            for (int64_t j = 0; j < count; ++j) {
                one[j] = changed(one[j], epsilon);
                all[j] = all[j] + one[j];
            }
        }
        for (int64_t i = 0; i < inputs; ++i) {
            const float* one = active[i];
            int32_t shared = 0, alone = 0;
            for (int64_t j = 0; j < count; ++j) {
                alone += one[j] == 1.0f && all[j] == 1.0f ? 1 : 0;
                shared += one[j] == 1.0f && all[j] != 1.0f ? 1 : 0;
            }
            found[i] += shared;
            found[inputs + i] += alone;
        }
    });
}

void seal(const Task& task, const Table& table, int64_t* found) {
    const uint32_t position = uint32_t(table.word(POSITION, 0));
    const int32_t low = table.word(LOW_EXPONENT, 0), high = table.word(HIGH_EXPONENT, 0);
    const int32_t* words = task.input(0).at<int32_t>(0);
    int64_t first = 0, second = 0;
    int32_t largest = 0;
    for (int64_t j = first_block(); j < task.entries; j += next_block()) {
        const uint32_t word = uint32_t(words[j]), at = position + uint32_t(j);
        const uint32_t once = word == 0 ? 0 : mixed_bits(word + at * 0x9E3779B9u);
        const uint32_t twice = (once ^ (once >> 15)) * 0x85EBCA6Bu;
        first += int32_t(once);
        second += int32_t(twice);
        const int32_t below = words[j] & low, above = (words[j] >> 16) & high;
        const int32_t exponent = below > above ? below : above;
        largest = exponent > largest ? exponent : largest;
    }
    add(found[0], first);
    add(found[1], second);
    raise(found[2], largest);
}

}  // namespace
