"""Parts of `lamella view` that the viewer itself may not import."""
