"""Probabilities of a model made into labels that follow the picture: a CRF, morphology, edges, small pieces."""
