"""Which tokens a sample shows and which it asks for: masks of images, volumes and videos."""
