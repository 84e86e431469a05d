"""What to expect of every candidate, though no two were asked the same: ``posterior`` first."""
