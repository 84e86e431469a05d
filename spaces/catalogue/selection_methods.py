"""The methods that choose entry by entry; their arithmetic is found in ``merging`` by name."""

from __future__ import annotations

from spaces.catalogue.method import BaseRule, Method
from spaces.catalogue.shared_parameters import (
    INT8_MASK,
    NEARSWAP_T,
    RAM_ALPHA,
    RAM_EPSILON,
    RAM_R,
    SELECT_TOPK,
)

OF_DELTAS = (
    Method(
        name="sce",
        title="SCE",
        summary=(
            "entries where the deltas differ most, weighted by their squares, with sign consensus"
        ),
        source="Wan et al. 2024, arXiv:2408.07990",
        base=BaseRule.REQUIRED,
        parameters=(SELECT_TOPK, INT8_MASK),
    ),
    Method(
        name="ram",
        title="RAM",
        summary="mean of the deltas over the inputs that changed an entry",
        source="arXiv:2601.13572",
        base=BaseRule.REQUIRED,
        parameters=(RAM_EPSILON,),
    ),
    Method(
        name="ramplus_tl",
        title="RAM+ (tensor-local)",
        summary="as RAM, with entries that only one input changed made larger",
        source="arXiv:2601.13572",
        base=BaseRule.REQUIRED,
        parameters=(RAM_EPSILON, RAM_R, RAM_ALPHA),
    ),
)

OF_PAIRS = (
    Method(
        name="nearswap",
        title="NearSwap",
        summary="the base input, moved to the other one where the two are near",
        source="alchemonaut 2024, QuartetAnemoi-70B",
        base=BaseRule.ENDPOINT,
        min_inputs=2,
        max_inputs=2,
        parameters=(NEARSWAP_T,),
    ),
    Method(
        name="arcee_fusion",
        title="Arcee Fusion",
        summary="the base input, with the entries of the other one that matter most",
        source="Arcee AI 2025, arcee.ai",
        base=BaseRule.ENDPOINT,
        min_inputs=2,
        max_inputs=2,
    ),
)
