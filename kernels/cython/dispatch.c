/* Which instruction sets are in this binary, and which of them the processor has.
 * setup.py defines FASTMLP_AVX2 and FASTMLP_AVX512 when it compiles the matching isa_*.c. */
#include <string.h>

#include "fastmlp.h"

const fm_kernels *fm_table_baseline(int is_double);
#ifdef FASTMLP_AVX2
const fm_kernels *fm_table_avx2(int is_double);
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
#ifdef FASTMLP_AVX512
const fm_kernels *fm_table_avx512(int is_double);
static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif
static int always(void) { return 1; }

static const struct {
    const char *name;
    int (*supported)(void);
    const fm_kernels *(*table)(int is_double);
} ISAS[] = {
    {"baseline", always, fm_table_baseline},
#ifdef FASTMLP_AVX2
    {"avx2", has_avx2, fm_table_avx2},
#endif
#ifdef FASTMLP_AVX512
    {"avx512", has_avx512, fm_table_avx512},
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
            *f32 = ISAS[i].table(0);
            *f64 = ISAS[i].table(1);
            return 0;
        }
    return -1;
}
