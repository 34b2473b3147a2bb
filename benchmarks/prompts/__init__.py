"""Figures of balanced prompts."""
