"""Heads: from a backbone's feature maps to a score for each class at each pixel."""
