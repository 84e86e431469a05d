"""Numbers that methods need of whole tensors: norms, inner products, order statistics.

``statistics_cache`` keeps them from one candidate to the next.
"""
