"""Published data sets and one's own folders as lists of items with labels, groups and splits. Nothing is downloaded."""
