"""Implementations of the ops; :mod:`bixt3d.ops.dispatch` lists them. They assume checked input."""
