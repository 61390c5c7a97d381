"""NumPy's names over tracegrad's ops."""

from __future__ import annotations

import numpy as _np

from ..ops import *  # noqa: F403
from ..ops import broadcast_in_dim, dot_general, integer_pow, pow_, reduce_sum
from ..ops import reshape as _reshape
from ..ops import transpose as _transpose
from ..tracer import literal


def matmul(x, y):
    return dot_general(x, y, dims=(((x.ndim - 1,), (y.ndim - 2 if y.ndim > 1 else 0,)), ((), ())))

def power(x, n):
    if isinstance(n, int): return integer_pow(x, n=n)
    return pow_(x, n)

def sum(x, axis=None):
    axes = tuple(range(x.ndim)) if axis is None else (axis % x.ndim,)
    return reduce_sum(x, axes=axes)

def mean(x, axis=None):
    s = sum(x, axis)
    return s / (_np.prod(x.shape) / max(1,_np.prod(s.shape))).item()

def reshape(x, shape): return _reshape(x, shape=tuple(shape))
def transpose(x): return _transpose(x, axes=tuple(range(x.ndim))[::-1])
def eye(n, dtype): return _np.eye(n, dtype=dtype)
def array(x): return _np.asarray(x, _np.float32)
def moveaxis(x, a, b):
    axes=list(range(x.ndim)); axes.insert(b, axes.pop(a)); return _transpose(x, axes=tuple(axes))

def call_ufunc(ufunc, method, inputs, kwargs):
    return globals()[ufunc.__name__](*inputs)
from ..tracer import Tracer
Tracer.sum=sum; Tracer.mean=mean; Tracer.reshape=reshape
