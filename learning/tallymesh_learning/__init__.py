"""Training: unit runner, numeric profile, canary, algorithms, local backend. The only package that imports torch."""
