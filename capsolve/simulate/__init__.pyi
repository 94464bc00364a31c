from .embeddings import OptimisedEmbedding as OptimisedEmbedding
from .embeddings import optimise_embedding as optimise_embedding
