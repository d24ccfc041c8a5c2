"""What there is to see below the paths that the user gave."""
