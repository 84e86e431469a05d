"""Recipes as numbers, which the surrogate compares them by: ``recipe_features`` first."""
