"""Volumes in three linked planes, films frame by frame."""
