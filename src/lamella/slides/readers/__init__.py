"""File formats that can be read as slides: one reader a format, and the order in which they are tried."""
