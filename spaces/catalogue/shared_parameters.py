"""Parameters of merge methods, each described once.

Several methods have ``WEIGHT``, ``DENSITY`` and ``LAMBDA``. Where one name of mergekit means
several things, these are drawn under different names: what suits one says nothing about the other.
"""

from __future__ import annotations

from dataclasses import replace

from spaces.catalogue.method import Kind, ParameterSpec, Scope, Search


def flag(name: str, default: bool, meaning: str) -> ParameterSpec:
    """A flag of the merge."""
    return ParameterSpec(
        name=name, scope=Scope.MERGE, kind=Kind.FLAG, default=default, meaning=meaning
    )


def positive(name: str, default: float, meaning: str) -> ParameterSpec:
    """A number of the merge above 0 that is not drawn."""
    return ParameterSpec(
        name=name, scope=Scope.MERGE, default=default, low=0.0, low_open=True, meaning=meaning
    )


# mergekit only holds the sign tensors in another type for it; the result is the same.
INT8_MASK = flag("int8_mask", False, "accepted for mergekit's sake; changes nothing")
WEIGHT = ParameterSpec(
    name="weight",
    scope=Scope.INPUT,
    meaning="factor of the input (or of its delta), unitless",
    search=Search(name="weight", low=0.0, high=1.5),  # real fine-tunes often win near 1 and above
)
DENSITY = ParameterSpec(
    name="density",
    scope=Scope.INPUT,
    default=1.0,
    low=0.0,
    high=1.0,
    low_open=True,
    meaning="fraction of each delta tensor that is kept",
    search=Search(name="density", low=0.1, high=1.0),
)
EVERY_ENTRY = replace(DENSITY, search=None)
"""The density of a method that keeps every entry whatever it is."""
DELLA_DENSITY = replace(DENSITY, search=Search(name="della_density", low=0.1, high=1.0))
"""Where ``epsilon`` leaves it bounds of its own."""
SLERP_T = ParameterSpec(
    name="t",
    scope=Scope.MERGE,
    meaning="position on the arc: 0 is the base input, 1 the other one",
    search=Search(name="t", low=0.0, high=1.0),
)
LAMBDA = ParameterSpec(
    name="lambda",
    scope=Scope.MERGE,
    default=1.0,
    meaning="factor of the summed delta, unitless",
    search=Search(name="lambda", low=0.5, high=1.5),
)
SCALE = ParameterSpec(
    name="scale",
    scope=Scope.INPUT,
    default=1.0,
    meaning="factor of the tensor, unitless",
    search=Search(name="scale", low=0.5, high=1.5),
)
GAMMA = ParameterSpec(
    name="gamma",
    scope=Scope.INPUT,
    default=0.01,
    low=0.0,
    high=1.0,
    meaning="fraction of each delta tensor, its largest entries, that is dropped",
    search=Search(name="gamma", low=0.0, high=0.1),
)
# Densities have to keep clear of 0 and 1 by it, which leaves none for a half or more.
EPSILON = ParameterSpec(
    name="epsilon",
    scope=Scope.INPUT,
    default=0.15,
    low=0.0,
    high=0.5,
    meaning="largest and smallest entries of a row are kept with density plus and minus it",
    search=Search(name="epsilon", low=0.05, high=0.2, below_high=True),
)
SELECT_TOPK = ParameterSpec(
    name="select_topk",
    scope=Scope.MERGE,
    default=1.0,
    low=0.0,
    high=1.0,
    meaning="fraction of the entries that vary which is merged, by variance",
    search=Search(name="select_topk", low=0.1, high=1.0),
)
NEARSWAP_T = ParameterSpec(
    name="t",
    scope=Scope.MERGE,
    low=0.0,
    meaning="differences up to it are swapped, larger ones in part",
    # from a hundredth of the usual change of a weight by fine-tuning to ten times of it
    search=Search(name="nearswap_t", low=1e-5, high=1e-2, log=True),
)
RAM_EPSILON = ParameterSpec(
    name="epsilon",
    scope=Scope.MERGE,
    default=1e-5,
    low=0.0,
    meaning="a delta counts as changed above this magnitude",
    search=Search(name="ram_epsilon", low=1e-6, high=1e-3, log=True),
)
RAM_R = ParameterSpec(
    name="r",
    scope=Scope.MERGE,
    default=0.1,
    meaning="how much larger, per unit of overlap",
    search=Search(name="ram_r", low=0.0, high=1.0),
)
RAM_ALPHA = ParameterSpec(
    name="alpha",
    scope=Scope.MERGE,
    default=0.2,
    low=0.0,
    meaning="most overlap that counts",
    search=Search(name="ram_alpha", low=0.0, high=1.0),
)

IN_ORDER = (
    *(WEIGHT, DENSITY, SLERP_T, LAMBDA, SCALE, GAMMA, EPSILON, SELECT_TOPK),
    *(NEARSWAP_T, RAM_EPSILON, RAM_R, RAM_ALPHA),
)
"""Those with a range of their own, in the order that they are drawn in."""
