#!/usr/bin/env python3
"""Attention from Python with nothing but ctypes: arrays of the standard library, one call, a check by hand.
usage: attention.py [libfovea.so]"""
import ctypes as c, ctypes.util, math, random, sys
from array import array


class Tensor(c.Structure):
    """fv_tensor: a borrowed view, strides in elements."""
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int), ("rank", c.c_int), ("shape", c.c_int64 * 4), ("stride", c.c_int64 * 4)]


def load(path):
    lib = c.CDLL(path)
    lib.fv_tensor_view.restype = Tensor
    lib.fv_tensor_view.argtypes = [c.c_void_p, c.c_int] + [c.c_int64] * 4
    lib.fv_context_create.argtypes = [c.c_void_p, c.POINTER(c.c_void_p)]
    lib.fv_context_destroy.argtypes = [c.c_void_p]
    lib.fv_message.argtypes, lib.fv_message.restype = [c.c_void_p], c.c_char_p
    lib.fv_version.restype = c.c_char_p
    view = c.POINTER(Tensor)
    lib.fv_attention.argtypes = [c.c_void_p, view, view, view, c.c_bool, view, c.c_void_p]
    return lib


F32, HEADS, KV_HEADS, ROWS, WIDTH = 0, 4, 2, 70, 32


def naive(q, k, v, head, row):
    """softmax(q k^T / sqrt(d)) v of one row over the keys up to its own."""
    kv = head // (HEADS // KV_HEADS)
    at = lambda x, h, i: x[(h * ROWS + i) * WIDTH:(h * ROWS + i + 1) * WIDTH]
    score = [sum(a * b for a, b in zip(at(q, head, row), at(k, kv, j))) / math.sqrt(WIDTH) for j in range(row + 1)]
    weight = [math.exp(s - max(score)) for s in score]
    return [sum(w * at(v, kv, j)[i] for j, w in enumerate(weight)) / sum(weight) for i in range(WIDTH)]


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else ctypes.util.find_library("fovea")
    if not path:
        sys.exit("libfovea is not installed; give its path")
    lib, r = load(path), random.Random(1)
    numbers = lambda heads: array("f", (r.gauss(0, 1) for _ in range(heads * ROWS * WIDTH)))
    q, k, v, out = numbers(HEADS), numbers(KV_HEADS), numbers(KV_HEADS), numbers(HEADS)
    view = lambda x, heads: lib.fv_tensor_view(x.buffer_info()[0], F32, 1, heads, ROWS, WIDTH)
    tq, tk, tv, to = view(q, HEADS), view(k, KV_HEADS), view(v, KV_HEADS), view(out, HEADS)

    ctx = c.c_void_p()
    if lib.fv_context_create(None, c.byref(ctx)) != 0:
        sys.exit("no context")
    status = lib.fv_attention(ctx, tq, tk, tv, True, to, None)
    if status != 0:
        sys.exit(lib.fv_message(ctx).decode())
    worst = max(abs(got - want) for head, row in ((0, 0), (1, 1), (2, 63), (3, 64), (3, ROWS - 1))
                for got, want in zip(out[(head * ROWS + row) * WIDTH:], naive(q, k, v, head, row)))
    print(f"fovea {lib.fv_version().decode()}: largest difference from the naive rows {worst:.1e}")
    lib.fv_context_destroy(ctx)
    return 0 if worst < 1e-5 else 1


sys.exit(main())
