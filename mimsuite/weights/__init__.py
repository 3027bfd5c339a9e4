"""Weights files on disk: containers, tensor names, our own header. Independent of methods."""
