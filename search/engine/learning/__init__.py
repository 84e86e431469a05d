"""Coefficients learned by gradient before the search, to start it with."""
