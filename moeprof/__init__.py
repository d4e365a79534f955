"""moeprof: where the time of an FP8 block-scale MoE forward goes, stage by stage, with proof."""

__version__ = "0.1.0"
