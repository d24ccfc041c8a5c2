"""Layer 3: pixels in micrometres."""
