"""The methods that thin deltas, weigh them, perhaps vote on signs, and add the sum to the base."""

from __future__ import annotations

from spaces.catalogue.linear_coefficients import task_arithmetic_coefficients
from spaces.catalogue.method import BaseRule, Combination, Keeps, Method, ParameterSpec, TaskVectors
from spaces.catalogue.shared_parameters import (
    DELLA_DENSITY,
    DENSITY,
    EPSILON,
    EVERY_ENTRY,
    GAMMA,
    INT8_MASK,
    LAMBDA,
    WEIGHT,
    flag,
)


def _task_vectors(
    name: str,
    title: str,
    summary: str,
    source: str,
    *,
    arithmetic: TaskVectors | Combination,
    density: ParameterSpec = DENSITY,
    extra: tuple[ParameterSpec, ...] = (),
    normalize: bool = False,
    rescale: bool = False,
    searched: bool = False,
) -> Method:
    """A member of the family; they differ in defaults and in what drops entries."""
    return Method(
        name=name,
        title=title,
        summary=summary,
        source=source,
        base=BaseRule.REQUIRED,
        searched_by_default=searched,
        random=isinstance(arithmetic, TaskVectors)
        and arithmetic.keeps in (Keeps.RANDOM, Keeps.RANKED),
        arithmetic=arithmetic,
        parameters=(
            WEIGHT,
            density,
            *extra,
            LAMBDA,
            flag("normalize", normalize, "divide by the sum of the weights that took part"),
            flag("rescale", rescale, "scale a thinned delta back to its L1 norm"),
            INT8_MASK,
        ),
    )


TASK_VECTORS = (
    _task_vectors(
        "task_arithmetic",
        "Task arithmetic",
        "base plus the weighted sum of the deltas",
        "Ilharco et al. 2023, arXiv:2212.04089",
        density=EVERY_ENTRY,
        searched=True,
        arithmetic=Combination(
            uses_gram=False,
            coefficients=lambda _, per_input, shared: task_arithmetic_coefficients(
                per_input["weight"],
                normalize=bool(shared.get("normalize", False)),
                strength=float(shared.get("lambda", 1.0)),
            ),
        ),
    ),
    _task_vectors(
        "ties",
        "TIES",
        "largest entries of each delta, sign consensus, mean of those that agree",
        "Yadav et al. 2023, arXiv:2306.01708",
        normalize=True,
        searched=True,
        arithmetic=TaskVectors(keeps=Keeps.LARGEST, votes=True),
    ),
    _task_vectors(
        "dare_linear",
        "DARE",
        "random entries of each delta, scaled back to its norm, summed",
        "Yu et al. 2024, arXiv:2311.03099",
        rescale=True,
        searched=True,
        arithmetic=TaskVectors(keeps=Keeps.RANDOM),
    ),
    _task_vectors(
        "dare_ties",
        "DARE-TIES",
        "random entries of each delta, scaled back to its norm, then sign consensus",
        "Yu et al. 2024, arXiv:2311.03099, with the consensus of arXiv:2306.01708",
        rescale=True,
        searched=True,
        arithmetic=TaskVectors(keeps=Keeps.RANDOM, votes=True),
    ),
    _task_vectors(
        "della",
        "DELLA",
        "random entries of each delta, large ones more often, then sign consensus",
        "Deep et al. 2024, arXiv:2406.11617",
        density=DELLA_DENSITY,
        extra=(EPSILON,),
        normalize=True,
        rescale=True,
        arithmetic=TaskVectors(keeps=Keeps.RANKED, votes=True),
    ),
    _task_vectors(
        "della_linear",
        "DELLA (linear)",
        "random entries of each delta, large ones more often, scaled back to its norm, summed",
        "Deep et al. 2024, arXiv:2406.11617",
        density=DELLA_DENSITY,
        extra=(EPSILON,),
        rescale=True,
        arithmetic=TaskVectors(keeps=Keeps.RANKED),
    ),
    _task_vectors(
        "breadcrumbs",
        "Model Breadcrumbs",
        "each delta without its largest and smallest entries, summed",
        "Davari and Belilovsky 2023, arXiv:2312.06795",
        extra=(GAMMA,),
        arithmetic=TaskVectors(keeps=Keeps.MIDDLE),
    ),
    _task_vectors(
        "breadcrumbs_ties",
        "Model Breadcrumbs with TIES",
        "each delta without its largest and smallest entries, then sign consensus",
        "Davari and Belilovsky 2023, arXiv:2312.06795, with the consensus of arXiv:2306.01708",
        extra=(GAMMA,),
        arithmetic=TaskVectors(keeps=Keeps.MIDDLE, votes=True),
    ),
)
