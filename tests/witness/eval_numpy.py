#!/usr/bin/env python3
"""Holds `nohost eval` against numpy on random graphs.

Every value is computed in float64 together with a bound of the error that float32 evaluation may
have at that point (running error analysis, first order, EPS = half a unit in the last place), so
the tolerance of each output element is its own: SLACK times that bound. Operations that jump
(floor, comparisons, casts, quant) are only applied where the value is exact.

    eval_numpy.py --nohost build/host/nohost [--graphs 200] [--seed N] [--steps 14] [--threads N]
                  [--device interp,rewrite,cpu,lir] [--int8] [--keep-going]
"""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np
from gguf import GGMLQuantizationType as Q, quants

EPS = 2.0 ** -24
SLACK = 2.0
T = 23  # the symbol's value: a prime that no product of the other extents can hold
BOUND = 64
FORMATS = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "f16", "bf16", "f32"]


class Value:
    def __init__(self, name, val, err=None, ints=False):
        self.name, self.ints, self.half = name, ints, 0 # half: more error, by half floats
        self.val = np.asarray(val, np.int64 if ints else np.float64)
        self.err = np.zeros(self.val.shape) if err is None else np.broadcast_to(err, self.val.shape)

    shape = property(lambda self: self.val.shape)
    rank = property(lambda self: self.val.ndim)
    exact = property(lambda self: not self.err.any())


def wrap(x):
    return ((np.asarray(x, np.int64) + 2 ** 31) % 2 ** 32) - 2 ** 31


def spell(shape):
    return "[" + ", ".join("T" if n == T else str(n) for n in shape) + "]"


def listed(items):
    return "[" + ",".join(map(str, items)) + "]"


def halves(x, w):
    """What a product may be off on a card, which multiplies many rows as half floats."""
    return np.matmul(abs(x), abs(w.T)) * 2.0 ** -10


# ---- float operations with their error ----

def rounded(val, err):
    return val, err + EPS * abs(val)


def f_add(a, b): return rounded(a[0] + b[0], a[1] + b[1])
def f_sub(a, b): return rounded(a[0] - b[0], a[1] + b[1])
def f_mul(a, b): return rounded(a[0] * b[0], abs(a[0]) * b[1] + abs(b[0]) * a[1])
def f_exp(a): r = np.exp(a[0]); return r, r * np.expm1(a[1]) + 4 * EPS * r
def f_recip(a): r = 1 / a[0]; return r, a[1] * r * r + 2 * EPS * abs(r)
def f_rsqrt(a): r = a[0] ** -0.5; return r, a[1] * r / a[0] / 2 + 4 * EPS * r


def f_div(a, b):
    r = a[0] / b[0]
    return r, (a[1] + abs(r) * b[1]) / abs(b[0]) + 2 * EPS * abs(r)


def f_sigmoid(a):
    r = 1 / (1 + np.exp(-a[0]))
    return r, r * (1 - r) * (a[1] + 4 * EPS * abs(a[0])) + 8 * EPS * r


def f_gelu(a):
    cube = f_mul(a, f_mul(a, a))
    inner = f_mul(f_add(a, f_mul(cube, const(0.044715))), const(2 * np.sqrt(2 / np.pi)))
    return f_mul(a, f_sigmoid(inner))


def const(x):
    return np.float64(np.float32(x)), np.float64(EPS * abs(x))


def f_sum(a, axes, keep=True, mask=None):
    val, err = (a[0], a[1]) if mask is None else (a[0] * mask, a[1] * mask)
    n = max(1, int(np.prod([val.shape[i] for i in axes])))
    size = abs(val).sum(axes, keepdims=keep)
    return (val.sum(axes, keepdims=keep),
            err.sum(axes, keepdims=keep) + EPS * (4 + np.sqrt(n)) * size)


def f_softmax(a, axis):
    peak = a[0].max(axis, keepdims=True)
    e = f_exp(f_sub(a, (peak, a[1].max(axis, keepdims=True))))
    return f_mul(e, f_recip(f_sum(e, (axis,))))


def f_mean(a, axes):
    n = np.prod([a[0].shape[i] for i in axes])
    return f_div(f_sum(a, axes), (np.float64(n), 0.0))


def f_unit(a, eps):
    mean = f_mean(f_mul(a, a), (a[0].ndim - 1,))
    return f_mul(a, f_rsqrt(f_add(mean, const(eps))))


# ---- a random graph ----

class Graph:
    def __init__(self, seed, folder):
        self.rng, self.folder = np.random.default_rng(seed), folder
        self.lines, self.values, self.count = [f"sym T {BOUND}"], [], 0
        self.new_input((T, 5), ["f32"])

    def below(self, n): return int(self.rng.integers(n))
    def pick(self, items): return items[self.below(len(items))]
    def chance(self, p): return self.rng.random() < p

    def fresh(self):
        self.count += 1
        return f"v{self.count}"

    def write(self, name, data):
        data.tofile(os.path.join(self.folder, name + ".bin"))

    def add(self, text, val, err=None, ints=False):
        if val.ndim > 6 or val.size > 60000:
            return None
        if not ints and not (np.isfinite(val).all() and abs(val).max(initial=0) < 1e6):
            return None
        if err is not None and (err > 1e-3 * (1 + abs(val))).any():
            return None
        value = Value(self.fresh(), val, err, ints)
        self.lines.append(f"{value.name} = {text}")
        self.values.append(value)
        return value

    def keep(self, text, result):
        return self.add(text, *result)

    def new_input(self, shape, storages=("f32", "f32", "f16", "bf16", "i32", "i8", "u8"), low=None,
                  high=None):
        storage, name = self.pick(list(storages)), self.fresh()
        ints = storage in ("i32", "i8", "u8")
        if low is not None:
            raw = self.rng.integers(low, high, shape).astype(np.int32)
        elif ints:
            raw = self.rng.integers(0 if storage == "u8" else -100, 100, shape)
            raw = raw.astype({"i32": np.int32, "i8": np.int8, "u8": np.uint8}[storage])
        else:
            raw = (self.rng.standard_normal(shape) * 2).astype(np.float32)
        val = raw
        if storage == "f16":
            raw = raw.astype(np.float16)
            val = raw
        elif storage == "bf16":
            bits = np.asarray(raw).view(np.uint32) & np.uint32(0xffff0000)
            val, raw = bits.view(np.float32), (bits >> 16).astype(np.uint16)
        self.write(name, np.asarray(raw))
        kind = "input" if T in shape or self.chance(0.5) else "const"
        self.lines.append(f"{kind} {name} {storage} {spell(shape)}")
        value = Value(name, np.asarray(val, np.int64 if ints else np.float64), None, ints)
        self.values.append(value)
        return value

    def shape(self):
        rank = self.pick([0, 1, 1, 2, 2, 2, 3, 3, 4])
        shape = [self.pick([1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]) for _ in range(rank)]
        if shape and self.chance(0.3):
            shape[self.below(rank)] = T
        return tuple(shape)

    def any(self, ints=None, exact=False, rank=0):
        good = [v for v in self.values if (ints is None or v.ints == ints) and v.rank >= rank and
                (not exact or v.exact)]
        recent = good[-6:] if self.chance(0.7) else good
        if not recent or self.chance(0.08):
            shape = self.shape()
            while len(shape) < rank:
                shape = shape + (self.pick([2, 3, 5, 7]),)
            return self.new_input(shape, ("i32", "i8", "u8") if ints else ("f32", "f16", "bf16"))
        return self.pick(recent)

    def partner(self, a):
        """Something that broadcasts with a."""
        def fits(b):
            pairs = zip(a.shape[::-1], b.shape[::-1])
            return b.ints == a.ints and all(x == y or 1 in (x, y) for x, y in pairs)
        good = [v for v in self.values if fits(v)]
        if good and self.chance(0.6):
            return self.pick(good)
        shape = [1 if self.chance(0.3) else n for n in a.shape[self.below(a.rank + 1):]]
        return self.new_input(tuple(shape), ("i32", "i8") if a.ints else ("f32", "f16"))

    # ---- one method per kind of operation; each may do nothing ----

    def op_unary(self):
        a = self.any(False)
        x, e = a.val, a.err
        size = abs(x).max(initial=0)
        name = self.pick(["neg", "abs", "exp", "log", "sqrt", "rsqrt", "recip", "sin", "cos",
                          "tanh", "sigmoid", "silu", "gelu", "relu", "square", "floor", "round"])
        if name in ("exp", "gelu") and size > 20 or name in ("sin", "cos") and size > 300:
            return
        if name in ("log", "sqrt", "rsqrt", "recip") and abs(x).min(initial=1) < 0.05:
            return
        if name in ("log", "sqrt", "rsqrt") and x.min(initial=1) <= 0:
            a = self.add(f"abs {a.name}", abs(x), e)
            if a is None:
                return
            x, e = a.val, a.err
        if name in ("floor", "round") and not a.exact:
            return
        result = {
            "neg": lambda: (-x, e), "abs": lambda: (abs(x), e), "exp": lambda: f_exp((x, e)),
            "log": lambda: (np.log(x), e / x + 4 * EPS * (1 + abs(np.log(x)))),
            "sqrt": lambda: (np.sqrt(x), e / np.sqrt(x) / 2 + 2 * EPS * np.sqrt(x)),
            "rsqrt": lambda: f_rsqrt((x, e)), "recip": lambda: f_recip((x, e)),
            "sin": lambda: (np.sin(x), e + 4 * EPS), "cos": lambda: (np.cos(x), e + 4 * EPS),
            "tanh": lambda: (np.tanh(x), e + 8 * EPS), "sigmoid": lambda: f_sigmoid((x, e)),
            "silu": lambda: f_mul((x, e), f_sigmoid((x, e))), "gelu": lambda: f_gelu((x, e)),
            "relu": lambda: (np.maximum(x, 0), e), "square": lambda: f_mul((x, e), (x, e)),
            "floor": lambda: (np.floor(x), e), "round": lambda: (np.rint(x), e)}[name]()
        self.keep(f"{name} {a.name}", result)

    def op_binary(self):
        a = self.any(False)
        name = self.pick(["add", "sub", "mul", "div", "max", "min", "literal"])
        if name == "literal":
            c = self.pick([0.5, 2, 3, -1.25, 0.1])
            if self.chance(0.5):
                return self.keep(f"mul {a.name} {c}", f_mul((a.val, a.err), const(c)))
            return self.keep(f"sub {c} {a.name}", f_sub(const(c), (a.val, a.err)))
        b = self.partner(a)
        if self.chance(0.5):
            a, b = b, a
        if name == "div" and abs(b.val).min(initial=1) < 0.05:
            return
        pa, pb = (a.val, a.err), (b.val, b.err)
        both = np.maximum(*np.broadcast_arrays(a.err, b.err))
        result = {"add": lambda: f_add(pa, pb), "sub": lambda: f_sub(pa, pb),
                  "mul": lambda: f_mul(pa, pb), "div": lambda: f_div(pa, pb),
                  "max": lambda: (np.maximum(a.val, b.val), both),
                  "min": lambda: (np.minimum(a.val, b.val), both)}[name]()
        self.keep(f"{name} {a.name} {b.name}", result)

    def op_integer(self):
        a = self.any(True)
        b = self.partner(a)
        table = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum,
                 "min": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or,
                 "xor": np.bitwise_xor}
        name = self.pick(list(table) + ["neg", "abs", "cast", "literal"])
        if name in ("neg", "abs"):
            return self.add(f"{name} {a.name}", wrap(-a.val if name == "neg" else abs(a.val)), None,
                            True)
        if name == "cast":
            return self.add(f"cast {a.name} to=f32", a.val.astype(np.float32).astype(float))
        if name == "literal":
            return self.add(f"mul {a.name} 7", wrap(a.val * 7), None, True)
        self.add(f"{name} {a.name} {b.name}", wrap(table[name](a.val, b.val)), None, True)

    def op_compare(self):
        a = self.any(exact=True)
        b = self.partner(a)
        if not b.exact:
            return
        name, test = self.pick([("lt", np.less), ("le", np.less_equal), ("eq", np.equal),
                                ("gt", np.greater), ("ge", np.greater_equal),
                                ("ne", np.not_equal)])
        c = self.add(f"{name} {a.name} {b.name}", test(a.val, b.val).astype(int), None, True)
        if c is None:
            return
        x = self.any(False)
        y = self.partner(x)
        if not all(m == n or 1 in (m, n) for m, n in
                   zip(np.broadcast_shapes(x.shape, y.shape)[::-1], c.shape[::-1])):
            return
        cond = c.val != 0
        self.add(f"where {c.name} {x.name} {y.name}", np.where(cond, x.val, y.val),
                 np.where(cond, x.err, y.err))

    def op_cast(self):
        a = self.any(False, exact=True)
        if abs(a.val).max(initial=0) < 1e6:
            self.add(f"cast {a.name} to=i32", np.trunc(a.val).astype(int), None, True)

    def op_reduce(self):
        a = self.any(rank=1)
        axes = tuple(i for i in range(a.rank) if self.chance(0.5)) or (self.below(a.rank),)
        name, keep = self.pick(["sum", "max", "min", "mean"]), self.chance(0.4)
        if a.ints and name == "mean" or min(a.shape) == 0:
            return
        shown = listed(i - a.rank if self.chance(0.3) else i for i in axes)
        text = f"{name} {a.name} axis={shown}" + (" keep=1" if keep else "")
        if a.ints:
            f = {"sum": np.sum, "max": np.max, "min": np.min}[name]
            return self.add(text, wrap(f(a.val, axis=axes, keepdims=keep)), None, True)
        if name == "mean":
            result = f_mean((a.val, a.err), axes)
        elif name == "sum":
            result = f_sum((a.val, a.err), axes)
        else:
            f = np.max if name == "max" else np.min
            result = f(a.val, axis=axes, keepdims=True), a.err.max(axes, keepdims=True)
        shape = result[0].shape if keep else [n for i, n in enumerate(a.shape) if i not in axes]
        self.keep(text, (result[0].reshape(shape), np.broadcast_to(
            result[1], result[0].shape).reshape(shape)))

    def op_reduce_len(self):
        a = self.any(False, rank=1)
        axis = self.below(a.rank)
        kept = tuple(1 if i == axis else n for i, n in enumerate(a.shape))
        part = tuple(1 if self.chance(0.3) else n for n in kept)
        n = self.new_input(part, ("i32",), -1, a.shape[axis] + 3)
        place = np.arange(a.shape[axis]).reshape([-1 if i == axis else 1 for i in range(a.rank)])
        mask = place < n.val
        self.keep(f"sum {a.name} axis={axis} len={n.name} keep=1",
                  f_sum((a.val, a.err), (axis,), True, mask))

    def op_move(self):
        a = self.any()
        name = self.pick(["reshape", "reshape", "permute", "permute", "transpose", "slice", "pad",
                          "flip", "expand", "squeeze", "unsqueeze"])
        x, e, text = a.val, a.err, None
        if name == "reshape":
            shape, run = [], 1
            for n in a.shape:  # merge and split between symbols
                if n == T:
                    shape += ([run] if run > 1 or self.chance(0.2) else []) + [T]
                    run = 1
                else:
                    run *= n
            shape += [run] if run > 1 or self.chance(0.2) else []
            split = []
            for n in shape:
                parts = [d for d in range(2, n) if n % d == 0 and n != T]
                if parts and self.chance(0.7):
                    d = self.pick(parts)
                    split += [d, n // d]
                else:
                    split.append(n)
            if len(split) > 6 or any(n % T == 0 and n != T for n in split):
                return
            shown = spell(split)
            free = [i for i, n in enumerate(split) if n != T]
            if free and self.chance(0.3):
                hidden = self.pick(free)
                shown = listed(-1 if i == hidden else "T" if n == T else n
                               for i, n in enumerate(split))
            text, change = f"shape={shown}", lambda v: v.reshape(split)
        elif name == "permute" and a.rank:
            order = [int(i) for i in self.rng.permutation(a.rank)]
            text, change = f"order={listed(order)}", lambda v: v.transpose(order)
        elif name == "transpose" and a.rank >= 2:
            text, change = "", lambda v: v.swapaxes(-1, -2)
        elif name == "slice" and a.rank:
            cut = [(0, n) if n == T or self.chance(0.4) else sorted(
                int(i) for i in self.rng.choice(n + 1, 2, replace=False)) for n in a.shape]
            text = f"begin={listed(b for b, _ in cut)} shape={spell([n - b for b, n in cut])}"
            change = lambda v: v[tuple(slice(b, n) for b, n in cut)]
            if any(n - b == T for (b, n), m in zip(cut, a.shape) if m != T):
                return
        elif name == "pad" and a.rank:
            width = [(0, 0) if n == T else (self.below(3), self.below(3)) for n in a.shape]
            shape = [b + n + c for (b, c), n in zip(width, a.shape)]
            if any(s == T != n for s, n in zip(shape, a.shape)):
                return
            text = f"before={listed(b for b, _ in width)} shape={spell(shape)}"
            change = lambda v: np.pad(v, width)
        elif name == "flip" and a.rank:
            axes = [i for i in range(a.rank) if self.chance(0.5) and a.shape[i] != T]
            text, change = f"axis={listed(axes)}", lambda v: np.flip(v, axes)
        elif name == "expand":
            shape = [self.pick([2, 3, 4])] * self.below(2) + [
                self.pick([1, 2, 5, T]) if n == 1 else n for n in a.shape]
            text, change = f"shape={spell(shape)}", lambda v: np.broadcast_to(v, shape)
        elif name == "squeeze" and 1 in a.shape:
            axis = self.pick([i for i, n in enumerate(a.shape) if n == 1])
            text, change = f"axis={axis}", lambda v: v.squeeze(axis)
        elif name == "unsqueeze":
            axis = self.below(a.rank + 1)
            text, change = f"axis={axis}", lambda v: np.expand_dims(v, axis)
        if text is not None:
            self.add(f"{name} {a.name} {text}", change(x), None if a.exact else change(e), a.ints)

    def op_concat(self):
        a = self.any(rank=1)
        axis = self.below(a.rank)
        if a.shape[axis] == T:
            return
        parts = [a]
        for _ in range(1 + self.below(2)):
            shape = tuple(1 + self.below(5) if i == axis else n for i, n in enumerate(a.shape))
            parts.append(self.new_input(shape, ("i32",) if a.ints else ("f32",)))
        if sum(p.shape[axis] for p in parts) == T:
            return
        self.add(f"concat {' '.join(p.name for p in parts)} axis={axis}",
                 np.concatenate([p.val for p in parts], axis),
                 np.concatenate([p.err for p in parts], axis), a.ints)

    def op_gather(self):
        a = self.any(rank=1)
        shape = self.pick([(), (3,), (T,), (2, 5)])
        at = self.new_input(shape, ("i32",), -2, a.shape[0] + 2)
        rows = np.clip(at.val, 0, a.shape[0] - 1)
        self.add(f"gather {a.name} {at.name}", a.val[rows], a.err[rows], a.ints)

    def op_scatter(self):
        rows, shape = 3 + self.below(9), tuple(self.pick([(), (5,), (2, 7)]))
        value = self.new_input((self.pick([1, 2, 3, T]),) + shape, ("f32",))
        name, storage = self.fresh(), self.pick(["f32", "f16"])
        at = np.full(value.shape[0], -1, np.int32)
        put = self.rng.permutation(value.shape[0])[:rows]
        at[put] = self.rng.permutation(rows + 2)[:len(put)]  # two may lie outside
        state = self.rng.standard_normal((rows,) + shape).astype(storage.replace("f", "float"))
        index = self.fresh()
        self.write(name, state)
        self.write(index, at)
        self.lines += [f"state {name} {storage} {spell(state.shape)}",
                       f"input {index} i32 {spell(at.shape)}"]
        for i, row in enumerate(at):
            if 0 <= row < rows:
                state[row] = value.val[i]
        self.add(f"scatter {name} {index} {value.name}", state.astype(float))

    def op_softmax(self):
        a = self.any(False, rank=1)
        if abs(a.val).max(initial=0) < 50:
            axis = self.below(a.rank)
            self.keep(f"softmax {a.name} axis={axis}", f_softmax((a.val, a.err), axis))

    def op_context(self):
        """Softmax and product along a context long enough to be read in parts, up to a length."""
        rows, n, width = self.pick([1, 2, 3]), self.pick([4096, 5120]), self.pick([1, 8, 33])
        s = self.new_input((rows, n, 1), ("f32",))
        v = self.new_input((n, width), ("f32", "f16"))
        end = self.new_input((self.pick([1, rows]), 1, 1), ("i32",), 1, self.pick([9, n + 3]))
        most, less, share, total, mixed, out = (self.fresh() for _ in range(6))
        self.lines += [f"{most} = max {s.name} axis=1 keep=1 len={end.name}",
                       f"{less} = sub {s.name} {most}", f"{share} = exp {less}",
                       f"{total} = sum {share} axis=1 keep=1 len={end.name}",
                       f"{mixed} = mul {share} {v.name}",
                       f"{out} = sum {mixed} axis=1 keep=1 len={end.name}"]
        score = np.where(np.arange(n).reshape(1, n, 1) < end.val, s.val, -np.inf)
        e = np.exp(score - score.max(1, keepdims=True))
        e /= e.sum(1, keepdims=True)
        bound = (e * abs(v.val)).sum(1, keepdims=True) * EPS * (60 + 2 * np.sqrt(n))
        self.add(f"div {out} {total}", (e * v.val).sum(1, keepdims=True), bound)

    def op_norm(self):
        a = self.any(False, rank=1)
        if a.shape[-1] == 1 or abs(a.val).max(initial=0) > 1e3:
            return
        w = self.new_input(a.shape[-1:], ("f32",))
        p, pw = (a.val, a.err), (w.val, w.err)
        if self.chance(0.5):
            return self.keep(f"rms_norm {a.name} {w.name} eps=1e-3", f_mul(f_unit(p, 1e-3), pw))
        b = self.new_input(a.shape[-1:], ("f32",))
        unit = f_unit(f_sub(p, f_mean(p, (a.rank - 1,))), 1e-3)
        self.keep(f"layer_norm {a.name} {w.name} {b.name} eps=1e-3",
                  f_add(f_mul(unit, pw), (b.val, b.err)))

    def op_matmul(self):
        a = self.any(False, rank=1)
        if a.rank > 4:
            return
        lead = tuple(1 if self.chance(0.3) else n for n in a.shape[:-2]) if self.chance(0.5) else ()
        width = self.pick([(), (1,), (3,), (8,), (16,), (19,), (33,)])
        if width == ():
            lead = ()
        b = self.new_input(lead + (a.shape[-1],) + width, ("f32", "f16"))
        val = np.matmul(a.val, b.val)
        err = np.matmul(a.err, abs(b.val)) + np.matmul(abs(a.val), abs(b.val)) * EPS * (
            5 + np.sqrt(a.shape[-1]))
        self.add(f"matmul {a.name} {b.name}", val, err)

    def packed(self, kind, rows, k):
        name = self.fresh()
        dense = (self.rng.standard_normal((rows, k)) * 0.5).astype(np.float32)
        raw = random_blocks(self.rng, kind, dense)
        raw.tofile(os.path.join(self.folder, name + ".bin"))
        self.lines.append(f"weight {name} {kind} [{rows}, {k}]")
        return name, quants.dequantize(raw, Q[kind.upper()]).reshape(rows, k).astype(np.float64)

    def line(self, text):
        self.lines.append(f"{self.fresh()} = {text}")
        return self.lines[-1].split()[0]

    def op_heads(self):
        """A norm, a product, its halves of heads turned into each other, a norm: kernels' tiles."""
        kind, k, heads, half = self.pick(FORMATS), 256, self.pick([2, 3, 4]), self.pick([16, 32])
        name, w = self.packed(kind, heads * 2 * half, k)
        x = self.new_input(self.pick([(3, k), (T, k)]), ("f32",))
        g = self.new_input((k,), ("f32",))
        c = self.new_input((self.pick([1, x.shape[0]]), 1, 1, half), ("f32",))
        d = self.new_input((1, 1, 2, 1), ("f32",))
        val, err = f_mul(f_unit((x.val, x.err), 1e-3), (g.val, g.err))
        held = 0
        if self.int8 and kind not in ("f16", "bf16", "f32"):
            block = 16 if kind == "q6_k" else 32
            peak = abs(val).reshape(val.shape[:-1] + (-1, block)).max(-1)
            held = np.matmul(np.repeat(peak, block, -1) / 16256 * 0.51, abs(w.T))
        if self.int8 and x.shape[0] == T:
            held = held + halves(val, w)
        err = np.matmul(err, abs(w.T)) + np.matmul(abs(val), abs(w.T)) * EPS * (6 + np.sqrt(k))
        shape, more = (x.shape[0], heads, 2, half), self.by_halves(val, w)
        err, val = (err + held).reshape(shape), np.matmul(val, w.T).reshape(shape)
        n = self.line(f"rms_norm {x.name} {g.name} eps=1e-3")
        s = self.line(f"reshape {self.line(f'linear {n} {name}')} shape={spell(shape)}")
        turned = self.line(f"mul {self.line(f'flip {s} axis=2')} {d.name}")
        kept = self.line(f"mul {s} {c.name}")
        y = f_add(f_mul((val, err), (c.val, c.err)),
                  f_mul((val[:, :, ::-1], err[:, :, ::-1]), (d.val, d.err)))
        flat = (shape[0], heads * 2 * half)
        row = self.line(f"reshape {self.line(f'add {kept} {turned}')} shape={spell(flat)}")
        more = np.broadcast_to(more, flat).reshape(shape)
        more = (more * abs(c.val) + more[:, :, ::-1] * abs(d.val)).reshape(flat)
        val, err = (v.reshape(flat) for v in y)
        unit = f_unit((val, err), 1e-3)
        self.add_loose(f"rms_norm {row} eps=1e-3", *unit, f_unit((val, err + more), 1e-3)[1])
        self.add_loose(f"max {row} {row}", val, err, more)

    def by_halves(self, x, w):
        """What a GPU may do besides to the product with many rows: T's bound makes them many."""
        many = self.int8 and x.ndim > 1 and x.shape[-2] == T
        return np.matmul(abs(x), abs(w.T)) * 2.0 ** -11 if many else np.zeros(1)

    def op_linear(self):
        kind = self.pick(FORMATS)
        k = 256 * (1 + self.below(2)) if kind.endswith("_k") else 32 * (1 + self.below(5))
        rows = self.pick([1, 7, 16, 24, 40])
        name, w = self.packed(kind, rows, k)
        if self.chance(0.3):
            at = self.new_input(self.pick([(3,), (T,)]), ("i32",), 0, rows)
            return self.add(f"gather {name} {at.name}", w[at.val], EPS * abs(w[at.val]) * 2)
        x = self.new_input(self.pick([(k,), (1, k), (3, k), (T, k), (2, 3, k)]), ("f32",))
        px, held = (x.val, x.err), 0
        name_x, block = x.name, 16 if kind == "q6_k" else 32
        already = 0
        if self.chance(0.3):
            already = self.pick([16, 32])
            x = self.op_quant_of(x, already)
            px, name_x = (x.val, x.err), x.name
        if self.int8 and kind not in ("f16", "bf16", "f32") and already != block:
            peak = abs(x.val).reshape(x.shape[:-1] + (-1, block)).max(-1)
            peak = np.repeat(peak, k // peak.shape[-1], -1)
            held = np.matmul(peak / 16256 * 0.51, abs(w.T))
        if self.int8 and x.rank > 1 and x.shape[-2] == T:
            held = held + halves(px[0], w)
        err = np.matmul(px[1], abs(w.T)) + np.matmul(abs(px[0]), abs(w.T)) * EPS * (6 + np.sqrt(k))
        half = self.by_halves(px[0], w)
        if not np.any(held) and not np.any(half):
            return self.add(f"linear {name_x} {name}", np.matmul(px[0], w.T), err)
        self.add_loose(f"linear {name_x} {name}", np.matmul(px[0], w.T), err + held, half)

    def add_loose(self, text, val, err, half=0):
        value = Value(self.fresh(), val, err)
        value.half = half
        self.lines.append(f"{value.name} = {text}")
        self.loose.append(value)

    def op_quant_of(self, x, block):
        v = x.val.astype(np.float32).reshape(x.shape[:-1] + (-1, block))
        peak = abs(v).max(-1, keepdims=True)
        code = np.rint(v * (np.float32(16256) / peak))
        scale = (peak / np.float32(16256)).astype(np.float64)
        val = (code.astype(np.float64) * scale).reshape(x.shape)
        return self.add(f"quant {x.name} block={block}", val, EPS * abs(val))

    def op_iota(self):
        shape = self.shape()
        if shape:
            axis = self.below(len(shape))
            place = np.arange(shape[axis]).reshape([-1 if i == axis else 1
                                                    for i in range(len(shape))])
            self.add(f"iota axis={axis} shape={spell(shape)}", np.broadcast_to(place, shape), None,
                     True)

    def build(self, steps, int8):
        self.int8, self.loose = int8, []
        kinds = [(self.op_unary, 6), (self.op_binary, 8), (self.op_integer, 2),
                 (self.op_compare, 2), (self.op_cast, 1), (self.op_reduce, 4),
                 (self.op_reduce_len, 1), (self.op_move, 8), (self.op_concat, 1),
                 (self.op_gather, 2), (self.op_scatter, 1), (self.op_softmax, 2),
                 (self.op_context, 1), (self.op_heads, 1),
                 (self.op_norm, 1), (self.op_matmul, 3), (self.op_linear, 1), (self.op_iota, 1)]
        bag = [kind for kind, weight in kinds for _ in range(weight)]
        for _ in range(steps):
            self.pick(bag)()
        computed = [v for v in self.values if any(line.startswith(v.name + " = ")
                                                  for line in self.lines)]
        wanted = {v.name: v for v in computed[-3:]}
        for _ in range(2):
            if computed:
                v = self.pick(computed)
                wanted[v.name] = v
        outputs = list(wanted.values()) + self.loose
        if not outputs:
            outputs = [self.values[0]]
        self.lines.append("output " + " ".join(v.name for v in outputs))
        with open(os.path.join(self.folder, "graph.txt"), "w") as file:
            file.write("\n".join(self.lines) + "\n")
        return outputs


def random_blocks(rng, kind, dense):
    """Bytes of a format; K formats can not be quantised by the package: random codes instead."""
    if not kind.endswith("_k"):
        return quants.quantize(dense, Q[kind.upper()])
    elements, size = {"q4_k": (256, 144), "q5_k": (256, 176), "q6_k": (256, 210)}[kind]
    raw = rng.integers(0, 256, (dense.shape[0], dense.shape[1] // elements, size)).astype(np.uint8)
    scale = (rng.random((2,) + raw.shape[:2]) * 0.01).astype(np.float16).view(np.uint8)
    scale = scale.reshape((2,) + raw.shape[:2] + (2,))
    if kind == "q6_k":
        raw[..., 208:210] = scale[0]
    else:
        raw[..., 0:2], raw[..., 2:4] = scale[0], scale[1]
    return raw.reshape(dense.shape[0], -1)


def run(nohost, device, graph, outputs, options):
    name, out = device, os.path.join(graph.folder, "out_" + device)
    os.makedirs(out, exist_ok=True)
    if device == "rewrite":
        device, options = "interp", options + ["--rewrite"]
    command = [nohost, "eval", "--graph", os.path.join(graph.folder, "graph.txt"), "--inputs",
               graph.folder, "--out", out, "--device", device, "--sym", f"T={T}"] + options
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr.strip()[-2000:]}", 0
    shapes = {o["name"]: o for o in json.loads(done.stdout)["outputs"]}
    worst = 0
    for v in outputs:
        said = shapes[v.name]
        if tuple(said["shape"]) != v.shape or said["dtype"] != ("i32" if v.ints else "f32"):
            return f"{v.name}: shape {said['shape']} {said['dtype']}, want {v.shape}", 0
        got = np.fromfile(said["file"], np.int32 if v.ints else np.float32).reshape(v.shape)
        off = abs(got.astype(np.float64) - v.val)
        half = v.half if name == "lir" or name == "sim" else 0
        allowed = np.asarray(SLACK * (v.err + half) + (0 if v.ints else 1e-37))
        bad = ~(off <= allowed)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            return (f"{v.name}{list(at)} = {got[at]!r}, want {v.val[at]!r} within "
                    f"{allowed[at]:.3g}; {bad.sum()} of {bad.size} are off", 0)
        worst = max(worst, (SLACK * off[allowed > 0] / allowed[allowed > 0]).max(initial=0))
    return None, worst


def reduced(graph, name):
    """The statements that one output needs, beside the whole graph."""
    wanted, kept = {name}, []
    for line in reversed(graph.lines[:-1]):
        words = line.replace("=", " ").replace(",", " ").split()
        made = words[0] if " = " in line else words[1]
        if made in wanted or words[0] == "sym":
            kept.insert(0, line)
            wanted |= set(words)
    path = os.path.join(graph.folder, "reduced.txt")
    with open(path, "w") as file:
        file.write("\n".join(kept + ["output " + name]) + "\n")
    return path


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--nohost", required=True)
    args.add_argument("--model", help="not used: every witness is called alike")
    args.add_argument("--graphs", type=int, default=200)
    args.add_argument("--seed", type=int, default=int(time.time()))
    args.add_argument("--device", default="interp,rewrite,cpu,lir,sim")
    args.add_argument("--steps", type=int, default=14)
    args.add_argument("--int8", action="store_true", help="all graphs; else every fourth")
    args.add_argument("--threads", type=int, default=0)
    args.add_argument("--keep-going", action="store_true")
    args = args.parse_args()
    failed, worst, ops = 0, 0, 0
    np.seterr(all="ignore")
    print(f"seed {args.seed}")
    for seed in range(args.seed, args.seed + args.graphs):
        folder = tempfile.mkdtemp(prefix="nohost-eval-")
        graph, int8 = Graph(seed, folder), args.int8 or seed % 4 == 0
        outputs = graph.build(args.steps, int8)
        ops += len(graph.lines)
        fault = None
        for device in args.device.split(","):
            options = ["--threads", str(args.threads)] if args.threads else []
            fault, used = run(args.nohost, device, graph, outputs, options + ["--int8"] * int8)
            worst = max(worst, used)
            if fault:
                print(f"FAILED seed {seed}{' with --int8' * int8} on {device}, kept in {folder}: "
                      f"{fault}")
                if fault.startswith("v"):
                    print(open(reduced(graph, fault.split("[")[0].split(":")[0])).read())
                failed += 1
                break
        if not fault:
            subprocess.run(["rm", "-rf", folder])
        elif not args.keep_going:
            break
    print(f"{ops} statements; largest error {worst:.2f} of the bound, {SLACK} allowed")
    print(f"{seed + 1 - args.seed - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
