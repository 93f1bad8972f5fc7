/* Which instruction sets are in this binary, and which of them the processor has.
 * setup.py defines FASTMLP_AVX2 and FASTMLP_AVX512 when it compiles the matching isa_*.c. */
#include <string.h>

#include "fastmlp.h"

#define DECLARE(isa) const fm_kernels *fm_table_##isa##_f32(void), *fm_table_##isa##_f64(void)
#define ROW(isa) {#isa, has_##isa, fm_table_##isa##_f32, fm_table_##isa##_f64}

DECLARE(baseline);
static int has_baseline(void) { return 1; }
#ifdef FASTMLP_AVX2
DECLARE(avx2);
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
#ifdef FASTMLP_AVX512
DECLARE(avx512);
static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

static const struct {
    const char *name;
    int (*supported)(void);
    const fm_kernels *(*f32)(void), *(*f64)(void);
} ISAS[] = {
    ROW(baseline),
#ifdef FASTMLP_AVX2
    ROW(avx2),
#endif
#ifdef FASTMLP_AVX512
    ROW(avx512),
#endif
};

idx fm_isas(const char **names, idx capacity)
{
    idx n = 0;
    for (size_t i = 0; i < sizeof ISAS / sizeof ISAS[0]; i++)
        if (ISAS[i].supported() && n < capacity)
            names[n++] = ISAS[i].name;
    return n;
}

int fm_find(const char *isa, const fm_kernels **f32, const fm_kernels **f64)
{
    for (size_t i = 0; i < sizeof ISAS / sizeof ISAS[0]; i++)
        if (!strcmp(ISAS[i].name, isa) && ISAS[i].supported()) {
            *f32 = ISAS[i].f32();
            *f64 = ISAS[i].f64();
            return 0;
        }
    return -1;
}
