"""Steps gemm1 and gemm2: one product per expert over the rows that chose it."""
