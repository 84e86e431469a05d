"""The method catalogue: what each merge method takes, with ranges, defaults and sources.

This is data, not arithmetic; ``merging/methods/method_registry.py`` implements every entry.
Parameter names, scopes and defaults are those of mergekit, so that a recipe means the same in both
tools.
"""

from __future__ import annotations

from spaces.catalogue.method import BaseRule, Kind, Method, ParameterSpec, Scope

__all__ = ["DIVIDES", "METHODS", "BaseRule", "Kind", "Method", "ParameterSpec", "Scope"]


def _number(
    name: str,
    default: float,
    meaning: str,
    *,
    scope: Scope = Scope.MERGE,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
) -> ParameterSpec:
    return ParameterSpec(
        name=name,
        scope=scope,
        default=default,
        low=low,
        high=high,
        low_open=low_open,
        meaning=meaning,
    )


def _flag(name: str, default: bool, meaning: str) -> ParameterSpec:
    return ParameterSpec(
        name=name, scope=Scope.MERGE, kind=Kind.FLAG, default=default, meaning=meaning
    )


WEIGHT = ParameterSpec(
    name="weight", scope=Scope.INPUT, meaning="factor of the input (or of its delta), unitless"
)
DENSITY = _number(
    "density",
    1.0,
    "fraction of each delta tensor that is kept",
    scope=Scope.INPUT,
    low=0.0,
    high=1.0,
    low_open=True,
)
LAMBDA = _number("lambda", 1.0, "factor of the summed delta, unitless")
GAMMA = _number(
    "gamma",
    0.01,
    "fraction of each delta tensor, its largest entries, that is dropped",
    scope=Scope.INPUT,
    low=0.0,
    high=1.0,
)
# Densities have to keep clear of 0 and 1 by it, which leaves none for a half or more.
EPSILON = _number(
    "epsilon",
    0.15,
    "largest and smallest entries of a row are kept with density plus and minus it",
    scope=Scope.INPUT,
    low=0.0,
    high=0.5,
)
ACTIVE = _number("epsilon", 1e-5, "a delta counts as changed above this magnitude", low=0.0)
# mergekit only holds the sign tensors in another type for it; the result is the same.
INT8_MASK = _flag("int8_mask", False, "accepted for mergekit's sake; changes nothing")


def _task_vector(
    name: str,
    title: str,
    summary: str,
    source: str,
    *,
    extra: tuple[ParameterSpec, ...] = (),
    normalize: bool = False,
    rescale: bool = False,
    random: bool = False,
    searched: bool = False,
) -> Method:
    """A member of the task-vector family; they differ in defaults and in what drops entries."""
    return Method(
        name=name,
        title=title,
        summary=summary,
        source=source,
        base=BaseRule.REQUIRED,
        min_inputs=1,
        max_inputs=None,
        random=random,
        searched_by_default=searched,
        parameters=(
            WEIGHT,
            DENSITY,
            *extra,
            LAMBDA,
            _flag("normalize", normalize, "divide by the sum of the weights that took part"),
            _flag("rescale", rescale, "scale a thinned delta back to its L1 norm"),
            INT8_MASK,
        ),
    )


def _other(
    name: str,
    title: str,
    summary: str,
    source: str,
    *,
    base: BaseRule,
    inputs: tuple[int, int | None] = (1, None),
    parameters: tuple[ParameterSpec, ...] = (),
    searched: bool = False,
) -> Method:
    return Method(
        name=name,
        title=title,
        summary=summary,
        source=source,
        base=base,
        min_inputs=inputs[0],
        max_inputs=inputs[1],
        parameters=parameters,
        searched_by_default=searched,
    )


_FIRST = (
    _other(
        "linear",
        "Linear (model soup)",
        "weighted mean of the inputs",
        "Wortsman et al. 2022, arXiv:2203.05482",
        base=BaseRule.NONE,
        parameters=(WEIGHT, _flag("normalize", True, "divide by the sum of the weights")),
        searched=True,
    ),
    _other(
        "slerp",
        "SLERP",
        "spherical interpolation from the base input to the other one, per tensor",
        "Shoemake 1985, Animating rotation with quaternion curves",
        base=BaseRule.ENDPOINT,
        inputs=(2, 2),
        parameters=(
            ParameterSpec(
                name="t",
                scope=Scope.MERGE,
                meaning="position on the arc: 0 is the base input, 1 the other one",
            ),
        ),
        searched=True,
    ),
    _task_vector(
        "task_arithmetic",
        "Task arithmetic",
        "base plus the weighted sum of the deltas",
        "Ilharco et al. 2023, arXiv:2212.04089",
        searched=True,
    ),
    _task_vector(
        "ties",
        "TIES",
        "largest entries of each delta, sign consensus, mean of those that agree",
        "Yadav et al. 2023, arXiv:2306.01708",
        normalize=True,
        searched=True,
    ),
    _task_vector(
        "dare_linear",
        "DARE",
        "random entries of each delta, scaled back to its norm, summed",
        "Yu et al. 2024, arXiv:2311.03099",
        rescale=True,
        random=True,
        searched=True,
    ),
    _task_vector(
        "dare_ties",
        "DARE-TIES",
        "random entries of each delta, scaled back to its norm, then sign consensus",
        "Yu et al. 2024, arXiv:2311.03099, with the consensus of arXiv:2306.01708",
        rescale=True,
        random=True,
        searched=True,
    ),
)

_THINNING = (
    _task_vector(
        "della",
        "DELLA",
        "random entries of each delta, large ones more often, then sign consensus",
        "Deep et al. 2024, arXiv:2406.11617",
        extra=(EPSILON,),
        normalize=True,
        rescale=True,
        random=True,
    ),
    _task_vector(
        "della_linear",
        "DELLA (linear)",
        "random entries of each delta, large ones more often, scaled back to its norm, summed",
        "Deep et al. 2024, arXiv:2406.11617",
        extra=(EPSILON,),
        rescale=True,
        random=True,
    ),
    _task_vector(
        "breadcrumbs",
        "Model Breadcrumbs",
        "each delta without its largest and smallest entries, summed",
        "Davari and Belilovsky 2023, arXiv:2312.06795",
        extra=(GAMMA,),
    ),
    _task_vector(
        "breadcrumbs_ties",
        "Model Breadcrumbs with TIES",
        "each delta without its largest and smallest entries, then sign consensus",
        "Davari and Belilovsky 2023, arXiv:2312.06795, with the consensus of arXiv:2306.01708",
        extra=(GAMMA,),
    ),
    _other(
        "sce",
        "SCE",
        "entries where the deltas differ most, weighted by their squares, with sign consensus",
        "Wan et al. 2024, arXiv:2408.07990",
        base=BaseRule.REQUIRED,
        parameters=(
            _number(
                "select_topk",
                1.0,
                "fraction of the entries that vary which is merged, by variance",
                low=0.0,
                high=1.0,
            ),
            INT8_MASK,
        ),
    ),
    _other(
        "ram",
        "RAM",
        "mean of the deltas over the inputs that changed an entry",
        "arXiv:2601.13572",
        base=BaseRule.REQUIRED,
        parameters=(ACTIVE,),
    ),
    _other(
        "ramplus_tl",
        "RAM+ (tensor-local)",
        "as RAM, with entries that only one input changed made larger",
        "arXiv:2601.13572",
        base=BaseRule.REQUIRED,
        parameters=(
            _number("r", 0.1, "how much larger, per unit of overlap"),
            _number("alpha", 0.2, "most overlap that counts", low=0.0),
            ACTIVE,
        ),
    ),
)

_GEOMETRIC = (
    _other(
        "nuslerp",
        "NuSLERP",
        "spherical interpolation of two inputs, or of their deltas, by their weights",
        "Shoemake 1985; mergekit",
        base=BaseRule.OPTIONAL,
        inputs=(2, 2),
        parameters=(
            WEIGHT,
            _flag("nuslerp_row_wise", False, "without flatten: along the first axis, not the last"),
            _flag("nuslerp_flatten", True, "one arc for the whole tensor, not one per row"),
        ),
    ),
    _other(
        "multislerp",
        "Multi-SLERP",
        "mean direction of the inputs, or of their deltas, with the mean of their norms",
        "Goddard 2025, goddard.blog/posts/multislerp-wow-what-a-cool-idea",
        base=BaseRule.OPTIONAL,
        parameters=(
            WEIGHT,
            _flag("normalize_weights", True, "divide the weights by their sum"),
            _number("eps", 1e-8, "norms below it count as 0", low=0.0, low_open=True),
        ),
    ),
    _other(
        "karcher",
        "Karcher mean",
        "the direction with the least squared angles to all inputs, with the mean of their norms",
        "Karcher 1977; arXiv:2603.04972",
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
            _number("tol", 1e-5, "smallest step, angle and norm", low=0.0, low_open=True),
        ),
    ),
    _other(
        "model_stock",
        "Model Stock",
        "between base and mean of the inputs, as far as the angle of their deltas tells",
        "Jang et al. 2024, arXiv:2403.19522",
        base=BaseRule.REQUIRED,
        inputs=(2, None),
        parameters=(_flag("filter_wise", False, "an angle for each row, not for the tensor"),),
    ),
)

_PAIRS = (
    _other(
        "nearswap",
        "NearSwap",
        "the base input, moved to the other one where the two are near",
        "alchemonaut 2024, QuartetAnemoi-70B",
        base=BaseRule.ENDPOINT,
        inputs=(2, 2),
        parameters=(
            ParameterSpec(
                name="t",
                scope=Scope.MERGE,
                low=0.0,
                meaning="differences up to it are swapped, larger ones in part",
            ),
        ),
    ),
    _other(
        "arcee_fusion",
        "Arcee Fusion",
        "the base input, with the entries of the other one that matter most",
        "Arcee AI 2025, arcee.ai",
        base=BaseRule.ENDPOINT,
        inputs=(2, 2),
    ),
    _other(
        "passthrough",
        "Passthrough",
        "one input unchanged, or scaled; with slices, layer stacking",
        "mergekit",
        base=BaseRule.NONE,
        inputs=(1, 1),
        parameters=(_number("scale", 1.0, "factor of the tensor, unitless", scope=Scope.INPUT),),
    ),
)

DIVIDES = {"linear": "normalize", "multislerp": "normalize_weights"}
"""The methods that divide by the sum of all weights, each with the flag for it."""

METHODS: dict[str, Method] = {
    method.name: method for method in (*_FIRST, *_THINNING, *_GEOMETRIC, *_PAIRS)
}
"""Every method by name."""
