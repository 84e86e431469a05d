// What is computed once per tensor, and thresholds: blocked_sums.py, inner_products.py and order_statistics.py once
// more.

#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "entries.h"
#include "mask_kernels.h"

namespace {

// The sum of COUNTED numbers, by adding the second half to the first, again and again.
double halved(double* row) {
    for (int64_t half = COUNTED / 2; half >= 1; half /= 2)
        for (int64_t j = 0; j < half; ++j) row[j] = row[j] + row[j + half];
    return row[0];
}

// A tensor, or its difference from the base where there is one.
void read_series(const Task& task, int64_t i, int64_t start, int64_t count, float* into) {
    float minus[BLOCK];
    for (int64_t at = 0; at < count; at += BLOCK) {
        const int64_t some = count - at < BLOCK ? count - at : BLOCK;
        if (task.base.address == 0) {
            task.input(i).read(start + at, some, into + at);
            continue;
        }
        task.base.read(start + at, some, minus);
        task.input(i).read_deltas(start + at, minus, some, into + at);
    }
}

// Sums over blocks of COUNTED products of any two inputs: `found[pair][block]`.
void products(const Task& task, double* found) {
    const int64_t blocks = (task.entries + COUNTED - 1) / COUNTED;
    std::vector<float> inputs(task.inputs * COUNTED);
    std::vector<double> row(COUNTED);
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t start = block * COUNTED, left = task.entries - start;
        const int64_t count = left < COUNTED ? left : COUNTED;
        double* into = found + block;
        for (int64_t i = 0; i < task.inputs; ++i)
            read_series(task, i, start, count, inputs.data() + i * COUNTED);
        for (int64_t i = 0; i < task.inputs; ++i)
            for (int64_t k = i; k < task.inputs; ++k, into += blocks) {
                const float* first = inputs.data() + i * COUNTED;
                const float* second = inputs.data() + k * COUNTED;
                for (int64_t j = 0; j < count; ++j) row[j] = double(first[j]) * double(second[j]);
                for (int64_t j = count; j < COUNTED; ++j) row[j] = 0.0;
                *into = halved(row.data());
            }
    }
}

// Sums over blocks of the magnitudes of the first input, and the largest of them in each.
void magnitudes(const Task& task, double* found) {
    const int64_t blocks = (task.entries + COUNTED - 1) / COUNTED;
    std::vector<float> sizes(COUNTED);
    std::vector<double> row(COUNTED);
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t start = block * COUNTED, left = task.entries - start;
        const int64_t count = left < COUNTED ? left : COUNTED;
        read_series(task, 0, start, count, sizes.data());
        int32_t largest = 0;  // bits of magnitudes sort like them, NaN on top
        for (int64_t j = 0; j < count; ++j) {
            const float size = magnitude(sizes[j]);
            const int32_t bits = same_bits<int32_t>(size);
            largest = bits > largest ? bits : largest;
            row[j] = double(size);
        }
        for (int64_t j = count; j < COUNTED; ++j) row[j] = 0.0;
        found[block] = halved(row.data());
        found[blocks + block] = double(same_bits<float>(largest));
    }
}

// Calls `part(start, count, bits)` with the bits of the first input's magnitudes, block by block
// from an index on, for as long as it says so.
template <class Part>
void while_magnitudes(const Task& task, int64_t begin, Part part) {
    float sizes[BLOCK];
    int32_t bits[BLOCK];
    for (int64_t start = begin; start < task.entries; start += BLOCK) {
        const int64_t left = task.entries - start, count = left < BLOCK ? left : BLOCK;
        read_series(task, 0, start, count, sizes);
        for (int64_t j = 0; j < count; ++j) bits[j] = same_bits<int32_t>(magnitude(sizes[j]));
        if (!part(start, count, bits)) return;
    }
}

// A table from magnitudes' bits to how often they occurred.
class Counter {
  public:
    Counter() : slots_(1 << 12, -1) {}

    // The place of a magnitude among those seen, in the order in which they came.
    int32_t place(int32_t bits) {
        const uint32_t mask = uint32_t(slots_.size()) - 1;
        uint32_t at = mixed_bits(uint32_t(bits)) & mask;
        while (slots_[at] >= 0 && bits_[slots_[at]] != bits) at = (at + 1) & mask;
        if (slots_[at] >= 0) return slots_[at];
        slots_[at] = int32_t(bits_.size());
        bits_.push_back(bits);
        counts.push_back(0);
        if (bits_.size() * 2 > slots_.size()) grow();
        return int32_t(bits_.size()) - 1;
    }

    int64_t size() const { return int64_t(bits_.size()); }
    int32_t bits(int64_t place) const { return bits_[place]; }

    std::vector<int64_t> counts;

  private:
    void grow() {
        std::vector<int32_t> wider(slots_.size() * 4, -1);
        const uint32_t mask = uint32_t(wider.size()) - 1;
        for (int32_t place = 0; place < int32_t(bits_.size()); ++place) {
            uint32_t at = mixed_bits(uint32_t(bits_[place])) & mask;
            while (wider[at] >= 0) at = (at + 1) & mask;
            wider[at] = place;
        }
        slots_.swap(wider);
    }

    std::vector<int32_t> slots_, bits_;
};

// The magnitudes of the first input, descending, how often each occurs, and the indices of every
// so manieth entry of each. Gives their number; -1 where there are more than `most`.
int64_t distinct(const Task& task, int64_t most, int64_t step, int32_t* bits, int64_t* counts,
                 int64_t* places) {
    Counter seen;
    std::vector<int32_t> noted_place;
    std::vector<int64_t> noted_at;
    while_magnitudes(task, 0, [&](int64_t start, int64_t count, const int32_t* found) {
        for (int64_t j = 0; j < count; ++j) {
            const int32_t place = seen.place(found[j]);
            if (++seen.counts[place] % step == 0) {
                noted_place.push_back(place);
                noted_at.push_back(start + j);
            }
        }
        return seen.size() <= most;
    });
    if (seen.size() > most) return -1;
    std::vector<int32_t> order(seen.size());
    for (int32_t place = 0; place < int32_t(order.size()); ++place) order[place] = place;
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return seen.bits(a) > seen.bits(b); });
    std::vector<int64_t> next(order.size());
    int64_t before = 0;
    for (size_t rank = 0; rank < order.size(); ++rank) {
        bits[rank] = seen.bits(order[rank]);
        counts[rank] = seen.counts[order[rank]];
        next[order[rank]] = before;
        before += counts[rank] / step;
    }
    for (size_t note = 0; note < noted_at.size(); ++note)
        places[next[noted_place[note]]++] = noted_at[note];
    return seen.size();
}

// The index of the `wanted`-th entry from `begin` on whose magnitude has these bits; -1 if there
// are not so many.
int64_t position(const Task& task, int64_t begin, int32_t bits, int64_t wanted) {
    int64_t at = -1;
    while_magnitudes(task, begin, [&](int64_t start, int64_t count, const int32_t* found) {
        int32_t equal = 0;
        for (int64_t j = 0; j < count; ++j) equal += found[j] == bits ? 1 : 0;
        if (equal < wanted) {
            wanted -= equal;
            return true;
        }
        for (int64_t j = 0; wanted > 0; ++j)
            if (found[j] == bits && --wanted == 0) at = start + j;
        return false;
    });
    return at;
}

// How often each value of the 15 highest bits of the first input's magnitudes occurs.
void high_bits(const Task& task, int64_t* counts) {
    while_magnitudes(task, 0, [&](int64_t, int64_t count, const int32_t* found) {
        for (int64_t j = 0; j < count; ++j) ++counts[found[j] >> 16];
        return true;
    });
}

// Of the first input's magnitudes whose bits lie from `low` to `high`: the bits of the `count`-th
// largest, how many are larger, and how many equal.
void ranked_bits(const Task& task, int32_t low, int32_t high, int64_t count, int64_t* found) {
    std::vector<int32_t> inside;
    while_magnitudes(task, 0, [&](int64_t, int64_t some, const int32_t* bits) {
        const size_t before = inside.size();
        inside.resize(before + some);
        int32_t* next = inside.data() + before;
        for (int64_t j = 0; j < some; ++j) {
            *next = bits[j];
            next += bits[j] >= low && bits[j] <= high ? 1 : 0;
        }
        inside.resize(next - inside.data());
        return true;
    });
    const auto place = inside.begin() + (count - 1);
    std::nth_element(inside.begin(), place, inside.end(), std::greater<int32_t>());
    const int32_t bits = *place;
    found[0] = bits;
    found[1] = std::count_if(inside.begin(), place, [&](int32_t one) { return one > bits; });
    found[2] = std::count(inside.begin(), inside.end(), bits);
}

}  // namespace
