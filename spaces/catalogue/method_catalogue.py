"""The method catalogue: what each merge method takes, with ranges, defaults and sources.

This is data, not arithmetic; ``merging/methods/method_registry.py`` implements every entry.
Parameter names, scopes and defaults are those of mergekit, so that a recipe means the same in both
tools.
"""

from __future__ import annotations

from collections.abc import Iterator

from spaces.catalogue.method import BaseRule, Kind, Method, ParameterSpec, Scope
from spaces.catalogue.shared_parameters import (
    DELLA_DENSITY,
    DENSITY,
    EPSILON,
    EVERY_ENTRY,
    GAMMA,
    IN_ORDER,
    LAMBDA,
    NEARSWAP_T,
    RAM_ALPHA,
    RAM_EPSILON,
    RAM_R,
    SCALE,
    SELECT_TOPK,
    SLERP_T,
    WEIGHT,
)
from spaces.extensions import METHODS_GROUP, ExtensionError, additions, loaded

__all__ = ["DIVIDES", "METHODS", "SEARCHED", "BaseRule", "Kind", "Method", "ParameterSpec", "Scope"]


def _positive(name: str, default: float, meaning: str) -> ParameterSpec:
    return ParameterSpec(
        name=name, scope=Scope.MERGE, default=default, low=0.0, low_open=True, meaning=meaning
    )


def _flag(name: str, default: bool, meaning: str) -> ParameterSpec:
    return ParameterSpec(
        name=name, scope=Scope.MERGE, kind=Kind.FLAG, default=default, meaning=meaning
    )


# mergekit only holds the sign tensors in another type for it; the result is the same.
INT8_MASK = _flag("int8_mask", False, "accepted for mergekit's sake; changes nothing")


def _task_vector(
    name: str,
    title: str,
    summary: str,
    source: str,
    *,
    density: ParameterSpec = DENSITY,
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
            density,
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
        parameters=(SLERP_T,),
        searched=True,
    ),
    _task_vector(
        "task_arithmetic",
        "Task arithmetic",
        "base plus the weighted sum of the deltas",
        "Ilharco et al. 2023, arXiv:2212.04089",
        density=EVERY_ENTRY,
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
        density=DELLA_DENSITY,
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
        density=DELLA_DENSITY,
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
        parameters=(SELECT_TOPK, INT8_MASK),
    ),
    _other(
        "ram",
        "RAM",
        "mean of the deltas over the inputs that changed an entry",
        "arXiv:2601.13572",
        base=BaseRule.REQUIRED,
        parameters=(RAM_EPSILON,),
    ),
    _other(
        "ramplus_tl",
        "RAM+ (tensor-local)",
        "as RAM, with entries that only one input changed made larger",
        "arXiv:2601.13572",
        base=BaseRule.REQUIRED,
        parameters=(RAM_EPSILON, RAM_R, RAM_ALPHA),
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
            _positive("eps", 1e-8, "norms below it count as 0"),
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
            _positive("tol", 1e-5, "smallest step, angle and norm"),
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
        parameters=(NEARSWAP_T,),
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
        parameters=(SCALE,),
    ),
)

DIVIDES = {"linear": "normalize", "multislerp": "normalize_weights"}
"""The methods that divide by the sum of all weights, each with the flag for it."""


def _added() -> Iterator[Method]:
    """The methods of other packages."""
    for name, entry in additions(METHODS_GROUP).items():
        found = loaded(entry)
        if not isinstance(found, Method) or found.name != name:
            got = f"the method {found.name}" if isinstance(found, Method) else repr(found)
            raise ExtensionError(
                f"{METHODS_GROUP}: expected {name} to be a function of that name with "
                f"@merge_method, got {got} at {entry.value}"
            )
        yield found


def _catalogue() -> dict[str, Method]:
    """Every method by name; none may hide another."""
    found = {method.name: method for method in (*_FIRST, *_THINNING, *_GEOMETRIC, *_PAIRS)}
    for method in _added():
        if method.name in found:
            raise ExtensionError(
                f"{METHODS_GROUP}: expected another name than {method.name}, which is taken"
            )
        found[method.name] = method
    return found


METHODS = _catalogue()
"""Every method by name, those of other packages last."""

SEARCHED: dict[str, ParameterSpec] = {
    spec.search.name: spec
    for spec in (*IN_ORDER, *(spec for method in METHODS.values() for spec in method.parameters))
    if spec.search is not None and spec is not DELLA_DENSITY
}
"""Every parameter that is drawn from a range of its own, by the name of that range."""
