"""Sampling parameters and seeds: pure values, no llama.cpp."""

from paddock.sampling.parameters import (
    PARAMETERS,
    SAMPLERS,
    ParameterInfo,
    SamplingParameters,
    validate_for_vocabulary,
)
from paddock.sampling.seeds import MAX_SEED, STREAM_DRAW, STREAM_XTC, resolve_seed, step_seed

__all__ = [
    "MAX_SEED",
    "PARAMETERS",
    "SAMPLERS",
    "STREAM_DRAW",
    "STREAM_XTC",
    "ParameterInfo",
    "SamplingParameters",
    "resolve_seed",
    "step_seed",
    "validate_for_vocabulary",
]
