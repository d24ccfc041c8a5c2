"""The places to learn from: what a profile asks, where targets fit, and the catalogue of all anchors."""
