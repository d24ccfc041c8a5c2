"""`lamella evaluate MODEL DATASET -o results` on a data set of volumes."""

from lamella.config import Settings


class Config(Settings):
    """x"""
