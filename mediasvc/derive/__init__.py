"""Renditions are made."""
