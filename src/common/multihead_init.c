/* Initial parameters of multi-head dilated attention. */
#include "mix.h"
#include "multihead_parts.h"

#include <math.h>

static double unit(uint64_t *state)
{
    *state += HD_MIX_STEP;
    return ((double)(hd_mix(*state) >> 11) + 0.5) * 0x1p-53;
}

/* Box and Muller, 1958. */
static double normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(unit(state)));
    return radius * cos(6.283185307179586477 * unit(state));
}

static void fill_weight(const heed_multihead_desc_t *desc, const hd_multihead_t *to, int operand,
                        double gain, uint64_t seed)
{
    const heed_tensor_t *weight = &to->tensors[operand];
    int64_t rows = weight->shape[0], columns = weight->shape[1];
    double deviation = gain * sqrt(2 / (double)(rows + columns));
    float *data = (float *)(void *)hd_tensor_data(hd_multihead_tensor(desc, operand));
    uint64_t state = hd_mix(seed);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            data[i * weight->strides[0] + j] = (float)(deviation * normal(&state));
}

static void fill_vector(const heed_multihead_desc_t *desc, const hd_multihead_t *to, int operand,
                        float value)
{
    const heed_tensor_t *vector = &to->tensors[operand];
    float *data = (float *)(void *)hd_tensor_data(hd_multihead_tensor(desc, operand));
    for (int64_t i = 0; vector->ndim && i < vector->shape[0]; i++)
        data[i] = value;
}

heed_status_t heed_multihead_init(const heed_multihead_desc_t *desc, uint64_t seed)
{
    static const int zeros[] = {HEED_MULTIHEAD_Q_BIAS, HEED_MULTIHEAD_K_BIAS, HEED_MULTIHEAD_V_BIAS,
                                HEED_MULTIHEAD_OUT_BIAS, HEED_MULTIHEAD_NORM_BETA};
    heed_multihead_desc_t full;
    hd_multihead_t to;
    HD_TRY(hd_struct_copy(&full, sizeof(full), desc, sizeof(full), "desc"));
    HD_TRY(hd_multihead_parameters(&full, true, true, &to));
    double gamma = (double)to.config.gamma_init;
    fill_weight(&full, &to, HEED_MULTIHEAD_Q_WEIGHT, 1, seed);
    fill_weight(&full, &to, HEED_MULTIHEAD_K_WEIGHT, 1, seed + 1);
    fill_weight(&full, &to, HEED_MULTIHEAD_V_WEIGHT, gamma, seed + 2);
    fill_weight(&full, &to, HEED_MULTIHEAD_OUT_WEIGHT, gamma, seed + 3);
    for (int i = 0; i < HD_COUNT(zeros); i++)
        fill_vector(&full, &to, zeros[i], 0);
    fill_vector(&full, &to, HEED_MULTIHEAD_NORM_GAMMA, 1);
    return HEED_OK;
}
