"""raysae: sparse autoencoders on a Ray cluster that find the data worth aligning a VLM on."""

__version__ = "0.1.0"
