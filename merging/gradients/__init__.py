"""The gradient of a loss by the coefficients of a recipe: ``coefficient_gradients`` first."""
