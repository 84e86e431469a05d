"""Where the numbers of a pass stand in its tables: said here once, for torch and for C++.

Passes over tensors read a table of float32 and one of int32 numbers, with a column per input. Names
of several passes may stand for one row, since each pass has its own tables.
"""

from __future__ import annotations

from enum import IntEnum


class FloatRow(IntEnum):
    """Rows of float32 numbers."""

    # passes over task vectors; a strength is that of the first column
    STRENGTH, SCALE, DIVISOR = 0, 1, 2
    OUTER_BEFORE, OUTER_AFTER = 3, 4  # kept magnitudes are larger, before a cutoff and from there
    INNER_BEFORE, INNER_AFTER = 5, 6  # and not larger than these
    RANK_LEAST, RANK_SLOPE = 3, 4  # uniform numbers are below least + slope * rank
    WEIGHT = 0  # weighted_sum
    EPSILON, MORE = 0, 1  # ram_mean, overlaps: changes that do not count; for those alone
    LEAST_SHARE, SHARE = 0, 1  # sce: the least sum of shares that divides, and the shares
    SPREAD_BEFORE, SPREAD_AFTER = 2, 3  # selected variances are larger, likewise
    NEAR_T, NEAREST = 0, 1  # near_pair: t, and what smaller differences count as
    FACTOR, NORM_LEAST, NORM_SLOPE = 0, 1, 2  # norms: of every number, and as for ranks


class IntRow(IntEnum):
    """Rows of int32 numbers."""

    OUTER_CUTOFF, INNER_CUTOFF = 0, 1  # indices where limits change
    MASK_STEP, MASK_OFFSET, MASK_LIMIT = 0, 1, 2  # of random numbers
    POSITION, LOW_EXPONENT, HIGH_EXPONENT = 0, 1, 2  # seal: of the first word, and masks


FLOAT_ROWS, INT_ROWS = max(FloatRow) + 1, max(IntRow) + 1
"""Rows of the tables; passes that need fewer leave the rest alone."""


def cpp_header() -> str:
    """The rows as enumerations for the C++ sources."""
    sizes = f"constexpr int FLOAT_ROWS = {FLOAT_ROWS}, INT_ROWS = {INT_ROWS};\n"
    return f"#pragma once\n{sizes}" + "".join(
        f"enum {rows.__name__} {{ "
        + ", ".join(f"{name} = {row.value}" for name, row in rows.__members__.items())
        + " };\n"
        for rows in (FloatRow, IntRow)
    )
