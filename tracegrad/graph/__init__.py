"""Cells over graphs of any shape, in one program: `graph_plan`, `graph_map`. Uses bodies, control flow, and passes."""

from .mapping import graph_map
from .plan import Plan, graph_plan

__all__ = ["Plan", "graph_map", "graph_plan"]
