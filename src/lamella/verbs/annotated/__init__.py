"""From annotations that people drew to images with masks, which models are trained on."""
