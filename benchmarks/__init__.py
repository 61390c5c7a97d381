"""tracegrad against JAX, side by side: `python -m benchmarks`.

Method. Each workload is one formula, written against an array namespace, and both sides run it: JAX as
`jax.jit(jax.value_and_grad(f))`, tracegrad as `tracegrad.jit(tracegrad.value_and_grad(f))`. Before anything is timed,
the values and gradients of both must agree. Samples are taken in one process and in turns (A B, B A, A B, ...), and a
figure is the median of the ratios of neighbouring samples, so that a machine that is slow for a while is slow for both.
Garbage collection stays on, as in normal use; what earlier samples left is collected before each long one. Tracing,
lowering and compiling start from a new function each time, so that no cache knows it; JAX's compilation cache is off.
First calls are timed in fresh processes, without imports and data. Own recording is timed before the rest, while the
process holds little that the garbage collector has to walk. On a machine that other processes use too, `--clock cpu`
takes the time that this process computed instead of the time that passed.

A ratio below 1 means that tracegrad is faster, or smaller.
"""
