"""The diffusion model: its backends, attention, tokens, and what is recorded of an object."""
