"""Lamella learns from medical images with few or no labels: whole slides, images, volumes, video."""

__version__ = "0.1.0"
