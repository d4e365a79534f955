"""FlashInfer-Bench's datasets as values: what its files hold, read and written. No torch here.

Facts are those of flashinfer-bench 0.1.2. Running a solution is ``solutions``' and ``timing``'s.
"""
