"""Images, volumes and videos with their units: what is read is what was measured, with its spacing and orientation."""
