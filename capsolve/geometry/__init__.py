"""Geometry: embeddings that realise an allocation, and the ones that exist."""
