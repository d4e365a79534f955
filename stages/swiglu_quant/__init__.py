"""Step swiglu_quant: silu(gate) * up, then e4m3 with one scale per 128 values."""
