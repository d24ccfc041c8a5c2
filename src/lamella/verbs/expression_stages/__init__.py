"""The stages of `lamella expression`."""
