"""What is computed: definitions, workloads, and where their tokens go. No torch."""
