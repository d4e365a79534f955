"""What a kernel is compiled for: its weights' shape, its tile and its epilogue. No ``cutlass``."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 128  # edge of a scale block, of a tile of rows and of a step of K
WIDE = 256  # columns of the wider tile


@dataclass(frozen=True, slots=True)
class Variant:
    """experts, n, k: of the weights [experts, n, k]. columns: of a tile, 128 or 256; the wider one
    takes both halves from the same rows in shared memory. gated: SwiGLU and quantisation in the
    epilogue; a tile then is 128 columns of ``up`` and the same 128 of ``gate``.
    """

    experts: int
    n: int
    k: int
    columns: int = BLOCK
    gated: bool = False

    def __post_init__(self) -> None:
        if self.n % (2 * BLOCK if self.gated else BLOCK) or self.k % BLOCK:
            raise ValueError(f"weights of {self.n} x {self.k} are not whole blocks of {BLOCK}")
        if self.columns not in (BLOCK, WIDE):
            raise ValueError(f"no tile has {self.columns} columns")

    @property
    def kernel_name(self) -> str:
        """What profilers show; the DSL's own name holds argument types and tells nothing apart."""
        kind = "grouped_gemm_swiglu_quant" if self.gated else "grouped_gemm"
        return f"{kind}_{self.experts}x{self.n}x{self.k}_columns{self.columns}"

    @property
    def n_blocks(self) -> int:
        return self.n // BLOCK

    @property
    def k_blocks(self) -> int:
        return self.k // BLOCK

    @property
    def halves(self) -> int:
        """Blocks of 128 columns a CTA multiplies the same rows by."""
        wide = self.gated or (self.columns == WIDE and self.n_blocks % 2 == 0)
        return 2 if wide else 1

    @property
    def cluster(self) -> int:
        """CTAs side by side along N that load their rows once for both: 3 to 8 % in GEMM1."""
        return 2 if self.n_blocks % (2 * self.halves) == 0 else 1

    @property
    def n_tiles(self) -> int:
        """Tiles of a cluster along N."""
        return self.n_blocks // (self.halves * self.cluster)

    @property
    def second_half(self) -> int:
        """Blocks from a CTA's first half to its second."""
        return self.n_blocks // 2 if self.gated else 1

    @property
    def out_columns(self) -> int:
        return self.n // 2 if self.gated else self.n

    @property
    def registers(self) -> tuple[int, int]:
        """Of a thread that multiplies and of one that loads; three groups share 504 x 128."""
        return (240, 24) if self.gated else (232, 40)
