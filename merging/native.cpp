// The passes of passes.py, choices.py and looks.py once more, as loops over memory for one CPU.
//
// Same bits as there: every operation of float32 numbers is rounded by itself (the compiler is told
// not to contract multiplications and additions), sums over entries are of whole numbers, and
// int32 arithmetic wraps. Entries are read in blocks that stay in the first-level cache, whatever
// their dtype, and computed as float32. Functions take plain numbers only, so that nothing of
// torch or Python is needed to compile them; merging/native.py says how they are called.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

namespace {

constexpr int64_t BLOCK = 1024;       // entries computed at a time
constexpr int64_t COUNTED = 4096;     // entries that equal_counts counts together: looks.BLOCK
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
    Entries tensors[1];  // inputs, then their ranks: as many as there are

    const Entries& input(int64_t i) const { return tensors[i]; }
    const Entries& ranks(int64_t i) const { return tensors[inputs + i]; }
};

struct Table {
    const float* floats;
    const int32_t* ints;
    int64_t inputs;

    float number(int64_t row, int64_t i) const { return floats[row * inputs + i]; }
    int32_t word(int64_t row, int64_t i) const { return ints[row * inputs + i]; }
};

// Calls `part(start, count)` for every block.
template <class Part>
inline void in_blocks(int64_t entries, Part part) {
    for (int64_t start = 0; start < entries; start += BLOCK)
        part(start, entries - start < BLOCK ? entries - start : BLOCK);
}

// A block of every input.
class Blocks {
  public:
    explicit Blocks(int64_t inputs) : entries_(inputs * BLOCK) {}
    float* operator[](int64_t i) { return entries_.data() + i * BLOCK; }

  private:
    std::vector<float> entries_;
};

// --- Random masks: counters.py -----------------------------------------------------------------

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
        : step(table.word(0, i)),
          offset(table.word(1, i)),
          limit(uint32_t(table.word(2, i)) ^ 0x80000000u) {}

    float kept(int64_t at) const { return random_bits(at, step, offset) <= limit ? 1.0f : 0.0f; }
};

// A mask that likes high ranks.
struct RankMask {
    uint32_t step, offset;
    float least, slope;

    RankMask(const Table& table, int64_t i, int64_t row)
        : step(table.word(0, i)),
          offset(table.word(1, i)),
          least(table.number(row, i)),
          slope(table.number(row + 1, i)) {}

    float kept(int64_t at, float rank) const {
        const float uniform = float(int32_t(random_bits(at, step, offset) >> 8));
        return uniform < rank * slope + least ? 1.0f : 0.0f;
    }
};

// --- Task vectors: passes.py -------------------------------------------------------------------

// How a block of an input's deltas is thinned, in place.

struct Whole {
    static void thin(const Task&, const Table&, int64_t, int64_t, int64_t, float*) {}
};

struct Trimmed {
    static void thin(const Task&, const Table& table, int64_t i, int64_t start, int64_t count,
                     float* deltas) {
        const float before = table.number(3, i), after = table.number(4, i);
        const int32_t cutoff = table.word(0, i), first = int32_t(start);
        for (int32_t j = 0; j < int32_t(count); ++j) {
            const float limit = first + j < cutoff ? before : after;
            deltas[j] = magnitude(deltas[j]) <= limit ? 0.0f : deltas[j];  // NaN stays
        }
    }
};

struct Banded {
    static void thin(const Task& task, const Table& table, int64_t i, int64_t start, int64_t count,
                     float* deltas) {
        const float before = table.number(5, i), after = table.number(6, i);
        const int32_t cutoff = table.word(1, i), first = int32_t(start);
        float inner[BLOCK];
        for (int32_t j = 0; j < int32_t(count); ++j) {
            const float limit = first + j < cutoff ? before : after;
            inner[j] = magnitude(deltas[j]) <= limit ? 1.0f : 0.0f;
        }
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
        const RankMask mask(table, i, 3);
        float ranks[BLOCK];
        task.ranks(i).read(start, count, ranks);
        for (int64_t j = 0; j < count; ++j) deltas[j] = deltas[j] * mask.kept(start + j, ranks[j]);
    }
};

// How scaled deltas become what is added to the base; `total` holds their sum, and then the result.

struct Sum {
    static void mix(Blocks&, const Table&, int64_t, float*) {}
};

struct Vote {
    static void mix(Blocks& deltas, const Table& table, int64_t count, float* total) {
        float sign[BLOCK], divisor[BLOCK];
        for (int64_t j = 0; j < count; ++j) {
            sign[j] = total[j] >= 0.0f ? 1.0f : -1.0f;
            total[j] = divisor[j] = 0.0f;
        }
        for (int64_t i = 0; i < table.inputs; ++i) {
            const float own = table.number(2, i);
            const float* delta = deltas[i];
            for (int64_t j = 0; j < count; ++j) {
                const float agreeing = delta[j] * sign[j];
                total[j] = total[j] + (agreeing <= 0.0f ? 0.0f : agreeing);  // NaN stays
                divisor[j] = divisor[j] + (agreeing <= 0.0f ? 0.0f : own);
            }
        }
        for (int64_t j = 0; j < count; ++j)
            total[j] = total[j] / (divisor[j] == 0.0f ? 1.0f : divisor[j]) * sign[j];
    }
};

template <class Thin, class Mix>
void task_vectors(const Task& task, const Table& table) {
    Blocks deltas(task.inputs);
    float origin[BLOCK], total[BLOCK];
    const float strength = table.number(0, 0);
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        task.base.read(start, count, origin);
        for (int64_t i = 0; i < task.inputs; ++i) {
            float* delta = deltas[i];
            task.input(i).read_deltas(start, origin, count, delta);
            Thin::thin(task, table, i, start, count, delta);
            const float scale = table.number(1, i);
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

// --- The other merges: passes.py and choices.py ------------------------------------------------

void weighted_sum(const Task& task, const Table& table) {
    float input[BLOCK], total[BLOCK];
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        for (int64_t i = 0; i < task.inputs; ++i) {
            const float weight = table.number(0, i);
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
    const float epsilon = table.number(0, 0);
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        task.base.read(start, count, origin);
        for (int64_t j = 0; j < count; ++j) active[j] = total[j] = 0.0f;
        for (int64_t i = 0; i < task.inputs; ++i) {
            task.input(i).read_deltas(start, origin, count, deltas[i]);
            const float* delta = deltas[i];
            for (int64_t j = 0; j < count; ++j) active[j] += changed(delta[j], epsilon);
        }
        for (int64_t i = 0; i < task.inputs; ++i) {
            const float more = table.number(1, i);
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
    float sign[BLOCK], divisor[BLOCK];
    const float least = table.number(0, 0);
    for (int64_t j = 0; j < count; ++j) total[j] = deltas[0][j];
    for (int64_t i = 1; i < table.inputs; ++i) {
        const float* delta = deltas[i];
        for (int64_t j = 0; j < count; ++j) total[j] = total[j] + delta[j];
    }
    for (int64_t j = 0; j < count; ++j) {
        sign[j] = total[j] >= 0.0f ? 1.0f : -1.0f;
        total[j] = divisor[j] = 0.0f;
    }
    for (int64_t i = 0; i < table.inputs; ++i) {
        const float share = table.number(1, i);
        const float* delta = deltas[i];
        for (int64_t j = 0; j < count; ++j) {
            const float agreeing = delta[j] * sign[j];
            total[j] = total[j] + (agreeing <= 0.0f ? 0.0f : agreeing) * share;  // NaN stays
            divisor[j] = divisor[j] + (agreeing <= 0.0f ? 0.0f : share);
        }
    }
    for (int64_t j = 0; j < count; ++j)
        total[j] = total[j] / (divisor[j] <= least ? least : divisor[j]) * sign[j];
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
    const float before = table.number(2, 0), after = table.number(3, 0);
    const int32_t cutoff = table.word(0, 0), first = int32_t(start);
    for (int32_t j = 0; j < int32_t(count); ++j) {
        const float limit = first + j < cutoff ? before : after;
        keep[j] = float(spread[j] / inputs) > limit ? 1.0f : 0.0f;
    }
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
    const float t = table.number(0, 0), nearest = table.number(1, 0);
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

// --- Looks: looks.py -----------------------------------------------------------------------------

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
    const float factor = table.number(0, 0);
    float sizes[BLOCK];
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        read_sizes(task, start, count, sizes);
        for (int64_t j = 0; j < count; ++j) sizes[j] = sizes[j] * mask.kept(start + j) * factor;
        add_parts(sizes, count, found);
    });
}

void ranked_norm(const Task& task, const Table& table, int64_t* found) {
    const RankMask mask(table, 0, 1);
    const float factor = table.number(0, 0);
    float sizes[BLOCK], ranks[BLOCK];
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        read_sizes(task, start, count, sizes);
        task.input(2).read(start, count, ranks);
        for (int64_t j = 0; j < count; ++j)
            sizes[j] = sizes[j] * mask.kept(start + j, ranks[j]) * factor;
        add_parts(sizes, count, found);
    });
}

void equal_counts(const Task& task, const Table& table, int64_t* found) {
    const float sought = table.number(0, 0);
    float sizes[BLOCK];
    in_blocks(task.entries, [&](int64_t start, int64_t count) {
        read_sizes(task, start, count, sizes);
        int32_t equal = 0;
        for (int64_t j = 0; j < count; ++j) equal += sizes[j] == sought ? 1 : 0;
        found[start / COUNTED] += equal;
    });
}

void overlaps(const Task& task, const Table& table, int64_t* found) {
    const int64_t inputs = task.inputs - 1;  // the base comes last
    const float epsilon = table.number(0, 0);
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
    const uint32_t position = uint32_t(table.word(0, 0));
    const int32_t low = table.word(1, 0), high = table.word(2, 0);
    const int32_t* words = task.input(0).at<int32_t>(0);
    int64_t first = 0, second = 0;
    int32_t largest = INT32_MIN;
    for (int64_t j = 0; j < task.entries; ++j) {
        const uint32_t word = uint32_t(words[j]), at = position + uint32_t(j);
        const uint32_t once = word == 0 ? 0 : mixed_bits(word + at * 0x9E3779B9u);
        const uint32_t twice = (once ^ (once >> 15)) * 0x85EBCA6Bu;
        first += int32_t(once);
        second += int32_t(twice);
        const int32_t below = words[j] & low, above = (words[j] >> 16) & high;
        const int32_t exponent = below > above ? below : above;
        largest = exponent > largest ? exponent : largest;
    }
    found[0] += first;
    found[1] += second;
    found[2] = largest;
}

// --- Statistics: series.py, statistics.py and thresholds.py -------------------------------------

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
    float block[BLOCK];
    for (int64_t start = 0; start < task.entries; start += BLOCK) {
        const int64_t left = task.entries - start, count = left < BLOCK ? left : BLOCK;
        read_series(task, 0, start, count, block);
        for (int64_t j = 0; j < count; ++j) {
            const int32_t place = seen.place(same_bits<int32_t>(magnitude(block[j])));
            if (++seen.counts[place] % step == 0) {
                noted_place.push_back(place);
                noted_at.push_back(start + j);
            }
        }
        if (seen.size() > most) return -1;
    }
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

// How often each value of the 15 highest bits of the first input's magnitudes occurs.
void high_bits(const Task& task, int64_t* counts) {
    float block[BLOCK];
    for (int64_t start = 0; start < task.entries; start += BLOCK) {
        const int64_t left = task.entries - start, count = left < BLOCK ? left : BLOCK;
        read_series(task, 0, start, count, block);
        for (int64_t j = 0; j < count; ++j) ++counts[same_bits<uint32_t>(magnitude(block[j])) >> 16];
    }
}

// Of the first input's magnitudes whose bits lie from `low` to `high`: the bits of the `count`-th
// largest, how many are larger, and how many equal.
void ranked_bits(const Task& task, int32_t low, int32_t high, int64_t count, int64_t* found) {
    std::vector<int32_t> inside;
    float block[BLOCK];
    for (int64_t start = 0; start < task.entries; start += BLOCK) {
        const int64_t left = task.entries - start, some = left < BLOCK ? left : BLOCK;
        read_series(task, 0, start, some, block);
        const size_t before = inside.size();
        inside.resize(before + some);
        int32_t* next = inside.data() + before;
        for (int64_t j = 0; j < some; ++j) {
            const int32_t bits = same_bits<int32_t>(magnitude(block[j]));
            *next = bits;
            next += bits >= low && bits <= high ? 1 : 0;
        }
        inside.resize(next - inside.data());
    }
    const auto place = inside.begin() + (count - 1);
    std::nth_element(inside.begin(), place, inside.end(), std::greater<int32_t>());
    const int32_t bits = *place;
    found[0] = bits;
    found[1] = std::count_if(inside.begin(), place, [&](int32_t one) { return one > bits; });
    found[2] = std::count(inside.begin(), inside.end(), bits);
}

// --- By name -------------------------------------------------------------------------------------

using Merge = void (*)(const Task&, const Table&);
using Look = void (*)(const Task&, const Table&, int64_t*);

struct NamedMerge {
    const char* name;
    Merge run;
};

struct NamedLook {
    const char* name;
    Look run;
};

const NamedMerge MERGES[] = {
    {"weighted_sum", weighted_sum},
    {"whole_sum", task_vectors<Whole, Sum>},
    {"trimmed_vote", task_vectors<Trimmed, Vote>},
    {"banded_sum", task_vectors<Banded, Sum>},
    {"banded_vote", task_vectors<Banded, Vote>},
    {"dropped_sum", task_vectors<Dropped, Sum>},
    {"dropped_vote", task_vectors<Dropped, Vote>},
    {"ranked_sum", task_vectors<Ranked, Sum>},
    {"ranked_vote", task_vectors<Ranked, Vote>},
    {"ram_mean", ram_mean},
    {"sce_mean", sce<false>},
    {"sce_selected", sce<true>},
    {"near_pair", near_pair},
};

const NamedLook LOOKS[] = {
    {"kept_norm", kept_norm},       {"ranked_norm", ranked_norm}, {"equal_counts", equal_counts},
    {"overlaps", overlaps},         {"seal", seal},
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

void run_high_bits(const int64_t* task, int64_t* counts) {
    high_bits(*reinterpret_cast<const Task*>(task), counts);
}
}
