"""From a recipe to a score.

``protocol`` is the seam that the search knows; ``harness`` scores with lm-eval, and ``workers``
brings evaluators to processes and nodes.
"""
