/* What is checked of a cast when it is planned: dtypes, shapes, words that go together, scales. */
#include "op_cast.h"

uint64_t hd_cast_dtype_bit(heed_dtype_t dtype)
{
    return dtype == HEED_F32                                     ? HEED_CAST_CAN_F32
           : dtype == HEED_BF16                                  ? HEED_CAST_CAN_BF16
           : dtype == HEED_F16                                   ? HEED_CAST_CAN_F16
           : dtype == HEED_E4M3                                  ? HEED_CAST_CAN_E4M3
           : dtype == HEED_E5M2                                  ? HEED_CAST_CAN_E5M2
           : hd_fp8_format(dtype).mantissa || dtype == HEED_E8M0 ? HEED_CAST_CAN_FP8_OTHER
                                                                 : 0;
}

static heed_status_t check_shape(const char *name, const heed_tensor_t *tensor,
                                 const heed_tensor_t *src, bool swapped)
{
    if (src->ndim != tensor->ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, but src.ndim=%d", name, tensor->ndim,
                       src->ndim);
    for (int i = 0; i < src->ndim; i++) {
        int from = swapped && i >= src->ndim - 2 ? 2 * src->ndim - 3 - i : i;
        if (src->shape[from] != tensor->shape[i])
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but src.shape[%d]=%lld", name, i,
                           (long long)tensor->shape[i], from, (long long)src->shape[from]);
    }
    return HEED_OK;
}

static heed_status_t check_modes(const heed_cast_desc_t *desc)
{
    const struct {
        const char *name;
        int32_t value, most;
    } modes[] = {{"overflow", desc->overflow, HEED_OVERFLOW_FINITE},
                 {"nan", desc->nan, HEED_NAN_QUIET},
                 {"rounding", desc->rounding, HEED_ROUND_UP},
                 {"scaling", desc->scaling, HEED_SCALE_HEAD},
                 {"scale_use", desc->scale_use, HEED_SCALE_DIVIDES},
                 {"scale_form", desc->scale_form, HEED_SCALE_FORM_MX}};
    for (int i = 0; i < HD_COUNT(modes); i++)
        if (modes[i].value < 0 || modes[i].value > modes[i].most)
            return hd_fail(HEED_ERROR_VALUE, "%s=%d is not 0 to %d", modes[i].name, modes[i].value,
                           modes[i].most);
    bool fp8 = hd_fp8_format(desc->dst.dtype).mantissa != 0, e8m0 = desc->dst.dtype == HEED_E8M0;
    if (desc->rounding == HEED_ROUND_UP && !e8m0)
        return hd_fail(HEED_ERROR_VALUE, "rounding=%d, up, is for dst e8m0, but dst is %s",
                       desc->rounding, heed_dtype_name(desc->dst.dtype));
    if (desc->rounding == HEED_ROUND_STOCHASTIC && !fp8)
        return hd_fail(HEED_ERROR_VALUE, "rounding=%d, stochastic, is for fp8, but dst is %s",
                       desc->rounding, heed_dtype_name(desc->dst.dtype));
    if (desc->rounding == HEED_ROUND_ZERO && !fp8 && !e8m0)
        return hd_fail(HEED_ERROR_VALUE, "rounding=%d, toward zero, is for fp8, but dst is %s",
                       desc->rounding, heed_dtype_name(desc->dst.dtype));
    return HEED_OK;
}

/* One number for each group: with an axis for each of src's, or all in one. */
static heed_status_t check_groups(const char *name, const heed_tensor_t *tensor,
                                  const heed_cast_desc_t *desc)
{
    int64_t block[HEED_MAX_NDIM], all = 1;
    if (tensor->ndim == 0)
        return HEED_OK;
    hd_cast_blocks(desc, block);
    for (int i = 0; i < desc->src.ndim; i++)
        all *= hd_ceil_div(desc->src.shape[i], block[i]);
    if (tensor->ndim == 1 && tensor->shape[0] == all)
        return HEED_OK;
    if (tensor->ndim == 1)
        return hd_fail(HEED_ERROR_SHAPE, "%s.shape[0]=%lld, but there are %lld groups", name,
                       (long long)tensor->shape[0], (long long)all);
    if (tensor->ndim != desc->src.ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d: it takes 1 or src.ndim=%d", name,
                       tensor->ndim, desc->src.ndim);
    for (int i = 0; i < tensor->ndim; i++) {
        int64_t groups = hd_ceil_div(desc->src.shape[i], block[i]);
        if (tensor->shape[i] != groups)
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but there are %lld groups", name,
                           i, (long long)tensor->shape[i], (long long)groups);
    }
    return HEED_OK;
}

static heed_status_t check_scales(const heed_cast_desc_t *desc)
{
    bool given = desc->scale.ndim > 0, computed = desc->scale_out.ndim > 0;
    if (desc->scaling == HEED_SCALE_NONE && (given || computed))
        return hd_fail(HEED_ERROR_VALUE, "scaling=%d, none, but there is a %s", desc->scaling,
                       given ? "scale" : "scale_out");
    if (desc->scaling != HEED_SCALE_NONE && given == computed)
        return hd_fail(HEED_ERROR_VALUE, "scaling=%d takes scale or scale_out, here are %s",
                       desc->scaling, given ? "both" : "neither");
    if (desc->scaling == HEED_SCALE_BLOCK && (desc->block[0] < 1 || desc->block[1] < 1))
        return hd_fail(HEED_ERROR_VALUE, "block=%lld,%lld: both must be at least 1",
                       (long long)desc->block[0], (long long)desc->block[1]);
    if (given && desc->scale.dtype != HEED_F32 && desc->scale.dtype != HEED_E8M0)
        return hd_fail(HEED_ERROR_DTYPE, "scale is %s: it takes f32, e8m0",
                       heed_dtype_name(desc->scale.dtype));
    if (!(desc->amax_floor >= 0) || hd_to_bits(desc->amax_floor) >= HD_F32_INF)
        return hd_fail(HEED_ERROR_VALUE, "amax_floor=%g is not 0 or a finite positive number",
                       (double)desc->amax_floor);
    bool mx = desc->scale_form == HEED_SCALE_FORM_MX;
    if (computed && desc->scale_out.dtype != (mx ? HEED_E8M0 : HEED_F32))
        return hd_fail(HEED_ERROR_DTYPE, "scale_out is %s: scale_form=%d makes %s",
                       heed_dtype_name(desc->scale_out.dtype), desc->scale_form,
                       mx ? "e8m0" : "f32");
    if (computed && mx && desc->scale_use != HEED_SCALE_DIVIDES)
        return hd_fail(HEED_ERROR_VALUE, "scale_use=%d: scales of scale_form=%d, mx, divide",
                       desc->scale_use, desc->scale_form);
    return HEED_OK;
}

/* A list of `size` numbers that is there or not. */
static heed_status_t check_list(const char *name, const heed_tensor_t *tensor, heed_dtype_t dtype,
                                int size)
{
    if (tensor->ndim && tensor->dtype != dtype)
        return hd_fail(HEED_ERROR_DTYPE, "%s is %s: it takes %s", name,
                       heed_dtype_name(tensor->dtype), heed_dtype_name(dtype));
    if (tensor->ndim && (tensor->ndim != 1 || tensor->shape[0] != size))
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, %s.shape[0]=%lld: it takes [%d]", name,
                       tensor->ndim, name, (long long)tensor->shape[0], size);
    return HEED_OK;
}

static heed_status_t check_outputs(const heed_cast_desc_t *desc)
{
    const heed_tensor_t *transposed = &desc->transposed;
    HD_TRY(check_groups("scale", &desc->scale, desc));
    HD_TRY(check_groups("scale_out", &desc->scale_out, desc));
    HD_TRY(check_groups("amax", &desc->amax, desc));
    if (desc->amax.ndim && desc->amax.dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "amax is %s: it takes f32",
                       heed_dtype_name(desc->amax.dtype));
    HD_TRY(check_list("counts", &desc->counts, HEED_I64, HEED_CAST_COUNTS_SIZE));
    HD_TRY(check_list("loss", &desc->loss, HEED_F64, HEED_CAST_LOSS_SIZE));
    if (!transposed->ndim)
        return HEED_OK;
    if (transposed->dtype != desc->dst.dtype)
        return hd_fail(HEED_ERROR_DTYPE, "transposed is %s, but dst is %s",
                       heed_dtype_name(transposed->dtype), heed_dtype_name(desc->dst.dtype));
    if (desc->src.ndim < 2)
        return hd_fail(HEED_ERROR_SHAPE, "src.ndim=%d: transposed takes 2 axes or more",
                       desc->src.ndim);
    return check_shape("transposed", transposed, &desc->src, true);
}

heed_status_t hd_cast_complete(void *at)
{
    const heed_cast_desc_t *desc = at;
    const heed_tensor_t *src = &desc->src, *dst = &desc->dst;
    if (!hd_cast_dtype_bit(src->dtype) || !hd_cast_dtype_bit(dst->dtype))
        return hd_fail(HEED_ERROR_DTYPE, "src is %s and dst is %s: casts take f32, bf16, f16, fp8",
                       heed_dtype_name(src->dtype), heed_dtype_name(dst->dtype));
    HD_TRY(check_shape("dst", dst, src, false));
    HD_TRY(check_modes(desc));
    HD_TRY(check_scales(desc));
    return check_outputs(desc);
}
