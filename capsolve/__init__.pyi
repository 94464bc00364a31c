# The public names and the modules they live in. This file is the one list: `lazy_loader` reads it when capsolve is
# imported and loads a module when one of its names is first used; type checkers read it as it stands.

from . import incidental as incidental
from . import simulate as simulate
from .allocation import Allocation as Allocation
from .allocation import Phase as Phase
from .allocation import allocate as allocate
from .allocation import certify as certify
from .allocation import solve as solve
from .batch import AllocationBatch as AllocationBatch
from .batch import solve_batch as solve_batch
from .certificate import Status as Status
from .diagrams.agreement import Agreement as Agreement
from .diagrams.analytic import PhaseDiagram as PhaseDiagram
from .diagrams.analytic import phase_diagram as phase_diagram
from .diagrams.axes import Axis as Axis
from .diagrams.boundaries import Boundary as Boundary
from .diagrams.empirical import EmpiricalPhaseDiagram as EmpiricalPhaseDiagram
from .diagrams.empirical import empirical_phase_diagram as empirical_phase_diagram
from .examples import example as example
from .files.activations import read_activations as read_activations
from .files.allocations import read_allocation as read_allocation
from .files.allocations import write_allocation as write_allocation
from .files.parquet_folder import open_profile as open_profile
from .files.profiles import read_profile as read_profile
from .files.profiles import write_profile as write_profile
from .geometry.blocks import Block as Block
from .geometry.blocks import blocks as blocks
from .geometry.capacities import capacities as capacities
from .geometry.capacities import efficiency as efficiency
from .geometry.capacities import interference as interference
from .geometry.capacities import leverages as leverages
from .geometry.capacities import random_capacity as random_capacity
from .geometry.capacities import stream_capacities as stream_capacities
from .geometry.construct import construct_blocks as construct_blocks
from .geometry.construct import construct_embedding as construct_embedding
from .geometry.loss import embedding_loss as embedding_loss
from .geometry.loss import embedding_loss_gradient as embedding_loss_gradient
from .geometry.loss import sampled_loss as sampled_loss
from .losses.quadratic import QuadraticLoss as QuadraticLoss
from .losses.tabulated import TabulatedLoss as TabulatedLoss
from .measurement import Measurement as Measurement
from .measurement import measure as measure
from .path import CapacityPath as CapacityPath
from .path import capacity_path as capacity_path
from .profile import Profile as Profile
from .profile import exponential as exponential
from .profile import power_law as power_law
from .reproduction import reproduce as reproduce
from .sensitivity import Sensitivity as Sensitivity
from .verification.checks import verify as verify
from .verification.checks import verify_battery as verify_battery
from .verification.report import Check as Check
from .verification.report import Verdict as Verdict
from .verification.report import Verification as Verification

__version__: str
