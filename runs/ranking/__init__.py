"""Who won: ``leaderboard`` orders candidates, ``verdict`` says whether the winner is better."""
