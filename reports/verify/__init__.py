"""Says of any law whether it is stable and starvation-free, with a proof or a counterexample."""
