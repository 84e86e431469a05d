"""How a run went over time: workers' hours, and the best score so far."""
