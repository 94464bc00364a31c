# The public drawings and the modules they live in: see capsolve/__init__.pyi. No module has the name of a drawing.

from ._style import COLOURS as COLOURS
from ._style import MARKERS as MARKERS
from ._style import STYLE as STYLE
from ._style import TINTS as TINTS
from ._style import page as page
from .allocations import allocation as allocation
from .allocations import capacity as capacity
from .allocations import phases as phases
from .diagrams import architecture_grid as architecture_grid
from .diagrams import phase_diagram as phase_diagram
from .embeddings import block_graph as block_graph
from .embeddings import embedding as embedding
from .embeddings import gram_matrix as gram_matrix
from .embeddings import vectors as vectors
from .incidental import collisions as collisions
from .incidental import fourth_norm as fourth_norm
from .incidental import sparsification as sparsification
from .incidental import start_end as start_end
from .marginals import marginal_cases as marginal_cases
from .marginals import water_level as water_level
from .measurements import measurement as measurement
from .paths import capacity_path as capacity_path
from .saving import FORMATS as FORMATS
from .saving import save as save
