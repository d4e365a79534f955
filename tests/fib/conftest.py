"""flashinfer_bench imports Triton, which decides at ``@triton.jit`` whether it interprets: the
interpreter comes on here, before any module beside this is collected."""

from moeprof.machine.interpreter import enable

enable()
