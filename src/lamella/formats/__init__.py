"""Layer 2: files that other programs read and write."""
