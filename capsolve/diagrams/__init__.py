"""Phase diagrams over two axes: the theory's, with exact boundaries, and those of embeddings found numerically."""
