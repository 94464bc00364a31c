from .embeddings import OptimisedEmbedding as OptimisedEmbedding
from .embeddings import optimise_embedding as optimise_embedding
from .inputs import Inputs as Inputs
from .networks import MODELS as MODELS
from .networks import Settings as Settings
from .networks import Training as Training
from .networks import train as train
