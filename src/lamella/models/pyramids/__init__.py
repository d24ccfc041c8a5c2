"""Backbones: networks that turn a tile into feature maps of several sizes, for heads that label pixels."""
