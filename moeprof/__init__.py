"""moeprof: where the time of an FP8 block-scale MoE forward goes, stage by stage, and proof of it.

For code that is not a Solution: ``stage`` names its parts, ``profile`` measures a call of it,
``enable_ranges`` shows its stages to other profilers (docs/python-interface.md). ``profile`` and
``enable_ranges`` are imported when first used, so that code full of stages loads nothing more.
"""

from moeprof.scopes import TYPE_CHECKING, stage

if TYPE_CHECKING:
    from moeprof.measure.interface import profile
    from moeprof.timing.ranges import enable_ranges

__all__ = ["enable_ranges", "profile", "stage"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    homes = {"profile": "moeprof.measure.interface", "enable_ranges": "moeprof.timing.ranges"}
    where = homes.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(where), name)
