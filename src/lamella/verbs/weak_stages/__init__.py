"""The six stages of `lamella weak`, a file each; what they share is in `stage`."""
