"""Tiles of a slide, any dense model, blended bands, streamed rasters and outlines."""
