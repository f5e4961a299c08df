"""Quantisation to int8: observe, plan, quantise."""
