"""What can be laid over a slide: rasters as tiles on the slide's own grid, and outlines of the objects in view."""
