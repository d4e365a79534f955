"""Names of CUDA calls as moeprof's own records hold them.

Versions of an interface are one call here (``cudaLaunchKernel_v7000`` is ``cudaLaunchKernel``), as
in ``timing.cupti``. Kineto before August 2026 names runtime calls by a table that ends with CUDA
12.0, and calls later ones INVALID: on CUDA 13.0 that is every cudaGetDriverEntryPointByVersion, of
which a FlashInfer forward makes eight. Their numbers in CUPTI, which never change, tell them.
"""

from __future__ import annotations

import re

from moeprof.importing.names import api_name

_UNNAMED = re.compile(r"INVALID|cuda\d+")
# CUPTI's runtime callback ids, of cupti-python 13.0.1; '' where it has none
_FIRST_LATER_CALL = 439
_LATER_CALLS = (
    *("cudaGetKernel", "cudaGetDeviceProperties", "cudaStreamGetId", "cudaStreamGetId_ptsz"),
    *("cudaGraphInstantiate", "cudaInitDevice", "cudaGraphAddNode", "cudaGraphNodeSetParams"),
    *("cudaGraphExecNodeSetParams", "cudaMemAdvise", "cudaMemPrefetchAsync"),
    *("cudaMemPrefetchAsync_ptsz", "cudaFuncGetName", "cudaStreamBeginCaptureToGraph"),
    *("cudaStreamBeginCaptureToGraph_ptsz", "cudaGraphConditionalHandleCreate"),
    *("cudaGraphGetEdges", "cudaGraphNodeGetDependencies", "cudaGraphNodeGetDependentNodes"),
    *("cudaGraphAddDependencies", "cudaGraphRemoveDependencies", "cudaGraphAddNode"),
    *("cudaStreamGetCaptureInfo", "cudaStreamGetCaptureInfo_ptsz"),
    *("cudaStreamUpdateCaptureDependencies", "cudaStreamUpdateCaptureDependencies_ptsz"),
    *("cudaDeviceRegisterAsyncNotification", "cudaDeviceUnregisterAsyncNotification"),
    *("cudaFuncGetParamInfo", "cudaGetDriverEntryPointByVersion"),
    *("cudaGetDriverEntryPointByVersion_ptsz", "cudaLibraryLoadData", "cudaLibraryLoadFromFile"),
    *("cudaLibraryUnload", "cudaLibraryGetKernel", "cudaLibraryGetGlobal"),
    *("cudaLibraryGetManaged", "cudaLibraryGetUnifiedFunction", "cudaLibraryGetKernelCount"),
    *("cudaLibraryEnumerateKernels", "cudaKernelSetAttributeForDevice", "cudaStreamGetDevice"),
    *("cudaStreamGetDevice_ptsz", "cudaMemcpyBatchAsync", "cudaMemcpyBatchAsync_ptsz"),
    *("cudaMemcpy3DBatchAsync", "cudaMemcpy3DBatchAsync_ptsz", "cudaEventElapsedTime"),
    *("cudaMemPrefetchBatchAsync", "cudaMemPrefetchBatchAsync_ptsz", "cudaMemDiscardBatchAsync"),
    *("cudaMemDiscardBatchAsync_ptsz", "cudaMemDiscardAndPrefetchBatchAsync"),
    *("cudaMemDiscardAndPrefetchBatchAsync_ptsz", "cudaGetExportTable", *15 * ("",)),
    *("cudaMemcpyBatchAsync", "cudaMemcpyBatchAsync_ptsz", "cudaMemcpy3DBatchAsync"),
    *("cudaMemcpy3DBatchAsync_ptsz", "cudaLogsRegisterCallback", "cudaLogsUnregisterCallback"),
    *("cudaLogsCurrent", "cudaLogsDumpToFile", "cudaLogsDumpToMemory"),
    *("cudaMemGetDefaultMemPool", "cudaMemGetMemPool", "cudaMemSetMemPool"),
    *("cudaDeviceGetHostAtomicCapabilities", "cudaDeviceGetP2PAtomicCapabilities"),
)


def call_name(name: str, runtime_callback: int | None = None) -> str:
    """``name`` without version; runtime_callback: CUPTI's number of it, if it is a runtime call."""
    if runtime_callback is not None and _UNNAMED.fullmatch(name):
        position = runtime_callback - _FIRST_LATER_CALL
        if 0 <= position < len(_LATER_CALLS):
            return _LATER_CALLS[position] or name
    return api_name(name)
