/* exp, expm1, log, log1p, tanh, erf, sin, cos as branch-free scalar code that compilers vectorise; a template over REAL.
 *
 * Every function lets NaN through.  Max error and range stand at each; tests/test_vmath.py measures them.
 */

#ifdef REAL_IS_DOUBLE
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define ROUND_MAGIC 6755399441055744.0 /* 1.5 * 2^52: adding it rounds to an integer kept in the low bits */
#define EXP_LOW (-746.0)
#define EXP_HIGH 710.0
#define EXPM1_LOW (-40.0) /* below, expm1 is -1 to rounding */
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define HALF_PI_HIGH 1.57079632673412561417e+00 /* 33 bits, as the next: products with k are exact */
#define HALF_PI_MIDDLE 6.07710050630396597660e-11
#define HALF_PI_LOW 2.02226624871116645580e-21
#define HALF_PI_LOWEST 8.47842766036889956997e-32
#define TINY 2.2250738585072014e-308
#define TINY_SCALE 18014398509481984.0 /* 2^54 */
#define TINY_EXPONENT 54
#else
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define ROUND_MAGIC 12582912.0f /* 1.5 * 2^23 */
#define EXP_LOW (-104.0f)
#define EXP_HIGH 89.0f
#define EXPM1_LOW (-20.0f)
#define LN2_HIGH 6.9313812256e-01f
#define LN2_LOW 9.0580006145e-06f
#define HALF_PI_HIGH 1.5703125f
#define HALF_PI_MIDDLE 4.837512969970703125e-4f
#define HALF_PI_LOW 7.549533620476723e-08f
#define HALF_PI_LOWEST 2.56334415e-12f
#define TINY 1.17549435e-38f
#define TINY_SCALE 33554432.0f /* 2^25 */
#define TINY_EXPONENT 25
#endif

static inline BITS FN(bits)(REAL x)
{
    BITS i;
    memcpy(&i, &x, sizeof i);
    return i;
}

static inline REAL FN(from_bits)(BITS i)
{
    REAL x;
    memcpy(&x, &i, sizeof x);
    return x;
}

static inline REAL FN(abs)(REAL x)
{
    return FN(from_bits)(FN(bits)(x) & ~((BITS)1 << (sizeof(REAL) * 8 - 1)));
}

static inline REAL FN(sqrt)(REAL x)
{
#ifdef REAL_IS_DOUBLE
    return sqrt(x);
#else
    return sqrtf(x);
#endif
}

/* exp(r) - 1 by its Taylor polynomial, r = x - n ln 2 in [-ln2/2, ln2/2].  *turned = n + ROUND_MAGIC. */
static inline REAL FN(expm1_reduced)(REAL x, REAL *turned)
{
    *turned = x * (REAL)1.44269504088896340736 + ROUND_MAGIC;
    const REAL n = *turned - ROUND_MAGIC;
    const REAL r = (x - n * LN2_HIGH) - n * LN2_LOW;
    REAL p;
#ifdef REAL_IS_DOUBLE
    p = 1.6059043836821613e-10; /* 1/13! */
    p = p * r + 2.08767569878681e-09;
    p = p * r + 2.505210838544172e-08;
    p = p * r + 2.755731922398589e-07;
    p = p * r + 2.7557319223985893e-06;
    p = p * r + 2.48015873015873e-05;
    p = p * r + 1.984126984126984e-04;
    p = p * r + 1.388888888888889e-03;
#else
    p = 1.9841270e-04f; /* 1/7! */
    p = p * r + 1.3888889e-03f;
#endif
    p = p * r + (REAL)8.333333333333333e-03;
    p = p * r + (REAL)4.1666666666666664e-02;
    p = p * r + (REAL)1.6666666666666666e-01;
    p = p * r + (REAL)0.5;
    return p * r * r + r; /* the two largest terms last: 1 + (r + r^2 (...)) */
}

/* exp(x) = 2^n exp(r).
 * Max error 1.1 ULP (2 ULP where the result is subnormal); all of R, 0 below and inf above the dtype's range. */
static inline REAL FN(exp)(REAL x)
{
    x = x < EXP_LOW ? EXP_LOW : x;
    x = x > EXP_HIGH ? EXP_HIGH : x;
    REAL turned;
    const REAL p = FN(expm1_reduced)(x, &turned) + (REAL)1.0, n = turned - ROUND_MAGIC;
    /* 2^n in two factors, so that n may leave the range of one exponent field */
    const REAL half = n * (REAL)0.5 + ROUND_MAGIC;
    const REAL rest = (n - (half - ROUND_MAGIC)) + ROUND_MAGIC;
    const REAL s0 = FN(from_bits)((FN(bits)(half) + EXPONENT_BIAS) << MANTISSA_BITS);
    const REAL s1 = FN(from_bits)((FN(bits)(rest) + EXPONENT_BIAS) << MANTISSA_BITS);
    return p * s0 * s1;
}

/* exp(x) - 1 = 2 (s p + (s - 1/2)), p = exp(r) - 1, s = 2^(n-1): the half keeps 2^n in the range of one exponent field.
 * Max error 2.1 ULP; all of R, inf above the dtype's range.  So near to 0 that p / 2 may be subnormal it is x. */
static inline REAL FN(expm1)(REAL x)
{
    REAL c = x < EXPM1_LOW ? EXPM1_LOW : x, turned;
    c = c > EXP_HIGH ? EXP_HIGH : c;
    const REAL p = FN(expm1_reduced)(c, &turned);
    const REAL s = FN(from_bits)((FN(bits)(turned) + (EXPONENT_BIAS - 1)) << MANTISSA_BITS);
    const REAL y = s * p + (s - (REAL)0.5);
    return FN(abs)(x) < (REAL)1e-30 ? x : y + y;
}

/* log(x) = e ln 2 + log(m), m in [sqrt(1/2), sqrt(2)), by the odd series of s = (m - 1) / (m + 1) as in fdlibm.
 * Max error 1 ULP; log(0) = -inf, log(inf) = inf, NaN for x < 0. */
static inline REAL FN(log)(REAL x)
{
    const REAL scaled = x < TINY ? x * TINY_SCALE : x; /* subnormals */
    const REAL shift = x < TINY ? (REAL)TINY_EXPONENT : (REAL)0.0;
    const BITS sqrt_half = FN(bits)((REAL)0.70710678118654752440);
    const BITS i = FN(bits)(scaled) - sqrt_half;
    /* the exponent, biased to stay positive, becomes a number by sitting in the low bits of ROUND_MAGIC */
    const BITS biased = (i + ((BITS)EXPONENT_BIAS << MANTISSA_BITS)) >> MANTISSA_BITS;
    const REAL e = (FN(from_bits)(FN(bits)(ROUND_MAGIC) + biased) - ROUND_MAGIC) - (REAL)EXPONENT_BIAS - shift;
    const BITS mantissa = (i & (((BITS)1 << MANTISSA_BITS) - 1)) + sqrt_half;
    const REAL f = FN(from_bits)(mantissa) - (REAL)1.0;
    const REAL s = f / ((REAL)2.0 + f);
    const REAL z = s * s;
    REAL R;
#ifdef REAL_IS_DOUBLE
    R = 1.479819860511658591e-01;
    R = R * z + 1.531383769920937332e-01;
    R = R * z + 1.818357216161805012e-01;
    R = R * z + 2.222219843214978396e-01;
    R = R * z + 2.857142874366239149e-01;
    R = R * z + 3.999999999940941908e-01;
    R = R * z + 6.666666666666735130e-01;
#else
    R = 2.4279078841e-01f;
    R = R * z + 2.8498786688e-01f;
    R = R * z + 4.0000972152e-01f;
    R = R * z + 6.6666662693e-01f;
#endif
    R = R * z;
    const REAL half_square = (REAL)0.5 * f * f;
    REAL y = e * LN2_HIGH - ((half_square - (s * (half_square + R) + e * LN2_LOW)) - f);
    y = x == (REAL)INFINITY ? x : y;
    y = x == (REAL)0.0 ? -(REAL)INFINITY : y;
    return x < (REAL)0.0 || x != x ? (REAL)NAN : y;
}

/* log(1 + x) with the rounding of 1 + x put right: log(u) + (x - (u - 1)) / u.
 * Max error 1.5 ULP for x > -1; inf at inf. */
static inline REAL FN(log1p)(REAL x)
{
    const REAL u = (REAL)1.0 + x;
    const REAL correction = (x - (u - (REAL)1.0)) / u;
    const REAL y = FN(log)(u);
    const REAL corrected = y + correction;
    return FN(abs)(y) == (REAL)INFINITY ? y : corrected;
}

/* tanh(x).
 * double: Cephes' rational approximation below 0.625, else 1 - 2 / (exp(2|x|) + 1).  Max error 1.5 ULP; all of R.
 * float: one rational approximation x P(x^2) / Q(x^2), degrees 13 and 6, as in Eigen and XLA; beyond 7.9 it is 1 to
 * rounding.  Max error 6 ULP; all of R.  Half the work: layers of tanh are bound by it, not by their products. */
static inline REAL FN(tanh)(REAL x)
{
#ifdef REAL_IS_DOUBLE
    const double z = x * x;
    const double p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z - 1.61468768441708447952e3;
    const double q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3;
    const double small = x + x * (z * (p / q));
    const double magnitude = FN(abs)(x);
    const double large = 1.0 - 2.0 / (FN(exp)(2.0 * magnitude) + 1.0);
    return magnitude < 0.625 ? small : (x < 0.0 ? -large : large);
#else
    const float magnitude = FN(abs)(x), most = 7.90531110763549805f;
    const float c = magnitude > most ? FN(from_bits)(FN(bits)(most) | (FN(bits)(x) & 0x80000000u)) : x; /* one comparison */
    const float z = c * c;
    float p = -2.76076847742355e-16f;
    p = p * z + 2.00018790482477e-13f;
    p = p * z - 8.60467152213735e-11f;
    p = p * z + 5.12229709037114e-08f;
    p = p * z + 1.48572235717979e-05f;
    p = p * z + 6.37261928875436e-04f;
    p = p * z + 4.89352455891786e-03f;
    float q = 1.19825839466702e-06f;
    q = q * z + 1.18534705686654e-04f;
    q = q * z + 2.26843463243900e-03f;
    q = q * z + 4.89352518554385e-03f;
    const float t = c * (p / q);
    return magnitude < 0.0004f ? x : t;
#endif
}

/* erf(x) = x + x P(x^2) below 1; above, 1 - exp(-x^2) Q(1 / (|x| + 2)), where Q fits exp(x^2) erfc(x).  Polynomials through
 * Chebyshev's nodes.  Max error 1.5 ULP; all of R. */
static inline REAL FN(erf)(REAL x)
{
    const REAL magnitude = FN(abs)(x);
    const REAL z = x * x;
    const REAL t = (REAL)1.0 / (magnitude + (REAL)2.0);
#ifdef REAL_IS_DOUBLE
    REAL p = -7.7958988270021422e-10;
    p = p * z + 1.3720064546777686e-8;
    p = p * z - 1.6208483801871706e-7;
    p = p * z + 1.6447424703317362e-6;
    p = p * z - 1.492473690741966e-5;
    p = p * z + 0.00012055294904839708;
    p = p * z - 0.00085483259753896921;
    p = p * z + 0.0052239776071164227;
    p = p * z - 0.02686617064323777;
    p = p * z + 0.11283791670945006;
    p = p * z - 0.3761263890318354;
    p = p * z + 1.2837916709551257e-1; /* less 1 */
    REAL q = -4875.8923220392633;
    q = q * t + 18137.160165769312;
    q = q * t - 30368.2623604029;
    q = q * t + 29840.22786377935;
    q = q * t - 18775.426689495015;
    q = q * t + 7781.0890875471501;
    q = q * t - 2180.9601729464644;
    q = q * t + 471.55570766079867;
    q = q * t - 86.459334453519642;
    q = q * t + 0.40455583681268243;
    q = q * t - 0.72286056518936877;
    q = q * t + 2.6697328216797695;
    q = q * t + 2.8258324602066986;
    q = q * t + 1.9741595366538843;
    q = q * t + 1.1284077674102481;
    q = q * t + 0.56418867489207286;
    q = q * t + 1.2731945384119991e-8;
#else
    REAL p = 7.87587506e-5f;
    p = p * z - 0.000801686429f;
    p = p * z + 0.00518908742f;
    p = p * z - 0.026854212f;
    p = p * z + 0.112835947f;
    p = p * z - 0.376126267f;
    p = p * z + 1.28379167e-1f; /* less 1 */
    REAL q = -3.4323474f;
    q = q * t - 1.8260864f;
    q = q * t + 6.45592085f;
    q = q * t + 0.8119633f;
    q = q * t + 1.32302853f;
    q = q * t + 0.54726868f;
    q = q * t + 0.000605118391f;
#endif
    const REAL large = (REAL)1.0 - FN(exp)(-z) * q;
    const REAL signed_large = x < (REAL)0.0 ? -large : large;
    const REAL small = x + x * p;
    return magnitude < (REAL)1.0 ? small : signed_large;
}

/* sin(x) and cos(x): k = x / (pi/2) rounded, r = x - k pi/2 in four parts (Cody and Waite 1980), sin r and cos r by
 * fdlibm's and Cephes' polynomials, which k's last two bits exchange and negate.
 * Max error 1.6 ULP up to 1000, 2.5 ULP up to 1e4 (float) or 1e6; beyond, digits are lost, but a number remains a number
 * within [-1, 1].  NaN at infinity. */
static inline void FN(sincos)(REAL x, REAL *sine, REAL *cosine)
{
    const REAL turned = x * (REAL)0.63661977236758134308 + ROUND_MAGIC;
    const BITS quarter = FN(bits)(turned);
    const REAL k = turned - ROUND_MAGIC;
    REAL r = (((x - k * HALF_PI_HIGH) - k * HALF_PI_MIDDLE) - k * HALF_PI_LOW) - k * HALF_PI_LOWEST;
    r = r > (REAL)0.8 ? (REAL)0.8 : r; /* x is beyond the range */
    r = r < (REAL)-0.8 ? (REAL)-0.8 : r;
    const REAL z = r * r;
#ifdef REAL_IS_DOUBLE
    REAL s = 1.58969099521155010221e-10;
    s = s * z - 2.50507602534068634195e-08;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z - 1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = s * z - 1.66666666666666324348e-01;
    REAL c = -1.13596475577881948265e-11;
    c = c * z + 2.08757232129817482790e-09;
    c = c * z - 2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z - 1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
#else
    REAL s = -1.9515295891e-4f;
    s = s * z + 8.3321608736e-3f;
    s = s * z - 1.6666654611e-1f;
    REAL c = 2.443315711809948e-5f;
    c = c * z - 1.388731625493765e-3f;
    c = c * z + 4.166664568298827e-2f;
#endif
    s = r + r * (z * s);
    const REAL half = (REAL)0.5 * z, rest = (REAL)1.0 - half;
    c = rest + ((((REAL)1.0 - rest) - half) + z * z * c);
    const REAL first = quarter & 1 ? c : s, second = quarter & 1 ? s : c;
    const BITS sign = (BITS)1 << (sizeof(REAL) * 8 - 1);
    *sine = FN(from_bits)(FN(bits)(first) ^ (quarter & 2 ? sign : 0));
    *cosine = FN(from_bits)(FN(bits)(second) ^ ((quarter + 1) & 2 ? sign : 0));
}

static inline REAL FN(cos)(REAL x)
{
    REAL sine, cosine;
    FN(sincos)(x, &sine, &cosine);
    return cosine;
}

#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef ROUND_MAGIC
#undef EXP_LOW
#undef EXP_HIGH
#undef EXPM1_LOW
#undef LN2_HIGH
#undef LN2_LOW
#undef TINY
#undef TINY_SCALE
#undef TINY_EXPONENT
#undef HALF_PI_HIGH
#undef HALF_PI_MIDDLE
#undef HALF_PI_LOW
#undef HALF_PI_LOWEST
