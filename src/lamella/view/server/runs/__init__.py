"""Pages of runs: curves while they train, settings, differences, result tables, pictures."""
