"""Networks that predict expression from features of several scales."""
