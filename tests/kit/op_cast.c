/* Casts for the kit: problems and inputs. */
#include "kit_cast.h"
#include "kit_fp8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    heed_dtype_t dtype;
    uint64_t bit;
} dtypes[] = {{"f32", HEED_F32, HEED_CAST_CAN_F32},
              {"bf16", HEED_BF16, HEED_CAST_CAN_BF16},
              {"f16", HEED_F16, HEED_CAST_CAN_F16},
              {"e4m3", HEED_E4M3, HEED_CAST_CAN_E4M3},
              {"e5m2", HEED_E5M2, HEED_CAST_CAN_E5M2},
              {"e4m3fnuz", HEED_E4M3FNUZ, HEED_CAST_CAN_FP8_OTHER},
              {"e5m2fnuz", HEED_E5M2FNUZ, HEED_CAST_CAN_FP8_OTHER},
              {"e4m3ieee", HEED_E4M3IEEE, HEED_CAST_CAN_FP8_OTHER},
              {"e8m0", HEED_E8M0, HEED_CAST_CAN_FP8_OTHER}};
enum { DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

/* ---- problems -------------------------------------------------------------------------------- */

static int draw_dtype(kit_random_t *random, uint64_t features)
{
    int at = (int)kit_random_int(random, 0, DTYPES - 1);
    for (int i = 0; i < DTYPES && !(features & dtypes[at].bit); i++)
        at = (at + 1) % DTYPES;
    return at;
}

static bool draw_bit(kit_random_t *random, uint64_t features, uint64_t bit)
{
    return features & bit && kit_random_next(random) % 2;
}

static int draw_scales(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    static const char *const scales[] = {"tensor", "row", "column", "block", "head"};
    static const char *const forms[] = {"f32", "pow2", "mx"};
    bool given = draw_bit(random, features, HEED_CAST_CAN_SCALE);
    bool computed = !given && draw_bit(random, features, HEED_CAST_CAN_COMPUTE);
    if (!given && !computed)
        return 0;
    int form = computed ? (int)kit_random_int(random, 0, 2) : 0;
    bool e8m0 = computed ? form == 2 : kit_random_next(random) % 3 == 0;
    bool divides = form == 2 || kit_random_next(random) % 2;
    const char *floor = computed && kit_random_next(random) % 4 == 0 ? "0.75" : "0";
    return snprintf(text, size,
                    " scale=%s block=%lld,%lld compute=%d form=%s use=%s scale_dtype=%s floor=%s",
                    scales[kit_random_int(random, 0, 4)], (long long)kit_random_int(random, 1, 9),
                    (long long)kit_random_int(random, 1, 40), computed, forms[form],
                    divides ? "divides" : "multiplies", e8m0 ? "e8m0" : "f32", floor);
}

static void draw_problem(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    static const char *const overflows[] = {"saturate", "nosat", "finite"};
    static const char *const nans[] = {"positive", "signed", "quiet"};
    static const char *const roundings[] = {"nearest", "zero", "stochastic"};
    int src = draw_dtype(random, features), dst = draw_dtype(random, features);
    int64_t most = kit_random_next(random) % 8 ? 300 : 20000;
    int64_t rows = kit_random_next(random) % 2 ? kit_random_int(random, 1, 12) : 1;
    int64_t heads = rows > 1 && kit_random_next(random) % 3 == 0 ? kit_random_int(random, 1, 4) : 1;
    int64_t n = kit_random_int(random, 0, most) / (rows * heads) * rows * heads, stride[2] = {1, 1};
    if (draw_bit(random, features, HEED_CAST_CAN_STRIDED))
        for (int i = 0; i < 2; i++)
            stride[i] = kit_random_int(random, 1, 5);
    int used =
        snprintf(text, size,
                 "cast src=%s dst=%s n=%lld rows=%lld heads=%lld stride=%lld,%lld "
                 "overflow=%s nan=%s",
                 dtypes[src].name, dtypes[dst].name, (long long)n, (long long)rows,
                 (long long)heads, (long long)stride[0], (long long)stride[1],
                 overflows[kit_random_int(random, 0, 2)], nans[kit_random_int(random, 0, 2)]);
    if (draw_bit(random, features, HEED_CAST_CAN_ROUNDING) && dst > 2) {
        bool e8m0 = dtypes[dst].dtype == HEED_E8M0;
        int rounding = (int)kit_random_int(random, 0, 2);
        used += snprintf(text + used, size - (size_t)used, " rounding=%s seed=%lld",
                         e8m0 && rounding == 2 ? "up" : roundings[rounding],
                         (long long)(kit_random_next(random) >> 1));
    }
    used += draw_scales(random, features, text + used, size - (size_t)used);
    bool stats = features & HEED_CAST_CAN_STATISTICS;
    snprintf(text + used, size - (size_t)used, " amax=%d counts=%d transposed=%d loss=%d",
             stats && kit_random_next(random) % 2, stats && kit_random_next(random) % 2,
             features & HEED_CAST_CAN_TRANSPOSED && kit_random_next(random) % 4 == 0,
             draw_bit(random, features, HEED_CAST_CAN_LOSS));
}

static const char *const corners[] = {
    "cast src=f32 dst=bf16 n=0",
    "cast src=bf16 dst=e4m3 n=100003 scale=tensor compute=1 use=divides counts=1 loss=1",
    "cast src=f32 dst=e5m2 n=70016 rows=64 scale=block block=1,32 loss=1",
    "cast src=e4m3 dst=f32 n=8192 rows=2 scale=block block=1,32 use=divides loss=1",
    "cast src=f32 dst=bf16 n=1",
    "cast src=bf16 dst=f32 n=1",
    "cast src=f16 dst=bf16 n=17",
    "cast src=f32 dst=f32 n=33",
    "cast src=f32 dst=f16 n=70001",
    "cast src=bf16 dst=f16 n=65537 stride=3,2",
    "cast src=f32 dst=e4m3 n=0 scale=tensor compute=1 amax=1 counts=1",
    "cast src=f32 dst=e4m3 n=1 scale=tensor compute=1 amax=1 counts=1",
    "cast src=f32 dst=e4m3 n=100003 overflow=nosat nan=signed amax=1 counts=1",
    "cast src=f32 dst=e5m2 n=100003 overflow=finite nan=quiet scale=tensor amax=1 counts=1",
    "cast src=bf16 dst=e4m3 n=131072 rows=128 scale=row compute=1 use=divides amax=1",
    "cast src=f32 dst=e4m3 n=131072 rows=64 scale=column compute=1 use=divides counts=1",
    "cast src=f32 dst=e4m3 n=90000 rows=300 scale=block block=128,128 compute=1 transposed=1",
    ("cast src=f32 dst=e4m3 n=70000 rows=70 scale=block block=1,32 compute=1 form=mx use=divides "
     "scale_dtype=e8m0"),
    ("cast src=e4m3 dst=bf16 n=70000 rows=70 scale=block block=1,32 scale_dtype=e8m0"),
    "cast src=e4m3 dst=e5m2 n=66000",
    "cast src=f32 dst=e5m2 n=70000 rounding=stochastic seed=81985529216486895",
    "cast src=bf16 dst=e4m3 n=96000 rows=100 heads=8 scale=head compute=1 amax=1",
    NULL,
};

static bool is_dense(const heed_tensor_t *tensor)
{
    return kit_elements(tensor) < 2 || heed_tensor_span(tensor) == kit_elements(tensor);
}

static uint64_t dtype_bit(heed_dtype_t dtype)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].bit;
    return 0;
}

static uint64_t needs(const void *at)
{
    const heed_cast_desc_t *desc = at;
    bool strided = !is_dense(&desc->src) || !is_dense(&desc->dst);
    return dtype_bit(desc->src.dtype) | dtype_bit(desc->dst.dtype) |
           (strided ? HEED_CAST_CAN_STRIDED : 0) | (desc->rounding ? HEED_CAST_CAN_ROUNDING : 0) |
           (desc->scale.ndim ? HEED_CAST_CAN_SCALE : 0) |
           (desc->scale_out.ndim ? HEED_CAST_CAN_COMPUTE : 0) |
           (desc->amax.ndim || desc->counts.ndim ? HEED_CAST_CAN_STATISTICS : 0) |
           (desc->transposed.ndim ? HEED_CAST_CAN_TRANSPOSED : 0) |
           (desc->loss.ndim ? HEED_CAST_CAN_LOSS : 0);
}

/* ---- inputs ---------------------------------------------------------------------------------- */

/* A double next to a point between two numbers of `dtype`, or on it: where rounding is decided. */
static double near_midpoint(kit_random_t *random, heed_dtype_t dtype)
{
    uint16_t pair[2];
    double middle;
    if (heed_dtype_size(dtype) == 1) {
        uint8_t code = (uint8_t)kit_random_next(random);
        middle = (kit_fp8_value(dtype, code) + kit_fp8_value(dtype, (uint8_t)(code + 1))) / 2;
    } else {
        pair[0] = (uint16_t)kit_random_next(random);
        pair[1] = (uint16_t)(pair[0] + 1);
        middle = (kit_load(dtype, pair, 0) + kit_load(dtype, pair, 1)) / 2;
    }
    float value = (float)middle;
    int64_t aside = kit_random_int(random, -1, 1);
    return aside ? nextafterf(value, aside < 0 ? -INFINITY : INFINITY) : value;
}

static void put(const heed_tensor_t *tensor, void *data, int64_t offset, double value)
{
    const heed_cast_desc_t rules = {.nan = HEED_NAN_SIGNED};
    if (heed_dtype_size(tensor->dtype) == 1)
        ((uint8_t *)data)[offset] = kit_fp8_round(&rules, tensor->dtype, (float)value, 0);
    else
        kit_store(tensor->dtype, data, offset, value);
}

/* Any bits of the type: NaN, signalling ones too, infinities and subnormal numbers among them. */
static void put_any(kit_random_t *random, const heed_tensor_t *tensor, void *data, int64_t offset)
{
    uint64_t bits = kit_random_next(random);
    size_t size = heed_dtype_size(tensor->dtype);
    memcpy((char *)data + (size_t)offset * size, &bits, size);
}

static void fill_source(kit_random_t *random, kit_values_t values, const heed_tensor_t *src,
                        heed_dtype_t dst, void *data)
{
    heed_dtype_t middle = dst == HEED_F32 ? HEED_E4M3 : dst;
    int64_t count = kit_elements(src);
    bool with_nan = kit_random_next(random) % 2;
    for (int64_t i = 0; i < count; i++) {
        int64_t offset = offset_of(src, i);
        if (values == KIT_VALUES_PLAIN)
            put(src, data, offset, kit_random_normal(random));
        else if (kit_random_next(random) % 2)
            put(src, data, offset, near_midpoint(random, middle));
        else if (with_nan)
            put_any(random, src, data, offset);
        else
            put(src, data, offset, kit_random_normal(random) * 300);
    }
}

static void fill_scales(kit_random_t *random, kit_values_t values, const heed_tensor_t *scale,
                        void *data)
{
    static const float odd[] = {0,   INFINITY, NAN,       1e-45f,    3e38f,
                                -2., 0x1p127f, 0x1p-127f, -INFINITY, 0x1.8p-126f};
    for (int64_t i = 0; i < kit_elements(scale); i++) {
        if (scale->dtype == HEED_E8M0)
            ((uint8_t *)data)[i] =
                (uint8_t)(values == KIT_VALUES_PLAIN ? kit_random_int(random, 120, 133)
                                                     : (int64_t)(kit_random_next(random) & 255));
        else if (values == KIT_VALUES_EXTREME && kit_random_next(random) % 3 == 0)
            ((float *)data)[i] = odd[kit_random_int(random, 0, 9)];
        else
            ((float *)data)[i] = (float)exp2(4 * kit_random_normal(random));
    }
}

static void fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                 const kit_buffers_t *buffers)
{
    void *desc;
    if (heed_problem_desc(problem, &desc) != HEED_OK)
        return;
    const heed_tensor_t *src = heed_problem_tensor(problem, HEED_CAST_SRC);
    const heed_tensor_t *dst = heed_problem_tensor(problem, HEED_CAST_DST);
    const heed_tensor_t *scale = heed_problem_tensor(problem, HEED_CAST_SCALE);
    fill_source(random, values, src, dst->dtype, buffers->data[HEED_CAST_SRC]);
    if (scale->ndim)
        fill_scales(random, values, scale, buffers->data[HEED_CAST_SCALE]);
}

const kit_op_t kit_op_cast = {.op = "cast",
                              .corners = corners,
                              .needs = needs,
                              .draw = draw_problem,
                              .fill = fill,
                              .reference_words = "",
                              .judge = kit_cast_judge};
