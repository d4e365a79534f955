"""The instrumented forward: one folder a step, one file a backend; ``solutions/`` composes them.

Stages import ``moeprof.contract`` and kernel libraries, nothing else of moeprof.
"""
