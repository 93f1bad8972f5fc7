/* One instruction set's kernels for one dtype: included by each isa_*.c with ISA, VBYTES and MR defined.
 *
 *   ISA     name, also part of the exported function fm_table_<ISA>_f32 or _f64
 *   VBYTES  bytes of a vector register; 0: a compiler without vector extensions, one lane
 *   MR      rows of a register tile: 8 where there are 32 vector registers, 4 where there are 16
 */
#include <math.h>
#include <string.h>

#include "fastmlp.h"
#include "tiers.h"

#if defined(__clang__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define IVDEP _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define IVDEP _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define ALWAYS_INLINE __forceinline
#define UNROLL
#define IVDEP __pragma(loop(ivdep))
#else
#define ALWAYS_INLINE inline
#define UNROLL
#define IVDEP
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && VBYTES
#define HAS_SHUFFLE
#if defined(__clang__)
#define UNROLL_LANES _Pragma("clang loop unroll(full)")
#else
#define UNROLL_LANES _Pragma("GCC unroll 16")
#endif
#endif
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(p) __builtin_prefetch(p)
#define PREFETCH_TO_L2(p) __builtin_prefetch(p, 0, 2)
#define PREFETCH_TO_WRITE(p) __builtin_prefetch(p, 1)
#else
#define PREFETCH(p) ((void)(p))
#define PREFETCH_TO_L2(p) ((void)(p))
#define PREFETCH_TO_WRITE(p) ((void)(p))
#endif

#if VBYTES
#define VECTOR_OF_REALS __attribute__((vector_size(VBYTES), aligned(VBYTES), may_alias))
#define ALIGNED __attribute__((aligned(64)))
#define LANES ((int)(VBYTES / sizeof(REAL)))
#else
#define VECTOR_OF_REALS
#define ALIGNED
#define LANES 1
#endif

#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define ISA_NAME STRING(ISA)

/* setup.py compiles every isa_*.c twice, side by side: once for float and once for double. */
#if FASTMLP_DOUBLE
#define REAL double
#define BITS uint64_t
#define EPSILON 2.220446049250313e-16
#define SUFFIX _f64
#define FN(name) name##_f64
#define REAL_IS_DOUBLE
#else
#define REAL float
#define BITS uint32_t
#define EPSILON 1.1920928955078125e-07
#define SUFFIX _f32
#define FN(name) name##_f32
#endif
#include "template.h"

#define TABLE JOIN(JOIN(fm_table_, ISA), SUFFIX)
const fm_kernels *TABLE(void);
const fm_kernels *TABLE(void)
{
    return &FN(KERNELS);
}
