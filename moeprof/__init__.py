"""moeprof: where the time of an FP8 block-scale MoE forward goes, stage by stage, and proof of it."""

__version__ = "0.1.0"
