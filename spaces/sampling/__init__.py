"""From a trial's values to a recipe (``draw``) and back (``inverse_draw``).

``search_parameters`` names everything that is drawn, ``seed_recipes`` has what is tried first.
"""
