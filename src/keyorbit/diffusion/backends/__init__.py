"""Thin adapters around foreign diffusion models."""
