"""`podwirectl doctor` on real kernels."""
