"""How well tissue was segmented: overlaps, boundaries, objects, and the protocol that says what a number may stand by.

Letters: N images, C classes, S weightings of the images.
"""
