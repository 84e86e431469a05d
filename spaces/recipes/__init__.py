"""Recipes as frozen values: what is merged, with which method and which numbers.

``recipe`` first; the other modules are parts of a recipe or are computed from one.
"""
