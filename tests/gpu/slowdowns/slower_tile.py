"""gemm1 keeps two steps of weights in flight instead of eight."""

from stages.gemm.triton import gemm1
from stages.solutions.triton_v3 import SOLUTION as FAST

SOLUTION = FAST.with_stage(3, gemm1.with_options(steps_in_flight=2))
