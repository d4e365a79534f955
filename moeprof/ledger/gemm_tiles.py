"""The tile of a grouped GEMM kernel, read off its name; never guessed.

Two libraries write their tile into the type of the kernel. In both, the kernel's own M x N x K tile
is not yet rows x columns: a kernel that swaps A and B computes the transposed product, so that its
M runs over output columns (weights) and its N over rows (tokens).

CUTLASS SM90 grouped: ``CollectiveMma<policy<stages, cluster, schedule>, tile, ...>``; what its M is
follows from the output's stride: contiguous along N in a plain row-major product, along M swapped.
DeepGEMM with offsets: ``fp8_gemm_kernel[_swapAB]<N, K, tile M, tile N, tile K, groups, stages, TMA
threads, math threads, multicast, scheduler, ...>``. The scheduler counts tiles expert by expert.

A Triton kernel's name has no tile in it. Everything else is not understood, with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from moeprof.ledger.mangled import demangled

_STATIC = re.compile(r"cute::tuple<cute::C<(\d+)>, ?cute::C<(\d+)>, ?cute::C<(\d+)> ?>")
_OUTPUT_STRIDE = 6  # its position among the arguments of CollectiveEpilogue
_ROW_MAJOR, _TRANSPOSED = ("tuple<long, cute::C<1>", "tuple<cute::C<1>, long")
_INNERMOST = re.compile(r"<[^<>]*>")
_UNSIGNED = re.compile(r"(\d+)u?")
SHORT_NAME = 60  # characters


@dataclass(frozen=True, slots=True)
class GemmTile:
    """What one block computes at a time: rows x columns of the output, depth of one step.

    cluster_rows, cluster_columns: neighbouring tiles that are scheduled together. columns_built,
    depth_built: the product's N and K where they are part of the kernel, else None.
    """

    library: str
    rows: int
    columns: int
    depth: int
    swap_ab: bool = False
    cluster_rows: int = 1
    cluster_columns: int = 1
    columns_built: int | None = None
    depth_built: int | None = None

    @property
    def shape(self) -> str:
        """M x N x K as the library calls it."""
        first, second = (self.columns, self.rows) if self.swap_ab else (self.rows, self.columns)
        return f"{first}x{second}x{self.depth}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """The tile of a kernel; None where it is unknown. why: the reason, '' if it is no GEMM."""

    tile: GemmTile | None
    why: str = ""


def parse_kernel(name: str) -> Parsed:
    """What the name of a kernel, demangled or not, tells about its tile."""
    text = demangled(name)
    if text is None:
        gemm = "gemm" in name.lower()
        return Parsed(None, "its mangled name is not understood" if gemm else "")
    if "CollectiveMma<" in text:
        return _cutlass(text)
    if "deep_gemm::" in text and "gemm" in text.partition("deep_gemm::")[2].partition("<")[0]:
        return _deep_gemm(text)
    return Parsed(None)


def short_name(name: str) -> str:
    """A kernel's name with its innermost namespace, without return type and arguments."""
    text = (demangled(name) or name).replace("(anonymous namespace)::", "")
    if "CollectiveMma<" in text:
        return "CUTLASS grouped GEMM" if "GroupProblemShape" in text else "CUTLASS GEMM"
    removed = 1
    while removed:
        text, removed = _INNERMOST.subn("", text)
    words = text.partition("(")[0].split() or [name]
    short = "::".join(words[-1].split("::")[-2:])
    return short if len(short) <= SHORT_NAME else f"{short[: SHORT_NAME - 2]}.."


def template_arguments(text: str, name: str) -> tuple[str, ...]:
    """The template arguments of the first ``name<`` in ``text``; none if it is not there."""
    begin = text.find(f"{name}<")
    if begin < 0:
        return ()
    found, depth, last = [], 0, begin + len(name) + 1
    for at in range(last, len(text)):
        letter = text[at]
        if letter in "<(":
            depth += 1
        elif letter in ">)" and depth:
            depth -= 1
        elif letter in ",>" and not depth:
            found.append(text[last:at].strip())
            last = at + 1
            if letter == ">":
                return tuple(found)
    return ()


def _cutlass(text: str) -> Parsed:
    policy, tile, *_ = (*template_arguments(text, "CollectiveMma"), "", "")
    if "MainloopSm90" not in policy:
        return Parsed(None, "a CUTLASS kernel for another architecture than SM90")
    if "GroupProblemShape" not in text:
        return Parsed(None, "a CUTLASS kernel of one product, not of a group")
    sizes, cluster = _STATIC.fullmatch(tile), _STATIC.search(policy)
    if sizes is None or cluster is None:
        return Parsed(None, "a CUTLASS kernel whose tile is not part of its name")
    epilogue = template_arguments(text, "CollectiveEpilogue")
    stride = epilogue[_OUTPUT_STRIDE] if len(epilogue) > _OUTPUT_STRIDE else ""
    if (_ROW_MAJOR in stride) == (_TRANSPOSED in stride):
        return Parsed(None, "a CUTLASS kernel whose output layout is not understood")
    swap_ab = _TRANSPOSED in stride
    order = -1 if swap_ab else 1
    rows, columns = (int(size) for size in sizes.groups()[:2][::order])
    cluster_rows, cluster_columns = (int(size) for size in cluster.groups()[:2][::order])
    if min(rows, columns, cluster_rows, cluster_columns) < 1:
        return Parsed(None, "a CUTLASS kernel with an empty tile")
    return Parsed(
        GemmTile(
            "CUTLASS", rows, columns, int(sizes.group(3)), swap_ab, cluster_rows, cluster_columns
        )
    )


def _deep_gemm(text: str) -> Parsed:
    swap_ab = "fp8_gemm_kernel_swapAB<" in text
    given = template_arguments(text, "fp8_gemm_kernel" + "_swapAB" * swap_ab)
    leading = [_UNSIGNED.fullmatch(argument) for argument in given[:10]]
    numbers = [int(found.group(1)) for found in leading if found is not None]
    if len(numbers) < 10 or len(given) < 11:
        return Parsed(None, "a DeepGEMM kernel of unknown form")
    if "GroupedWithOffsetScheduler" not in given[10]:
        return Parsed(None, "a DeepGEMM kernel that does not schedule by expert offsets")
    columns_built, depth_built, first, second, depth = numbers[:5]
    if numbers[9] != 1:
        return Parsed(None, "a DeepGEMM kernel that multicasts between blocks")
    rows, columns = (second, first) if swap_ab else (first, second)
    if min(rows, columns) < 1:
        return Parsed(None, "a DeepGEMM kernel with an empty tile")
    tile = GemmTile("DeepGEMM", rows, columns, depth, swap_ab)
    return Parsed(_built(tile, columns_built, depth_built))


def _built(tile: GemmTile, columns: int, depth: int) -> GemmTile:
    """0 stands for a size that is given at run time."""
    return replace(tile, columns_built=columns or None, depth_built=depth or None)
