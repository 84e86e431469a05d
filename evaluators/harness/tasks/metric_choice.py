"""Which metric of a task is meant."""

from __future__ import annotations

from collections.abc import Sequence


class MetricError(ValueError):
    """A metric that a task does not report, or that could be several."""


def choose_metric(
    asked: str | None, *, metrics: Sequence[str], filters: Sequence[str]
) -> tuple[str, str]:
    """Metric and filter of a task.

    Args:
        asked: ``metric,filter``, or ``metric`` where the task has one filter; ``None`` for the
            first metric and the first filter.
        metrics: What the task reports, at least one.
        filters: Names of its answer filters, at least one; ``none`` where it has none of its own.

    Raises:
        MetricError: Saying what there is.
    """
    if asked is None:
        return metrics[0], filters[0]
    metric, comma, chosen = asked.partition(",")
    known = ", ".join(f"{name},{filter_}" for name in metrics for filter_ in filters)
    if metric not in metrics:
        raise MetricError(f"metric: expected one of {known}, got {asked!r}")
    if not comma:
        if len(filters) > 1:
            options = " or ".join(f"{metric},{filter_}" for filter_ in filters)
            raise MetricError(f"metric: expected {options} (the task has several), got {asked!r}")
        return metric, filters[0]
    if chosen not in filters:
        raise MetricError(f"metric: expected one of {known}, got {asked!r}")
    return metric, chosen
