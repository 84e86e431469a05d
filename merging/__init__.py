"""From a recipe to weights.

A recipe is planned on checkpoints (``planning``), and the plan is run (``building``) with the
arithmetic of ``methods`` on the ``kernels``.
"""
