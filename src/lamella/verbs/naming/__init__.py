"""What `lamella name` is made of: regions of a data set with masks, polygons on a slide."""
