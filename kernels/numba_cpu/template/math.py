"""Intrinsics and elementary functions of the Numba engine: the head of every module that it generates.

Where it sits: a template.  codegen copies its text, with the settings of one dtype and one machine in their place, to
the front of each generated module (cache.py): Numba's cache on disk sees one file at a time, so that a kernel and
what it calls must stand in the same one.  The mathematics is that of cython/vmath.h: branch-free, so that LLVM turns
loops over it into vector code; each function lets NaN through.  Addresses are integers, as pointers are in C.
"""

import math

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

# --- settings ---
DOUBLE = True
VECTOR_BYTES = 32
TILE_ROWS = 4
# --- end of settings ---

REAL = np.float64 if DOUBLE else np.float32
BITS = np.uint64 if DOUBLE else np.uint32
ITEM = 8 if DOUBLE else 4
EPSILON = 2.0**-52 if DOUBLE else 2.0**-23

# neither fastmath nor its promise that there is no NaN: contraction to fused multiply-adds is all
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"nsz", "contract"}}
INLINE = {**OPTIONS, "forceinline": True}
KERNEL = {**OPTIONS, "cache": True}

MANTISSA_BITS = BITS(52 if DOUBLE else 23)
EXPONENT_BIAS = BITS(1023 if DOUBLE else 127)
MANTISSA_MASK = BITS(2**52 - 1 if DOUBLE else 2**23 - 1)
SQRT_HALF_BITS = BITS(0x3FE6A09E667F3BCD if DOUBLE else 0x3F3504F3)
ROUND_MAGIC = REAL(6755399441055744.0 if DOUBLE else 12582912.0)  # adding it rounds to an integer in the low bits
EXP_LOW = REAL(-746.0 if DOUBLE else -104.0)
EXP_HIGH = REAL(710.0 if DOUBLE else 89.0)
EXPM1_LOW = REAL(-40.0 if DOUBLE else -20.0)  # below, expm1 is -1 to rounding
LN2_HIGH = REAL(6.93147180369123816490e-01 if DOUBLE else 6.9313812256e-01)
LN2_LOW = REAL(1.90821492927058770002e-10 if DOUBLE else 9.0580006145e-06)
TINY = REAL(2.2250738585072014e-308 if DOUBLE else 1.17549435e-38)
TINY_SCALE = REAL(18014398509481984.0 if DOUBLE else 33554432.0)
TINY_EXPONENT = REAL(54.0 if DOUBLE else 25.0)
INFINITY = REAL(math.inf)
NOT_A_NUMBER = REAL(math.nan)


# --- what Python has no word for ----------------------------------------------------------------------------------


@intrinsic
def select(typingctx, condition, a, b):
    """``a if condition else b`` with both evaluated: no branch."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return a(types.boolean, a, a), codegen


@intrinsic
def bits(typingctx, x):
    """The bits of a number, as an unsigned integer."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return (types.uint64 if x == types.float64 else types.uint32)(x), codegen


@intrinsic
def from_bits(typingctx, i):
    """The number with these bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return (types.float64 if i == types.uint64 else types.float32)(i), codegen


def _load(of):
    def typed(typingctx, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], context.get_value_type(of).as_pointer())
            return builder.load(pointer, align=1)  # X may lie anywhere

        return of(types.intp), codegen

    return typed


# one value at an address
float_at = intrinsic(_load(types.float32))
double_at = intrinsic(_load(types.float64))
int_at = intrinsic(_load(types.int32))
long_at = intrinsic(_load(types.int64))


def _pointer(of):
    def typed(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(of)(types.intp), codegen

    return typed


_reals_at = intrinsic(_pointer(types.float64 if DOUBLE else types.float32))
_doubles_at = intrinsic(_pointer(types.float64))
_longs_at = intrinsic(_pointer(types.int64))


@njit(**INLINE)
def reals(address, n):
    """The n numbers of the module's dtype at an address."""
    return carray(_reals_at(address), n)


@njit(**INLINE)
def doubles(address, n):
    return carray(_doubles_at(address), n)


@njit(**INLINE)
def longs(address, n):
    return carray(_longs_at(address), n)


# --- elementary functions -----------------------------------------------------------------------------------------


@njit(**INLINE)
def abs_(x):
    return abs(x)


@njit(**INLINE)
def sqrt_(x):
    return math.sqrt(x)


@njit(**INLINE)
def expm1_reduced(x, n):
    # exp(r) - 1, r = x - n ln 2
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    if DOUBLE:
        p = REAL(1.6059043836821613e-10)
        p = p * r + REAL(2.08767569878681e-09)
        p = p * r + REAL(2.505210838544172e-08)
        p = p * r + REAL(2.755731922398589e-07)
        p = p * r + REAL(2.7557319223985893e-06)
        p = p * r + REAL(2.48015873015873e-05)
        p = p * r + REAL(1.984126984126984e-04)
        p = p * r + REAL(1.388888888888889e-03)
    else:
        p = REAL(1.9841270e-04)
        p = p * r + REAL(1.3888889e-03)
    p = p * r + REAL(8.333333333333333e-03)
    p = p * r + REAL(4.1666666666666664e-02)
    p = p * r + REAL(1.6666666666666666e-01)
    p = p * r + REAL(0.5)
    return p * r * r + r


@njit(**INLINE)
def exp_(x):
    # Max error 1.1 ULP (2 ULP where the result is subnormal); all of R, 0 below and inf above the dtype's range
    x = select(x < EXP_LOW, EXP_LOW, x)
    x = select(x > EXP_HIGH, EXP_HIGH, x)
    n = (x * REAL(1.44269504088896340736) + ROUND_MAGIC) - ROUND_MAGIC
    p = expm1_reduced(x, n) + REAL(1.0)
    # 2^n in two factors, so that n may leave the range of one exponent field
    half = n * REAL(0.5) + ROUND_MAGIC
    rest = (n - (half - ROUND_MAGIC)) + ROUND_MAGIC
    s0 = from_bits(BITS(BITS(bits(half) + EXPONENT_BIAS) << MANTISSA_BITS))
    s1 = from_bits(BITS(BITS(bits(rest) + EXPONENT_BIAS) << MANTISSA_BITS))
    return p * s0 * s1


@njit(**INLINE)
def expm1_(x):
    # 2 (s p + (s - 1/2)), s = 2^(n-1).  Max error 2.1 ULP; all of R, inf above the dtype's range
    c = select(x < EXPM1_LOW, EXPM1_LOW, x)
    c = select(c > EXP_HIGH, EXP_HIGH, c)
    turned = c * REAL(1.44269504088896340736) + ROUND_MAGIC
    p = expm1_reduced(c, turned - ROUND_MAGIC)
    s = from_bits(BITS(BITS(bits(turned) + BITS(EXPONENT_BIAS - BITS(1))) << MANTISSA_BITS))
    y = s * p + (s - REAL(0.5))
    return select(abs_(x) < REAL(1e-30), x, y + y)


@njit(**INLINE)
def log_(x):
    # Max error 1 ULP; log(0) = -inf, log(inf) = inf, NaN for x < 0
    scaled = select(x < TINY, x * TINY_SCALE, x)
    shift = select(x < TINY, TINY_EXPONENT, REAL(0.0))
    i = BITS(bits(scaled) - SQRT_HALF_BITS)
    biased = BITS(BITS(i + BITS(EXPONENT_BIAS << MANTISSA_BITS)) >> MANTISSA_BITS)
    e = (from_bits(BITS(bits(ROUND_MAGIC) + biased)) - ROUND_MAGIC) - REAL(EXPONENT_BIAS) - shift
    f = from_bits(BITS(BITS(i & MANTISSA_MASK) + SQRT_HALF_BITS)) - REAL(1.0)
    s = f / (REAL(2.0) + f)
    z = s * s
    if DOUBLE:
        R = REAL(1.479819860511658591e-01)
        R = R * z + REAL(1.531383769920937332e-01)
        R = R * z + REAL(1.818357216161805012e-01)
        R = R * z + REAL(2.222219843214978396e-01)
        R = R * z + REAL(2.857142874366239149e-01)
        R = R * z + REAL(3.999999999940941908e-01)
        R = R * z + REAL(6.666666666666735130e-01)
    else:
        R = REAL(2.4279078841e-01)
        R = R * z + REAL(2.8498786688e-01)
        R = R * z + REAL(4.0000972152e-01)
        R = R * z + REAL(6.6666662693e-01)
    R = R * z
    half_square = REAL(0.5) * f * f
    y = e * LN2_HIGH - ((half_square - (s * (half_square + R) + e * LN2_LOW)) - f)
    y = select(x == INFINITY, x, y)
    y = select(x == REAL(0.0), -INFINITY, y)
    y = select(x < REAL(0.0), NOT_A_NUMBER, y)
    return select(x != x, NOT_A_NUMBER, y)


@njit(**INLINE)
def log1p_(x):
    # log(u) + (x - (u - 1)) / u puts the rounding of u = 1 + x right.  Max error 1.5 ULP for x > -1; inf at inf
    u = REAL(1.0) + x
    correction = (x - (u - REAL(1.0))) / u
    y = log_(u)
    return select(abs_(y) == INFINITY, y, y + correction)


@njit(**INLINE)
def tanh_(x):
    # double: max error 1.5 ULP; float: 6 ULP; all of R
    if DOUBLE:
        z = x * x
        p = (REAL(-9.64399179425052238628e-1) * z - REAL(9.92877231001918586564e1)) * z - REAL(1.61468768441708447952e3)
        q = z + REAL(1.12811678491632931402e2)
        q = q * z + REAL(2.23548839060100448583e3)
        q = q * z + REAL(4.84406305325125486048e3)
        small = x + x * (z * (p / q))
        magnitude = abs_(x)
        large = REAL(1.0) - REAL(2.0) / (exp_(REAL(2.0) * magnitude) + REAL(1.0))
        return select(magnitude < REAL(0.625), small, select(x < REAL(0.0), -large, large))
    c = select(x > REAL(7.90531110763549805), REAL(7.90531110763549805), x)
    c = select(c < REAL(-7.90531110763549805), REAL(-7.90531110763549805), c)
    z = c * c
    p = REAL(-2.76076847742355e-16)
    p = p * z + REAL(2.00018790482477e-13)
    p = p * z - REAL(8.60467152213735e-11)
    p = p * z + REAL(5.12229709037114e-08)
    p = p * z + REAL(1.48572235717979e-05)
    p = p * z + REAL(6.37261928875436e-04)
    p = p * z + REAL(4.89352455891786e-03)
    q = REAL(1.19825839466702e-06)
    q = q * z + REAL(1.18534705686654e-04)
    q = q * z + REAL(2.26843463243900e-03)
    q = q * z + REAL(4.89352518554385e-03)
    return select(abs_(x) < REAL(0.0004), x, c * (p / q))


ERF_SMALL = (
    -7.7958988270021422e-10, 1.3720064546777686e-8, -1.6208483801871706e-7, 1.6447424703317362e-6,
    -1.492473690741966e-5, 0.00012055294904839708, -0.00085483259753896921, 0.0052239776071164227,
    -0.02686617064323777, 0.11283791670945006, -0.3761263890318354, 1.2837916709551257e-1,
) if DOUBLE else (
    7.87587506e-5, -0.000801686429, 0.00518908742, -0.026854212, 0.112835947, -0.376126267, 1.28379167e-1,
)  # fmt: skip
ERF_LARGE = (
    -4875.8923220392633, 18137.160165769312, -30368.2623604029, 29840.22786377935, -18775.426689495015,
    7781.0890875471501, -2180.9601729464644, 471.55570766079867, -86.459334453519642, 0.40455583681268243,
    -0.72286056518936877, 2.6697328216797695, 2.8258324602066986, 1.9741595366538843, 1.1284077674102481,
    0.56418867489207286, 1.2731945384119991e-8,
) if DOUBLE else (
    -3.4323474, -1.8260864, 6.45592085, 0.8119633, 1.32302853, 0.54726868, 0.000605118391,
)  # fmt: skip


def _horner(name, coefficients):
    """A polynomial as straight code, highest power first."""
    lines = [f"def {name}(x):", f"    p = REAL({coefficients[0]!r})"]
    lines += [f"    p = p * x + REAL({c!r})" for c in coefficients[1:]]
    return "\n".join([*lines, "    return p"])


exec(_horner("_erf_small", ERF_SMALL))
exec(_horner("_erf_large", ERF_LARGE))
erf_small = njit(**INLINE)(_erf_small)  # noqa: F821
erf_large = njit(**INLINE)(_erf_large)  # noqa: F821


@njit(**INLINE)
def erf_(x):
    # x + x P(x^2) below 1; above, 1 - exp(-x^2) Q(1 / (|x| + 2)).  Max error 1.5 ULP; all of R
    magnitude = abs_(x)
    z = x * x
    large = REAL(1.0) - exp_(-z) * erf_large(REAL(1.0) / (magnitude + REAL(2.0)))
    return select(magnitude < REAL(1.0), x + x * erf_small(z), select(x < REAL(0.0), -large, large))
