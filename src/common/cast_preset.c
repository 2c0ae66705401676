/* Presets of casts: whose conversion is reproduced, by the type of the result. */
#include "internal.h"

#include <string.h>

static const char *const names[HEED_CAST_PRESETS] = {
    [HEED_CAST_OCP_SAT] = "ocp_sat",
    [HEED_CAST_OCP_NOSAT] = "ocp_nosat",
    [HEED_CAST_CUDA_SATFINITE] = "cuda_satfinite",
    [HEED_CAST_CUDA_NOSAT] = "cuda_nosat",
    [HEED_CAST_TORCH] = "torch",
    [HEED_CAST_TORCH_BEFORE_2_12] = "torch_before_2_12",
    [HEED_CAST_ML_DTYPES] = "ml_dtypes",
    [HEED_CAST_ONNX_SAT] = "onnx_sat",
    [HEED_CAST_ONNX_NOSAT] = "onnx_nosat",
};

static int32_t overflow_of(heed_cast_preset_t preset, heed_dtype_t dtype)
{
    switch (preset) {
    case HEED_CAST_OCP_SAT:
    case HEED_CAST_CUDA_SATFINITE:
        return HEED_OVERFLOW_SATURATE;
    case HEED_CAST_ONNX_SAT:
        return dtype == HEED_E8M0 ? HEED_OVERFLOW_FINITE : HEED_OVERFLOW_SATURATE;
    case HEED_CAST_TORCH:
        return dtype == HEED_E4M3 ? HEED_OVERFLOW_SATURATE : HEED_OVERFLOW_NOSAT;
    default:
        return HEED_OVERFLOW_NOSAT;
    }
}

static int32_t nan_of(heed_cast_preset_t preset, heed_dtype_t dtype)
{
    switch (preset) {
    case HEED_CAST_ML_DTYPES:
        return HEED_NAN_QUIET;
    case HEED_CAST_ONNX_SAT:
    case HEED_CAST_ONNX_NOSAT: /* E8M0: as ml_dtypes, numbers below 0 would be NaN */
        return dtype == HEED_E8M0 ? HEED_NAN_SIGNED : HEED_NAN_QUIET;
    case HEED_CAST_TORCH:
    case HEED_CAST_TORCH_BEFORE_2_12:
        return HEED_NAN_SIGNED;
    default:
        return HEED_NAN_POSITIVE;
    }
}

heed_status_t heed_cast_apply_preset(heed_cast_desc_t *desc, heed_cast_preset_t preset)
{
    if (!desc)
        return hd_fail(HEED_ERROR_NULL, "desc is null");
    if ((unsigned)preset >= HEED_CAST_PRESETS)
        return hd_fail(HEED_ERROR_VALUE, "preset=%d is none of the %d", (int)preset,
                       HEED_CAST_PRESETS);
    desc->overflow = overflow_of(preset, desc->dst.dtype);
    desc->nan = nan_of(preset, desc->dst.dtype);
    desc->rounding = HEED_ROUND_NEAREST;
    return HEED_OK;
}

const char *heed_cast_preset_name(heed_cast_preset_t preset)
{
    return (unsigned)preset < HEED_CAST_PRESETS ? names[preset] : NULL;
}

heed_status_t heed_cast_preset_parse(const char *name, heed_cast_preset_t *preset)
{
    char known[160];
    hd_text_t text = hd_text(known, sizeof(known));
    if (!name || !preset)
        return hd_fail(HEED_ERROR_NULL, "%s is null", name ? "preset" : "name");
    for (int i = 0; i < HEED_CAST_PRESETS; i++) {
        if (strcmp(name, names[i]) == 0) {
            *preset = (heed_cast_preset_t)i;
            return HEED_OK;
        }
        hd_text_add(&text, "%s%s", i ? ", " : "", names[i]);
    }
    return hd_fail(HEED_ERROR_VALUE, "preset '%s' is unknown: there are %s", name, known);
}
