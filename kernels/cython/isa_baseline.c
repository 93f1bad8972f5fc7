/* What every processor of the platform has: SSE2 on x86-64, NEON on arm64, plain C elsewhere. */
#define ISA baseline
#if defined(FASTMLP_ONE_LANE) /* to test what compilers without vector extensions get */
#define VBYTES 0
#define MR 4
#elif defined(__aarch64__) && defined(__GNUC__)
#define VBYTES 16
#define MR 8
#elif defined(__GNUC__)
#define VBYTES 16
#define MR 4
#else
#define VBYTES 0
#define MR 4
#endif
#include "kernels.h"

#if FASTMLP_DOUBLE
/* The tables as the Python border sees them; the same in every instruction set and dtype. */
#define COUNT(table) ((idx)(sizeof(table) / sizeof(table[0])))

idx fm_functions(fm_row *rows, idx capacity)
{
    for (idx i = 0; i < COUNT(FUNCTIONS_f64) && i < capacity; i++)
        rows[i] = (fm_row){.name = FUNCTIONS_f64[i].name};
    return COUNT(FUNCTIONS_f64);
}

idx fm_activations(fm_row *rows, idx capacity)
{
    for (idx i = 0; i < COUNT(ACTIVATIONS_f64) && i < capacity; i++)
        rows[i] = (fm_row){.name = ACTIVATIONS_f64[i].name,
                           .needs_z = ACTIVATIONS_f64[i].needs_z,
                           .n_parameters = ACTIVATIONS_f64[i].n_parameters,
                           .has_slope = ACTIVATIONS_f64[i].backward != NULL};
    return COUNT(ACTIVATIONS_f64);
}

idx fm_losses(fm_row *rows, idx capacity)
{
    for (idx i = 0; i < COUNT(LOSSES_f64) && i < capacity; i++)
        rows[i] = (fm_row){.name = LOSSES_f64[i].name,
                           .link = LOSSES_f64[i].link,
                           .class_targets = LOSSES_f64[i].class_targets,
                           .n_parameters = LOSSES_f64[i].n_parameters};
    return COUNT(LOSSES_f64);
}

idx fm_optimizers(fm_row *rows, idx capacity)
{
    for (idx i = 0; i < COUNT(OPTIMIZERS_f64) && i < capacity; i++)
        rows[i] = (fm_row){.name = OPTIMIZERS_f64[i].name,
                           .n_states = OPTIMIZERS_f64[i].n_states,
                           .n_scalars = OPTIMIZERS_f64[i].n_scalars};
    return COUNT(OPTIMIZERS_f64);
}
#endif
