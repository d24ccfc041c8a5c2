"""What people draw: saved per slide and author as QuPath's GeoJSON, every version kept."""
