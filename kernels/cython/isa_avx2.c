/* x86-64-v3: AVX2 and FMA, 16 registers of 32 bytes. */
#define ISA avx2
#define VBYTES 32
#define MR 4
#include "kernels.h"
