"""Implementations of the ops, listed in :mod:`bixt3d.ops.dispatch`. They assume checked input."""
