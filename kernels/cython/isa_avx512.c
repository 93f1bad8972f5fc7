/* x86-64-v4: AVX-512 F, DQ, BW, VL; 32 registers of 64 bytes. */
#define ISA avx512
#define VBYTES 64
#define MR 8
#include "kernels.h"
