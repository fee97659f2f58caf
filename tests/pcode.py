"""AMD's pseudo-code, evaluated: the text that tinygrad carries from the RDNA3 ISA document, one
instruction at a time, on plain Python integers and exact fractions. Shares nothing with sim/.

    values = Pcode(text, lookup).run(S0=bits, S1=bits, ..., EXEC=..., laneId=3)

Values are bits of a width; a type suffix says how bits are read. Floats are rounded once, to
nearest even, from exact results. What the text leaves open raises Open.
"""
import math
import re
import struct
from fractions import Fraction


class Open(Exception):
    """The pseudo-code does not say."""


FLOATS = {"f16": (5, 10), "f32": (8, 23), "f64": (11, 52), "bf16": (8, 7)}


def width_of(kind):
    return int(re.sub(r"\D", "", kind))


def decode_float(bits, kind):
    exp_bits, man_bits = FLOATS[kind]
    sign = -1.0 if bits >> (exp_bits + man_bits) & 1 else 1.0
    exponent, mantissa = bits >> man_bits & ((1 << exp_bits) - 1), bits & ((1 << man_bits) - 1)
    if exponent == (1 << exp_bits) - 1:
        return math.nan if mantissa else sign * math.inf
    bias = (1 << (exp_bits - 1)) - 1
    if not exponent:
        return sign * math.ldexp(mantissa, 1 - bias - man_bits)
    return sign * math.ldexp(mantissa | 1 << man_bits, exponent - bias - man_bits)


def encode_float(value, kind, rounding="even"):
    """A float or a Fraction to bits; a Fraction of 0 is +0. rounding: even, up, down, zero."""
    exp_bits, man_bits = FLOATS[kind]
    top, bias = (1 << exp_bits) - 1, (1 << (exp_bits - 1)) - 1
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return top << man_bits | 1 << (man_bits - 1)
        return (top | (value < 0) << exp_bits) << man_bits
    negative = math.copysign(1, value) < 0 if isinstance(value, float) else value < 0
    exact = abs(Fraction(value))
    sign = int(negative) << (exp_bits + man_bits)
    if not exact:
        return sign
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    if exact < Fraction(2) ** exponent:
        exponent -= 1
    exponent = max(exponent, 1 - bias)
    scaled = exact / Fraction(2) ** (exponent - man_bits)
    whole = scaled.numerator // scaled.denominator
    rest = scaled - whole
    away = {"even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole & 1),
            "up": rest and not negative, "down": rest and negative, "zero": False}[rounding]
    whole += bool(away)
    if whole >> (man_bits + 1):
        whole >>= 1
        exponent += 1
    if exponent > bias:
        if rounding == "even" or rounding == ("down" if negative else "up"):
            return sign | top << man_bits
        return sign | ((top << man_bits) - 1)
    if whole < 1 << man_bits:
        return sign | whole
    return sign | (exponent + bias) << man_bits | (whole & ((1 << man_bits) - 1))


class Val:
    """Bits with a kind: u32, i16, f64, b32 ...; `loose` for literals, which take the other's."""

    def __init__(self, bits, kind, loose=False):
        self.kind, self.width, self.loose = kind, width_of(kind), loose
        self.bits = bits & ((1 << self.width) - 1)

    @property
    def is_float(self):
        return self.kind in FLOATS

    def num(self):
        if self.is_float:
            return decode_float(self.bits, self.kind)
        if self.kind[0] == "i" and self.bits >> (self.width - 1) & 1:
            return self.bits - (1 << self.width)
        return self.bits

    def as_kind(self, kind):
        """The same bits, read anew; a signed number is extended when that is wider."""
        value = self.num() if not self.is_float and self.kind[0] == "i" else self.bits
        return Val(value, kind)

    def true(self):
        return self.num() != 0


def number(value, kind, loose=False):
    """A number as a value of a kind: rounds floats, wraps integers."""
    if kind in FLOATS:
        return Val(encode_float(value, kind, Pcode.rounding), kind, loose)
    return Val(int(value), kind, loose)


def exact(op, a, b):
    """Arithmetic of floats with one rounding still to come."""
    if not (math.isfinite(a) and math.isfinite(b)):
        if op == "/":
            return math.nan if math.isinf(a) and math.isinf(b) else a / b if b else math.nan
        return {"+": a + b, "-": a - b, "*": a * b}[op]
    if op == "/":
        if not b:
            return math.nan if not a or math.isnan(a) else math.copysign(
                math.inf, math.copysign(1, a) * math.copysign(1, b))
        result = Fraction(a) / Fraction(b)
    else:
        result = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y}[op](
            Fraction(a), Fraction(b))
    if result == 0:
        if op in "*/":
            return math.copysign(0.0, math.copysign(1, a) * math.copysign(1, b))
        b = -b if op == "-" else b
        if (a or b) and Pcode.rounding == "down":
            return -0.0
        if not a and not b and Pcode.rounding == "down" and \
                math.copysign(1, a) != math.copysign(1, b):
            return -0.0
        return -0.0 if not a and not b and math.copysign(1, a) < 0 > math.copysign(1, b) else 0.0
    return result


def fma(a, b, c):
    if not all(map(math.isfinite, (a, b, c))):
        if (math.isinf(a) or math.isinf(b)) and (a == 0 or b == 0):
            return math.nan
        product = a * b if not (math.isfinite(a) and math.isfinite(b)) else 0.0
        return product + c
    product = exact("*", a, b)
    result = Fraction(product) + Fraction(c)
    if result == 0:
        zero = isinstance(product, float)
        if zero and not c and math.copysign(1, product) == math.copysign(1, c):
            return c
        return -0.0 if Pcode.rounding == "down" else 0.0
    return result


# ---- functions of the text ----

def float_fn(function):
    return lambda a: number(function(a.num()), a.kind)


def floor_of(x):
    if not math.isfinite(x) or x == 0:
        return x
    return math.copysign(float(math.floor(x)), x) if abs(x) < 2**53 else x


def trunc_of(x):
    return x if not math.isfinite(x) else math.copysign(float(math.trunc(x)), x)


def to_int(kind):
    width, signed = width_of(kind), kind[0] == "i"
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)

    def convert(a):
        x = a.num()
        if math.isnan(x):
            return Val(0, kind)
        if math.isinf(x):
            return Val(high if x > 0 else low, kind)
        return Val(min(max(math.trunc(x), low), high), kind)
    return convert


def saturate(kind):
    width, signed = width_of(kind), kind[0] == "i"
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    return lambda a: Val(min(max(a.num(), low), high), kind)


def norm(kind, scale):
    low = -1 if kind[0] == "i" else 0

    def convert(a):
        x = a.num()
        if math.isnan(x):
            return Val(0, kind)
        x = min(max(x, low), 1)
        product = decode_float(encode_float(exact("*", float(x), scale), "f32"), "f32")
        return Val(math.floor(decode_float(encode_float(Fraction(product) + Fraction(1, 2), "f32"),
                                           "f32")), kind)
    return convert


def nan_bit(a, wanted):
    man_bits = FLOATS[a.kind][1]
    return Val(int(math.isnan(a.num()) and (a.bits >> (man_bits - 1) & 1) == wanted), "u1")


def exponent(a):
    exp_bits, man_bits = FLOATS[a.kind]
    return Val(a.bits >> man_bits & ((1 << exp_bits) - 1), "i32")


def ldexp(a, n):
    x = a.num()
    if not math.isfinite(x) or x == 0:
        return a
    return number(Fraction(x) * Fraction(2) ** n.num(), a.kind)


def transcendental(function):
    def convert(*args):
        try:
            return number(float(function(*(a.num() for a in args))), args[-1].kind)
        except (ValueError, ZeroDivisionError):
            return number(math.nan, args[-1].kind)
        except OverflowError:
            return number(math.inf, args[-1].kind)
    return convert


def log2_of(x):
    return -math.inf if x == 0 else math.log2(x)


def pow_of(x, y):
    return math.inf if y == math.inf else 0.0 if y == -math.inf else x ** y


def cast(kind):
    return lambda a: number(a.num(), kind)


FUNCTIONS = {
    "abs": lambda a: Val(a.bits & ~(1 << (a.width - 1)), a.kind),
    "sign": lambda a: Val(a.bits >> (a.width - 1), "u1"),
    "isNAN": lambda a: Val(int(math.isnan(a.num())), "u1"),
    "isSignalNAN": lambda a: nan_bit(a, 0),
    "isQuietNAN": lambda a: nan_bit(a, 1),
    "cvtToQuietNAN": lambda a: Val(a.bits | 1 << (FLOATS[a.kind][1] - 1), a.kind),
    "isEven": lambda a: Val(int(math.isfinite(a.num()) and int(a.num()) % 2 == 0), "u1"),
    "exponent": exponent,
    "mantissa": float_fn(lambda x: x if not x else math.frexp(x)[0]),
    "floor": float_fn(floor_of),
    "trunc": float_fn(trunc_of),
    "fract": lambda a: number(exact("-", a.num(), floor_of(a.num())), a.kind),
    "fma": lambda a, b, c: number(fma(a.num(), b.num(), c.num()), a.kind),
    "ldexp": ldexp,
    "sqrt": transcendental(lambda x: x if x == 0 or x == math.inf else math.sqrt(x)),
    "log2": transcendental(log2_of),
    "pow": transcendental(pow_of),
    "sin": transcendental(math.sin),
    "cos": transcendental(math.cos),
    "signext": lambda a: Val(a.as_kind("i" + str(a.width)).num(), "i64"),
    "signext_from_bit": lambda a, n: Val(
        (a.bits & ((1 << n.num()) - 1)) - (1 << n.num() if n.num() and
                                           a.bits >> (n.num() - 1) & 1 else 0), a.kind),
    "f16_to_snorm": norm("i16", 32767.0), "f32_to_snorm": norm("i16", 32767.0),
    "f16_to_unorm": norm("u16", 65535.0), "f32_to_unorm": norm("u16", 65535.0),
    "v_cvt_i16_f32": to_int("i16"), "v_cvt_u16_f32": to_int("u16"), "f32_to_u8": to_int("u8"),
    "i32_to_i16": saturate("i16"), "u32_to_u16": saturate("u16"), "nop": lambda: None,
}
for _from, _to in [(a, b) for a in ("f16", "f32", "f64", "bf16", "i32", "u32", "i16", "u16", "u8",
                                    "u4") for b in ("f16", "f32", "f64", "i32", "u32", "i16",
                                                    "u16")]:
    _convert = to_int(_to) if _from in FLOATS and _to not in FLOATS else cast(_to)
    FUNCTIONS.setdefault(f"{_from}_to_{_to}", (lambda k, c: lambda a: c(
        a.as_kind(k) if not a.is_float else a))(_from, _convert))

TOKEN = re.compile(r"""\s*(?:
    (?P<cast>\d+'[UIFB])(?=\() | (?P<type>\d+'[UIFB])\b |
    (?P<sized>\d+'(?:0x[0-9a-fA-F]+|\d+\.\d+|\d+)U?) |
    (?P<num>0x[0-9a-fA-F]+(?:ULL|LL|U)?|\d+\.\d+F?|\d+(?:ULL|LL|U|F)?) |
    (?P<name>[A-Za-z_]\w*) |
    (?P<op>\*\*|<<|>>|<=|>=|==|!=|<>|&&|\|\||\+:|\+=|-=|[-+*/%&|^~!<>?:=.,;()\[\]{}])
    )""", re.X)


def tokens_of(text):
    found, at = [], 0
    text = re.sub(r"//[^\n]*", "", text)
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            if text[at:].strip():
                raise Open(f"cannot read {text[at:at + 20]!r}")
            break
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return found


LEVELS = [["||"], ["&&"], ["|"], ["^"], ["&"], ["==", "!=", "<>"], ["<", "<=", ">", ">="],
          ["<<", ">>"], ["+", "-"], ["*", "/", "%"], ["**"]]
TYPE = re.compile(r"(?:bf16|[uifb]\d+)$")


class Pcode:
    """One instruction's text. `lookup(name)` gives the text of another (v_min_f32 ...)."""

    mode = rounding = "even"

    def __init__(self, text, lookup=None):
        self.text = tokens_of(text)
        self.lookup, self.env, self.functions = lookup, {}, {}

    def run(self, **env):
        self.env = {name: value if isinstance(value, (Val, list, bytearray)) else Val(value, "u64")
                    for name, value in env.items()}
        self.result = None
        Pcode.rounding = Pcode.mode
        self.toks, self.pos = self.text, 0
        self.block(True, ())
        return self.env

    # ---- statements ----

    def peek(self, offset=0):
        return self.toks[self.pos + offset][1] if self.pos + offset < len(self.toks) else None

    def take(self, want=None):
        token = self.toks[self.pos]
        if want is not None and token[1] != want:
            raise Open(f"want {want}, seen {token[1]}")
        self.pos += 1
        return token

    def block(self, active, ends):
        """Runs statements until one of `ends`; returns "break", "return" or None."""
        outcome = None
        while self.pos < len(self.toks) and self.peek() not in ends:
            if self.peek() == ";":
                self.take()
                continue
            how = self.statement(active and outcome is None)
            outcome = outcome or how
        return outcome

    def statement(self, active):
        word = self.peek()
        if word == "if":
            return self.conditional(active)
        if word == "for":
            return self.loop(active)
        if word == "break":
            self.take()
            return "break" if active else None
        if word == "return":
            self.take()
            value = self.expression(active)
            if active:
                self.result = value
            return "return" if active else None
        if word == "declare":
            return self.declare(active)
        return self.assignment(active)

    def conditional(self, active):
        self.take()
        outcome, open_still = None, active
        while True:
            chosen = self.expression(open_still)
            self.take("then")
            run = open_still and chosen.true()
            outcome = self.block(run, ("elsif", "else", "endif")) or outcome
            open_still = open_still and not run
            if self.peek() == "elsif":
                self.take()
                continue
            if self.peek() == "else":
                self.take()
                outcome = self.block(open_still, ("endif",)) or outcome
            self.take("endif")
            return outcome

    def loop(self, active):
        self.take()
        name = self.take()[1]
        self.take("in")
        first = self.expression(active)
        self.take(":")
        last = self.expression(active)
        self.take("do")
        start = self.pos
        if not active:
            self.block(False, ("endfor",))
        else:
            for i in range(first.num(), last.num() + 1):
                self.pos = start
                self.env[name] = Val(i, "i32")
                how = self.block(True, ("endfor",))
                if how:
                    break
        self.take("endfor")
        return None

    def declare(self, active):
        self.take()
        name = self.take()[1]
        self.take(":")
        width = int(self.take_sized_type())
        if self.peek() == "[":
            self.take()
            count = self.expression(True).num()
            self.take("]")
            if active and not isinstance(self.env.get(name), list):
                self.env[name] = [Val(0, f"u{width}") for _ in range(count)]
        elif active:
            self.env.setdefault(name, Val(0, f"u{width}"))
        return None

    def take_sized_type(self):
        return self.take()[1].partition("'")[0]

    def assignment(self, active):
        if self.peek(1) == "=" and self.peek(2) == "lambda":
            return self.define(active)
        if self.peek() == "{":
            return self.assign_pair(active)
        target = self.lvalue(active)
        op = self.take()[1]
        if op not in ("=", "+=", "-="):
            raise Open(f"statement {target} {op}")
        value = self.expression(active)
        if active:
            if op != "=":
                value = self.binary(op[0], self.read(target), value)
            self.assign(target, value)
        return None

    def assign_pair(self, active):
        self.take("{")
        high = self.lvalue(active)
        self.take(",")
        low = self.lvalue(active)
        self.take("}")
        self.take("=")
        value = self.expression(active)
        if active:
            low_width = width_of(low[2][-1][1])
            self.assign(low, Val(value.bits, f"u{low_width}"))
            self.assign(high, Val(value.bits >> low_width, "u1"))
        return None

    def define(self, active):
        name = self.take()[1]
        self.take("=")
        self.take("lambda")
        self.take("(")
        names = []
        while self.peek() != ")":
            if self.peek() == ",":
                self.take()
            names.append(self.take()[1])
        self.take(")")
        self.take("(")
        start, depth = self.pos, 1
        while depth:
            depth += {"(": 1, ")": -1}.get(self.take()[1], 0)
        self.functions[name] = (names, start, self.pos - 1)
        return None

    def call_defined(self, name, args):
        names, start, end = self.functions[name]
        kept = self.toks, self.pos, self.env, self.result
        self.toks, self.pos = self.toks[start:end], 0
        self.env = dict(self.env, **dict(zip(names, args)))
        self.result = None
        if any(word in ("return", "if", "declare") for _, word in self.toks):
            self.block(True, ())
            value = self.result
        else:
            value = self.expression(True)
        self.toks, self.pos, self.env, self.result = kept
        return value

    # ---- places: (name, index or None, [accesses]) ----

    def lvalue(self, active):
        name, accesses, index = self.take()[1], [], None
        if name == "MEM":
            self.take("[")
            index = self.expression(active)
            self.take("]")
        while self.peek() in (".", "["):
            accesses.append(self.access(active))
        return name, index, accesses

    def access(self, active):
        if self.take()[1] == ".":
            return ("kind", self.take()[1])
        first = self.expression(active)
        if self.peek() == ":":
            self.take()
            last = self.expression(active)
            self.take("]")
            return ("slice", first, last)
        if self.peek() == "+:":
            self.take()
            count = self.expression(active)
            self.take("]")
            return ("part", first, count)
        self.take("]")
        return ("bit", first)

    def base(self, name, index):
        if name == "MEM":
            return Val(self.memory_read(index.num()), "u64")
        value = self.env.get(name)
        if value is None:
            if name in ("PI", "INF", "NAN"):
                return Val(encode_float({"PI": math.pi, "INF": math.inf, "NAN": math.nan}[name],
                                        "f64"), "f64", True)
            if name in ("ROUND_MODE", "ROUND_TOWARD_ZERO"):
                return Val(int(name != "ROUND_MODE"), "u2")
            if name == "MAX_FLOAT_F32":
                return Val(0x7f7fffff, "f32")
            if name in ("UNDERFLOW_F32", "UNDERFLOW_F64"):
                return number(0.0, name[-3:].lower())
            if name in ("OVERFLOW_F32", "OVERFLOW_F64"):
                return number(math.inf, name[-3:].lower())
            raise Open(f"unknown {name}")
        return value

    def memory_read(self, address):
        return int.from_bytes(self.env["MEMORY"][address:address + 8], "little")

    def read(self, target):
        name, index, accesses = target
        value = self.base(name, index)
        for access in accesses:
            value = self.look(value, access)
        return value

    def look(self, value, access):
        if isinstance(value, list):
            return value[access[1].num()]
        if access[0] == "kind":
            if not TYPE.match(access[1]):
                return value
            if value.is_float and value.loose:
                return number(value.num(), access[1])
            return value.as_kind(access[1])
        if access[0] == "slice":
            high, low = access[1].num(), access[2].num()
            if high < low:  # reversed
                width = low - high + 1
                return Val(int(format(value.bits, f"0{width}b")[::-1][:width], 2), f"u{width}")
            return Val(value.bits >> low, f"u{high - low + 1}")
        if access[0] == "part":
            return Val(value.bits >> access[1].num(), f"u{access[2].num()}")
        return Val(value.bits >> access[1].num(), "u1")

    def assign(self, target, value):
        name, index, accesses = target
        if name == "ROUND_MODE":
            Pcode.rounding = "zero" if value.true() else Pcode.mode
        if accesses and accesses[0][0] == "bit" and isinstance(self.env.get(name), list):
            kind = accesses[-1][1] if accesses[-1][0] == "kind" else value.kind
            self.env[name][accesses[0][1].num()] = self.fit(value, kind)
            return
        kind = next((a[1] for a in accesses if a[0] == "kind" and TYPE.match(a[1])), None)
        if kind:
            value = self.fit(value, kind)
        ranges = [a for a in accesses if a[0] != "kind"]
        if name == "MEM":
            memory, width = self.env["MEMORY"], width_of(kind or "b32") // 8
            memory[index.num():index.num() + width] = value.bits.to_bytes(8, "little")[:width]
            return
        old = self.env.get(name) or Val(0, "u128")
        if not ranges:
            keep = max(old.width, value.width) if name in ("D0", "RETURN_DATA") else value.width
            if name in ("D0", "RETURN_DATA") and keep > value.width:
                bits = old.bits >> value.width << value.width | value.bits
                self.env[name] = Val(bits, f"u{keep}")
            else:
                self.env[name] = value
            return
        low, width = self.place(ranges[0])
        mask = ((1 << width) - 1) << low
        total = max(old.width, low + width)
        kept = "u" + str(total) if name != "tmp" or not kind else "u" + str(total)
        self.env[name] = Val(old.bits & ~mask | value.bits << low & mask, kept)

    @staticmethod
    def place(access):
        if access[0] == "slice":
            return access[2].num(), access[1].num() - access[2].num() + 1
        if access[0] == "part":
            return access[1].num(), access[2].num()
        return access[1].num(), 1

    @staticmethod
    def fit(value, kind):
        """Assignment to a typed place: numbers convert when only one side is a float."""
        if kind in FLOATS:
            if value.is_float and value.kind != kind or not value.is_float and value.loose:
                return number(value.num(), kind)
            return Val(value.bits, kind)
        if value.is_float and not kind.startswith("b"):
            return Val(value.bits, kind)
        return value.as_kind(kind)

    # ---- expressions ----

    def expression(self, active):
        value = self.level(0, active)
        if self.peek() != "?":
            return value
        self.take()
        chosen = active and value.true()
        yes = self.expression(active and chosen)
        self.take(":")
        no = self.expression(active and not chosen)
        return yes if chosen else no

    def level(self, n, active):
        if n == len(LEVELS):
            return self.unary(active)
        value = self.level(n + 1, active)
        while self.peek() in LEVELS[n]:
            op = self.take()[1]
            run = active
            if op in ("&&", "||") and active:
                run = value.true() == (op == "&&")
            other = self.level(n + 1, run)
            if active:
                if op in ("&&", "||"):
                    value = Val(int(other.true() if run else value.true()), "u1")
                else:
                    value = self.binary(op, value, other)
        return value

    @staticmethod
    def common(a, b):
        """The kind that both take: floats win, then width; a literal takes the other's."""
        if a.is_float or b.is_float:
            if a.is_float and (b.loose or not b.is_float):
                return a.kind
            if b.is_float and (a.loose or not a.is_float):
                return b.kind
            return a.kind if a.width >= b.width else b.kind
        if a.loose != b.loose:
            strict, loose = (b, a) if a.loose else (a, b)
            return strict.kind if strict.width >= 32 else f"{loose.kind[0]}32"
        wide = max(a.width, b.width)
        signed = a.kind[0] == "i" and b.kind[0] == "i"
        return f"{'i' if signed else 'u'}{max(wide, 32)}"

    def binary(self, op, a, b):
        if op in ("<<", ">>"):
            by = b.num()
            shifted = a.num() << by if op == "<<" else a.num() >> by
            return Val(shifted, a.kind if not a.loose or a.width >= 32 else "u32")
        if op == "**":
            if a.is_float:
                n = b.num()
                return Val(encode_float(Fraction(a.num()) ** n, "f64"), "f64", True) \
                    if abs(n) < 1000 else Pow2(n)
            raise Open("**")
        if isinstance(a, Pow2) or isinstance(b, Pow2):
            power, other = (a, b) if isinstance(a, Pow2) else (b, a)
            return ldexp(other, Val(min(max(power.by, -5000), 5000), "i32"))
        if op in ("==", "!=", "<>", "<", "<=", ">", ">="):
            return Val(int(self.compare(op, a, b)), "u1")
        kind = self.common(a, b)
        if kind in FLOATS:
            value = exact(op, float(a.num()), float(b.num()))
            if a.loose and b.loose:
                return Val(encode_float(value, "f64"), "f64", True)
            return number(value, kind)
        x, y = a.num(), b.num()
        if op in "&|^":
            x, y = a.as_kind(kind).bits, b.as_kind(kind).bits
        value = {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "&": lambda: x & y,
                 "|": lambda: x | y, "^": lambda: x ^ y, "%": lambda: x % y}[op]()
        return Val(value, kind, a.loose and b.loose)

    @staticmethod
    def compare(op, a, b):
        x, y = a.num(), b.num()
        if op == "<>":
            return x < y or x > y
        return {"==": x == y, "!=": x != y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[op]

    def unary(self, active):
        if self.peek() in ("-", "~", "!", "+"):
            op = self.take()[1]
            value = self.unary(active)
            if not active:
                return value
            if op == "!":
                return Val(int(not value.true()), "u1")
            if op == "~":
                return Val(~value.bits, value.kind)
            if op == "-" and value.is_float:
                return Val(value.bits ^ 1 << (value.width - 1), value.kind, value.loose)
            if op == "-" and not value.loose:
                return Val(-value.num(), value.kind)
            return Val(-value.num(), "i" + str(max(value.width, 32)), True) if op == "-" else value
        return self.postfix(active)

    def postfix(self, active):
        value = self.primary(active)
        while self.peek() in (".", "["):
            access = self.access(active)
            if active:
                value = self.look(value, access)
        return value

    def primary(self, active):
        kind, text = self.take()
        if kind == "cast":
            self.take("(")
            value = self.expression(active)
            self.take(")")
            return self.convert(text, value) if active else value
        if kind == "sized":
            return self.sized(text)
        if kind == "num":
            return self.literal(text)
        if text == "(":
            value = self.expression(active)
            self.take(")")
            return value
        if text == "{":
            return self.concatenation(active)
        if self.peek() == "(":
            return self.call(text, active)
        if text == "MEM":
            self.take("[")
            index = self.expression(active)
            self.take("]")
            return self.base(text, index) if active else Val(0, "u64")
        return self.base(text, None) if active else Val(0, "u64")

    @staticmethod
    def convert(text, value):
        width, letter = int(text.split("'")[0]), text[-1]
        if letter == "F":
            kind = f"f{width}"
            if not value.is_float:  # bits in hexadecimal, or a whole number
                return Val(value.bits, kind) if value.loose or value.width == width else \
                    number(value.num(), kind)
            if math.isnan(value.num()):
                return requiet(value, kind)
            return number(value.num(), kind)
        if letter == "B" or not value.is_float:
            return Val(value.num() if not value.is_float else value.bits,
                       f"{'i' if letter == 'I' else 'u'}{width}")
        return number(value.num(), f"{letter.lower()}{width}")

    @staticmethod
    def sized(text):
        width, digits = text.split("'")
        if "." in digits:
            return number(float(digits), f"f{width}")
        return Val(int(digits.rstrip("U"), 0), f"u{width}" if digits.endswith("U") else f"i{width}",
                   not digits.endswith("U"))

    @staticmethod
    def literal(text):
        if "." in text or (text.endswith("F") and not text.startswith("0x")):
            single = text.endswith("F")
            return Val(encode_float(float(text.rstrip("F")), "f32" if single else "f64"),
                       "f32" if single else "f64", True)
        wide = text.endswith("LL")
        unsigned = "U" in text
        value = int(text.rstrip("UL"), 0)
        wide = wide or value >> 32
        return Val(value, f"{'u' if unsigned or value >> 31 else 'i'}{64 if wide else 32}", True)

    def concatenation(self, active):
        parts = [self.expression(active)]
        while self.peek() == ",":
            self.take()
            parts.append(self.expression(active))
        self.take("}")
        bits, width = 0, 0
        for part in parts:
            bits = bits << part.width | part.bits
            width += part.width
        return Val(bits, f"u{width}")

    def call(self, name, active):
        self.take("(")
        args = []
        while self.peek() != ")":
            if self.peek() == ",":
                self.take()
            args.append(self.expression(active))
        self.take(")")
        if not active:
            return args[0] if args else Val(0, "u32")
        if name in self.functions:
            return self.call_defined(name, args)
        if name in FUNCTIONS:
            return FUNCTIONS[name](*args)
        text = self.lookup(name) if self.lookup else None
        if text is None:
            raise Open(f"no function {name}")
        inner = CALLED.setdefault(name, Pcode(text, self.lookup))
        env = {f"S{n}": arg for n, arg in enumerate(args)}
        for shared in ("WAVE_MODE", "laneId"):
            if shared in self.env:
                env[shared] = self.env[shared]
        out = inner.run(D0=Val(0, args[0].kind if args[0].width > 16 else "u32"), **env)["D0"]
        return Val(out.bits, args[-1].kind if name.startswith(("v_m", "v_s")) else out.kind)


CALLED = {}


class Pow2(Val):
    """2 ** n beyond what f64 holds."""

    def __init__(self, by):
        super().__init__(0, "f64", True)
        self.by = by


def requiet(value, kind):
    """A NaN of another width, kept signalling or quiet, and with its sign."""
    exp_bits, man_bits = FLOATS[kind]
    quiet = value.bits >> (FLOATS[value.kind][1] - 1) & 1
    sign = value.bits >> (value.width - 1)
    mantissa = 1 << (man_bits - 1) if quiet else 1
    return Val((sign << exp_bits | (1 << exp_bits) - 1) << man_bits | mantissa, kind)
