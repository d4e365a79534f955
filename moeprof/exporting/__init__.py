"""Timelines out of a record, for other viewers: Perfetto, Chrome's trace viewer, Nsight Systems.

``export`` is the one door. What is drawn is decided once (``timeline``, ``forwards``) and written
by one module a format, so that every viewer shows the same intervals.
"""

from moeprof.exporting.files import export

__all__ = ["export"]
