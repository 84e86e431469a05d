"""What can be searched: recipes, the catalogue of methods, and the space that both are drawn from.

Pure Python and PyYAML, nothing heavier. ``recipes.recipe`` is where to begin.
"""
