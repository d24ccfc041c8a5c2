"""Values in label rasters that every writer and reader must agree on."""

NOT_LABELLED = 255
"""A pixel without a class. In masks: ignored by loss and metric. In predictions: not looked at."""
