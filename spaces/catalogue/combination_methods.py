"""The methods that are one linear combination of the inputs, or of their deltas."""

from __future__ import annotations

from spaces.catalogue.linear_coefficients import (
    karcher_coefficients,
    linear_coefficients,
    model_stock_coefficients,
    multislerp_coefficients,
    nuslerp_coefficients,
    slerp_coefficients,
)
from spaces.catalogue.method import (
    BaseRule,
    Combination,
    Kind,
    Method,
    ParameterSpec,
    Scope,
    Shared,
)
from spaces.catalogue.shared_parameters import SCALE, SLERP_T, WEIGHT, flag, positive

ALONE = (1.0,)
"""The coefficients of a tensor that the other inputs do not have: it is taken as it is."""


def _nuslerp_axis(shared: Shared) -> int | None:
    if shared.get("nuslerp_flatten", True):
        return None
    return 0 if shared.get("nuslerp_row_wise", False) else -1


LINES = (
    Method(
        name="linear",
        title="Linear (model soup)",
        summary="weighted mean of the inputs",
        source="Wortsman et al. 2022, arXiv:2203.05482",
        base=BaseRule.NONE,
        parameters=(WEIGHT, flag("normalize", True, "divide by the sum of the weights")),
        searched_by_default=True,
        divides="normalize",
        arithmetic=Combination(
            uses_gram=False,
            coefficients=lambda _, per_input, shared: linear_coefficients(
                per_input["weight"], normalize=bool(shared.get("normalize", True))
            ),
        ),
    ),
    Method(
        name="slerp",
        title="SLERP",
        summary="spherical interpolation from the base input to the other one, per tensor",
        source="Shoemake 1985, Animating rotation with quaternion curves",
        base=BaseRule.ENDPOINT,
        min_inputs=2,
        max_inputs=2,
        parameters=(SLERP_T,),
        searched_by_default=True,
        arithmetic=Combination(
            coefficients=lambda gram, _, shared: (
                ALONE if len(gram) == 1 else slerp_coefficients(gram, t=float(shared["t"]))
            )
        ),
    ),
)

SPHERES = (
    Method(
        name="nuslerp",
        title="NuSLERP",
        summary="spherical interpolation of two inputs, or of their deltas, by their weights",
        source="Shoemake 1985; mergekit",
        base=BaseRule.OPTIONAL,
        min_inputs=2,
        max_inputs=2,
        parameters=(
            WEIGHT,
            flag("nuslerp_row_wise", False, "without flatten: along the first axis, not the last"),
            flag("nuslerp_flatten", True, "one arc for the whole tensor, not one per row"),
        ),
        arithmetic=Combination(
            coefficients=lambda gram, per_input, _: (
                ALONE if len(gram) == 1 else nuslerp_coefficients(gram, weights=per_input["weight"])
            ),
            line_axis=_nuslerp_axis,
        ),
    ),
    Method(
        name="multislerp",
        title="Multi-SLERP",
        summary="mean direction of the inputs, or of their deltas, with the mean of their norms",
        source="Goddard 2025, goddard.blog/posts/multislerp-wow-what-a-cool-idea",
        base=BaseRule.OPTIONAL,
        parameters=(
            WEIGHT,
            flag("normalize_weights", True, "divide the weights by their sum"),
            positive("eps", 1e-8, "norms below it count as 0"),
        ),
        divides="normalize_weights",
        arithmetic=Combination(
            coefficients=lambda gram, per_input, shared: (
                ALONE
                if len(gram) == 1
                else multislerp_coefficients(
                    gram,
                    weights=per_input["weight"],
                    normalize=bool(shared.get("normalize_weights", True)),
                    eps=float(shared.get("eps", 1e-8)),
                )
            )
        ),
    ),
    Method(
        name="karcher",
        title="Karcher mean",
        summary=(
            "the direction with the least squared angles to all inputs, with the mean "
            "of their norms"
        ),
        source="Karcher 1977; arXiv:2603.04972",
        base=BaseRule.NONE,
        parameters=(
            ParameterSpec(
                name="max_iter",
                scope=Scope.MERGE,
                kind=Kind.COUNT,
                default=10,
                low=0,
                meaning="most steps towards the mean",
            ),
            positive("tol", 1e-5, "smallest step, angle and norm"),
        ),
        arithmetic=Combination(
            coefficients=lambda gram, _, shared: (
                ALONE
                if len(gram) == 1
                else karcher_coefficients(
                    gram,
                    max_iter=int(shared.get("max_iter", 10)),
                    tol=float(shared.get("tol", 1e-5)),
                )
            )
        ),
    ),
    Method(
        name="model_stock",
        title="Model Stock",
        summary="between base and mean of the inputs, as far as the angle of their deltas tells",
        source="Jang et al. 2024, arXiv:2403.19522",
        base=BaseRule.REQUIRED,
        min_inputs=2,
        parameters=(flag("filter_wise", False, "an angle for each row, not for the tensor"),),
        arithmetic=Combination(
            coefficients=lambda gram, _, __: model_stock_coefficients(gram),
            line_axis=lambda shared: -1 if shared.get("filter_wise", False) else None,
        ),
    ),
)

PASSTHROUGH = Method(
    name="passthrough",
    title="Passthrough",
    summary="one input unchanged, or scaled; with slices, layer stacking",
    source="mergekit",
    base=BaseRule.NONE,
    min_inputs=1,
    max_inputs=1,
    parameters=(SCALE,),
    arithmetic=Combination(
        uses_gram=False,
        coefficients=lambda _, per_input, __: tuple(per_input.get("scale", (1.0,))),
    ),
)
