"""Layers for sequences: memories written by every token, and attention, all with a state that can be carried on."""

from nestlearn.layers.attention import Attention
from nestlearn.layers.compiled import compile_chunks
from nestlearn.layers.continuum import ContinuumMemory
from nestlearn.layers.facts import by_tokens
from nestlearn.layers.memory_layer import MemoryLayer
from nestlearn.layers.self_modifying import SelfModifyingTitans
from nestlearn.layers.sequence import SequenceLayer
from nestlearn.memory.described import Facts, Piece

__all__ = [
    "Attention",
    "ContinuumMemory",
    "Facts",
    "MemoryLayer",
    "Piece",
    "SelfModifyingTitans",
    "SequenceLayer",
    "by_tokens",
    "compile_chunks",
]
