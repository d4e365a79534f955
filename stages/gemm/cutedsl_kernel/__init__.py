"""The grouped FP8 block-scale GEMM for SM90 in CuTe DSL; needs the package ``cutlass``."""
