"""Bytes rest."""
