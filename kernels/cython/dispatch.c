/* Which instruction sets are in this binary, and which of them the processor has.
 * setup.py defines FASTMLP_AVX2, FASTMLP_AVX512, FASTMLP_AVX512BF16 and FASTMLP_AMX when it compiles the matching code.
 *
 * "avx512bf16" and "amx" are the kernels of AVX-512 with matrix units beside them: products of a network whose
 * matmul_precision is below "highest" may go there.  Dot products of pairs (AVX512-BF16) are used on AMD's processors,
 * where their gain and their rounding were measured.  For tiles (AMX) a process has to ask Linux for permission; other
 * systems are not asked, and have none here.  Names that end with "-emulated" and "-emulated-always" are for tests: the
 * fastest kernels that there are, and the units in C, used where the real ones would be, or everywhere. */
#if defined(FASTMLP_AMX)
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(FASTMLP_AMX) || defined(FASTMLP_AVX512BF16)
#include <cpuid.h>
#endif
#include <string.h>

#include "fastmlp.h"

#define DECLARE(isa) const fm_kernels *fm_table_##isa##_f32(void), *fm_table_##isa##_f64(void)
#define ROW(isa) {#isa, has_##isa, fm_table_##isa##_f32, fm_table_##isa##_f64, NULL}

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

#ifdef FASTMLP_AMX
#define TILE_STATE 18 /* the number of the tiles' registers among the extended states of a thread */

/* NULL: the tiles may be used from now on, by all threads; else why not. */
static const char *why_no_amx(void)
{
    unsigned a, b, c, d, low, high;
    if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & 1u << 22) || !(d & 1u << 24))
        return "the processor has none";
    __get_cpuid(1, &a, &b, &c, &d);
    if (!(c & 1u << 27)) /* OSXSAVE */
        return "the system does not know their registers";
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 3u << 17) != 3u << 17)
        return "the system does not know their registers";
    unsigned long permitted = 0;
    syscall(SYS_arch_prctl, 0x1023, TILE_STATE);     /* ARCH_REQ_XCOMP_PERM */
    if (syscall(SYS_arch_prctl, 0x1022, &permitted)) /* ARCH_GET_XCOMP_PERM */
        return "this Linux is too old to permit them";
    return permitted & 1ul << TILE_STATE ? NULL : "the system does not permit them";
}

static int has_amx(void) { return !why_no_amx(); }
#endif

#ifdef FASTMLP_AVX512BF16
static int has_avx512bf16(void)
{
    unsigned a, b, c, d;
    if (!has_avx512() || !__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx)
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 5;
}
#endif

const char *fm_why_no_units(void)
{
#ifdef FASTMLP_AVX512BF16
    if (has_avx512bf16())
        return NULL;
#endif
#if defined(FASTMLP_AMX)
    return why_no_amx();
#elif defined(FASTMLP_AVX512BF16)
    return "the processor has none";
#else
    return "this build has no code for any";
#endif
}

static const struct {
    const char *name;
    int (*supported)(void);
    const fm_kernels *(*f32)(void), *(*f64)(void);
    const fm_units *(*units)(void);
} ISAS[] = {
    ROW(baseline),
#ifdef FASTMLP_AVX2
    ROW(avx2),
#endif
#ifdef FASTMLP_AVX512
    ROW(avx512),
#endif
#ifdef FASTMLP_AVX512BF16
    {"avx512bf16", has_avx512bf16, fm_table_avx512_f32, fm_table_avx512_f64, fm_units_avx512bf16},
#endif
#ifdef FASTMLP_AMX
    {"amx", has_amx, fm_table_avx512_f32, fm_table_avx512_f64, fm_units_amx},
#endif
};
#define N_ISAS (sizeof ISAS / sizeof ISAS[0])

idx fm_isas(const char **names, idx capacity)
{
    idx n = 0;
    for (size_t i = 0; i < N_ISAS; i++)
        if (ISAS[i].supported() && n < capacity)
            names[n++] = ISAS[i].name;
    return n;
}

/* Fill the tables of a row; its matrix units, if it has some. */
static void use(size_t row, const fm_kernels **f32, const fm_kernels **f64, const fm_units **units)
{
    *f32 = ISAS[row].f32();
    *f64 = ISAS[row].f64();
    *units = ISAS[row].units ? ISAS[row].units() : NULL;
}

int fm_find(const char *isa, const fm_kernels **f32, const fm_kernels **f64, const fm_units **units)
{
    const fm_units *tiles = fm_emulated_tiles(isa), *emulated = tiles ? tiles : fm_emulated_dots(isa);
    for (size_t i = N_ISAS; i-- > 0;)
        if ((emulated || !strcmp(ISAS[i].name, isa)) && ISAS[i].supported()) {
            use(i, f32, f64, units);
            if (emulated)
                *units = emulated;
            return 0;
        }
    return -1;
}
