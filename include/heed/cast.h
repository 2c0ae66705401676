/* Heed: casts between element types, with the scaling that FP8 needs.
 *
 *     heed_cast_desc_t desc = heed_cast_desc();
 *     desc.src = HEED_TENSOR(weights, HEED_F32, rows, columns);
 *     desc.dst = HEED_TENSOR(codes, HEED_E4M3, rows, columns);
 *     desc.scaling = HEED_SCALE_ROW;
 *     desc.scale_use = HEED_SCALE_DIVIDES;
 *     desc.scale_out = HEED_TENSOR(scales, HEED_F32, rows, 1);
 *     heed_cast(context, &desc);                    now weights ~ codes * scales
 *
 * One definition for all devices: dst = round(src * m), where the product is that of f32, rounded
 * to nearest even, m is 1 without scaling, and round goes to the type of dst as the descriptor
 * says. The bits do not depend on threads, alignment, instruction set, device, nor on the caller's
 * rounding mode or flushing of subnormal numbers. docs/fp8.md is the guide; it has the tables of
 * who converts how, and which preset to take.
 *
 * f32, f16, bf16: to nearest even, overflow to infinity; NaN keeps its sign and is quiet where the
 * result has fewer bits. */
#ifndef HEED_CAST_H
#define HEED_CAST_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the words of a descriptor; 0 is the default --------------------------------------------- */

/* What a number becomes that rounds to more than an FP8 format's largest. */
typedef enum heed_overflow {
    HEED_OVERFLOW_SATURATE, /* the largest, infinity too */
    HEED_OVERFLOW_NOSAT,    /* infinity, or NaN (with its sign) where there is none */
    HEED_OVERFLOW_FINITE    /* finite numbers the largest, infinity stays or is NaN */
} heed_overflow_t;

/* Which NaN an FP8 format gets for NaN. Formats with one NaN (fnuz, E8M0) get that. */
typedef enum heed_nan {
    HEED_NAN_POSITIVE, /* 0x7f: CUDA */
    HEED_NAN_SIGNED,   /* 0x7f with the sign: PyTorch */
    HEED_NAN_QUIET     /* with the sign; E5M2 0x7e, IEEE E4M3 0x7c: ml_dtypes */
} heed_nan_t;

/* How FP8 rounds. First, as if exponents had no end; then overflow is looked for. */
typedef enum heed_rounding {
    HEED_ROUND_NEAREST,    /* ties to even; E8M0: ties up */
    HEED_ROUND_ZERO,       /* toward zero */
    HEED_ROUND_STOCHASTIC, /* up with the probability of the part cut off; not to E8M0 */
    HEED_ROUND_UP          /* away from zero, to E8M0 only */
} heed_rounding_t;

/* Which elements share a scale. Axes of the tensor: ..., row, column, or ..., token, head, dim. */
typedef enum heed_scaling {
    HEED_SCALE_NONE,
    HEED_SCALE_TENSOR,
    HEED_SCALE_ROW,    /* the last axis: one scale for each index of the others */
    HEED_SCALE_COLUMN, /* all but the last axis */
    HEED_SCALE_BLOCK,  /* block[0] x block[1] of the last two axes (of one axis: block[1]) */
    HEED_SCALE_HEAD,   /* one scale for each index of the last axis but one */
    HEED_SCALE_TOKEN_HEAD = HEED_SCALE_ROW
} heed_scaling_t;

/* How m follows from a scale s. */
typedef enum heed_scale_use {
    HEED_SCALE_MULTIPLIES, /* m = s: encoding with an encode scale, decoding with a stored one */
    HEED_SCALE_DIVIDES     /* m = 1 / s in f32: encoding with the scale that decodes */
} heed_scale_use_t;

/* Which scales are computed. Their largest element lands on the largest number of dst or below. */
typedef enum heed_scale_form {
    HEED_SCALE_FORM_F32,  /* m = largest / amax in f32 */
    HEED_SCALE_FORM_POW2, /* that, rounded down to a power of two */
    HEED_SCALE_FORM_MX    /* s = 2^ceil(log2(amax / largest)), E8M0; DIVIDES */
} heed_scale_form_t;

/* ---- the descriptor -------------------------------------------------------------------------- */

/* Operand order of heed_plan_execute. */
enum {
    HEED_CAST_SRC,
    HEED_CAST_DST,
    HEED_CAST_SCALE,
    HEED_CAST_SCALE_OUT,
    HEED_CAST_AMAX,
    HEED_CAST_COUNTS,
    HEED_CAST_TRANSPOSED,
    HEED_CAST_LOSS,
    HEED_CAST_OPERANDS
};

/* Elements of counts. */
enum {
    HEED_COUNT_CLIPPED,     /* finite, and |src * m| above the largest finite number of dst */
    HEED_COUNT_OVERFLOWED,  /* of those, the ones that round beyond it */
    HEED_COUNT_UNDERFLOWED, /* not zero, but the result is (in E8M0: below its smallest) */
    HEED_COUNT_NAN,         /* NaN in src */
    HEED_COUNT_INF,         /* infinite in src */
    HEED_COUNT_BAD_SCALES,  /* groups whose scale is 0, NaN or infinite */
    HEED_CAST_COUNTS_SIZE
};

/* Elements of loss, over elements that are finite in src and in what dst stands for: dst times what
 * brings it back, in f32, which is the scale where that divides, and 1 / scale where it multiplies.
 */
enum {
    HEED_LOSS_SIGNAL, /* sum of squares of src */
    HEED_LOSS_NOISE,  /* sum of squares of the differences */
    HEED_LOSS_WORST,  /* the largest difference */
    HEED_CAST_LOSS_SIZE
};

/* Fields are only ever added at the end. */
typedef struct heed_cast_desc {
    uint32_t struct_size; /* set by heed_cast_desc() */
    heed_tensor_t src;    /* f32, f16, bf16 or an FP8 type; 1 to 8 axes, any strides */
    heed_tensor_t dst;    /* src's shape; no two elements at one address */

    /* To FP8 only; the others are as said above. */
    int32_t overflow; /* heed_overflow_t */
    int32_t nan;      /* heed_nan_t */
    int32_t rounding; /* heed_rounding_t */
    uint64_t seed;    /* of stochastic rounding: Philox4x32-10 with this key; an element's index in
                         the order of the axes, divided by 4, is the counter, the rest the word */

    int32_t scaling;    /* heed_scaling_t */
    int32_t scale_use;  /* heed_scale_use_t */
    int32_t scale_form; /* heed_scale_form_t, where scales are computed */
    float amax_floor;   /* computed: the least amax that a scale is made from, 0: none */
    int64_t block[2];   /* BLOCK */

    /* One of the two with scaling, none without. Shape: src's number of axes, each as long as there
     * are groups along it (rounded up), or one axis with all groups in order; f32 or e8m0.
     * Given scales are used as they are, bad ones too. Computed: an amax that is 0, NaN or infinite
     * gives m = 1, a quotient beyond f32 gives m = the largest f32 number; with MX amax 0 gives
     * code 0x00, NaN and infinity 0xff, whose elements all become NaN. */
    heed_tensor_t scale;
    heed_tensor_t scale_out; /* MX: e8m0, otherwise f32 */

    heed_tensor_t amax;   /* absent, or f32 with the shape of scales: largest |src| of each group
                             (without scaling: of the tensor), NaN if there is one */
    heed_tensor_t counts; /* absent, or i64 [HEED_CAST_COUNTS_SIZE], set by each cast */
    heed_tensor_t transposed; /* absent, or dst once more with the last two axes swapped */
    heed_tensor_t loss; /* absent, or f64 [HEED_CAST_LOSS_SIZE], set by each cast: what was lost,
                           measured while the data is in the cache. Sums are rounded in an order
                           that depends on the threads; the largest difference does not */
} heed_cast_desc_t;

/* Memory. dst may be src's own memory: with elements of one size and the same strides always, and
 * narrowing where both are dense, scaling is NONE, TENSOR or ROW and nothing is transposed (such a
 * cast runs in one thread); not with loss. Any other overlap of an output is an error, VALUE, when
 * it runs; spans count, from a tensor's first element to its last. */

static inline heed_cast_desc_t heed_cast_desc(void)
{
#ifdef __cplusplus
    heed_cast_desc_t desc = {};
#else
    heed_cast_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    return desc;
}

#define HEED_CAST_FEATURE_LIST(X)                         \
    X(F32, 0, "f32")                                      \
    X(BF16, 1, "bf16")                                    \
    X(F16, 2, "f16")                                      \
    X(STRIDED, 3, "strides")                              \
    X(E4M3, 4, "e4m3")                                    \
    X(E5M2, 5, "e5m2")                                    \
    X(FP8_OTHER, 6, "e4m3fnuz, e5m2fnuz, e4m3ieee, e8m0") \
    X(ROUNDING, 7, "rounding other than to nearest")      \
    X(SCALE, 8, "given scales")                           \
    X(COMPUTE, 9, "computed scales")                      \
    X(STATISTICS, 10, "amax and counts")                  \
    X(TRANSPOSED, 11, "transposed copy")                  \
    X(LOSS, 12, "loss")

#define HEED_CAST_ENUM_(name, bit, text) HEED_CAST_CAN_##name = 1 << bit,
#define HEED_CAST_OR_(name, bit, text)   | 1 << bit
enum {
    HEED_CAST_FEATURE_LIST(HEED_CAST_ENUM_) /* one bit for each line */
    HEED_CAST_CAN_ALL = 0 HEED_CAST_FEATURE_LIST(HEED_CAST_OR_)
};
#undef HEED_CAST_ENUM_
#undef HEED_CAST_OR_

/* ---- presets --------------------------------------------------------------------------------- */

typedef enum heed_cast_preset {
    HEED_CAST_OCP_SAT,
    HEED_CAST_OCP_NOSAT,
    HEED_CAST_CUDA_SATFINITE,
    HEED_CAST_CUDA_NOSAT,
    HEED_CAST_TORCH,             /* 2.12 and later: E4M3 saturates, infinity too, E5M2 does not */
    HEED_CAST_TORCH_BEFORE_2_12, /* nothing saturates */
    HEED_CAST_ML_DTYPES,         /* astype of 0.6 */
    HEED_CAST_ONNX_SAT,          /* Cast with saturate=1 from opset 24 on, as onnx's reference */
    HEED_CAST_ONNX_NOSAT,
    HEED_CAST_PRESETS
} heed_cast_preset_t;

/* Sets overflow, nan and rounding to what the preset does for desc->dst.dtype, which must be set.
 * Errors: NULL, VALUE (no such preset). */
HEED_API HEED_MUST_USE heed_status_t heed_cast_apply_preset(heed_cast_desc_t *desc,
                                                            heed_cast_preset_t preset);

/* "ocp_sat", ..., "onnx_nosat"; NULL past the end. Static. */
HEED_API const char *heed_cast_preset_name(heed_cast_preset_t preset);

/* The preset with that name. Errors: NULL, VALUE with the known names. */
HEED_API HEED_MUST_USE heed_status_t heed_cast_preset_parse(const char *name,
                                                            heed_cast_preset_t *preset);

/* ---- running --------------------------------------------------------------------------------- */

/* heed_plan_create for casts. */
HEED_API HEED_MUST_USE heed_status_t heed_cast_plan(heed_context_t *context,
                                                    const heed_cast_desc_t *desc,
                                                    heed_plan_t **plan);

/* Plan, workspace, execute on the tensors' data, clean up. */
HEED_API HEED_MUST_USE heed_status_t heed_cast(heed_context_t *context,
                                               const heed_cast_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
