"""What a run leaves behind: config, study, leaderboard, exports."""
