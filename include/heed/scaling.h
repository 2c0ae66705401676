/* Heed: scales over time, and how much a conversion lost. Plain functions over the caller's memory:
 * no context, no allocation, the same bits in every floating-point environment.
 *
 * Delayed scaling is that of Transformer Engine: a tensor is cast with a scale from the largest
 * magnitudes of earlier steps, while its own is noted for later ones.
 *
 *     float history[1024];
 *     heed_delayed_scaling_t state = heed_delayed_scaling(HEED_E4M3, history, 1024);
 *     for (each step) {
 *         heed_cast(...)                            given scale state.scale, amax out
 *         heed_delayed_note(&state, amax);          as often as there are tensors
 *         heed_delayed_update(&state);
 *     } */
#ifndef HEED_SCALING_H
#define HEED_SCALING_H

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- delayed scaling ------------------------------------------------------------------------- */

/* All fields may be read and set between calls. One thread at a time per state. */
typedef struct heed_delayed_scaling {
    heed_dtype_t dtype; /* whose largest number the scale aims at */
    float *history;     /* [length], the caller's. 0: this step's amax so far; then the window, the
                           newest last */
    int32_t length;     /* at least 1; Transformer Engine's default is 1024 */

    int32_t most_recent;   /* 0: the scale follows the largest of the window; 1: this step's amax */
    int32_t margin;        /* the aim is largest * 2^-margin ... */
    float relative_margin; /* ... / (1 + relative_margin): 0.01 leaves one percent of room */
    int32_t skip_idle;     /* 1: a step whose amax is 0 did not run and changes nothing (the update
                              of all tensors at once in Transformer Engine); 0: it counts as 0 */
    int32_t keep_bad;      /* 0: NaN and infinite amax are counted and not noted. 1: noted, as in
                              Transformer Engine: an infinity then keeps the scale as it is until
                              it leaves the window, and a NaN is lost in the maximum */

    float scale;             /* multiplies when encoding: 1 at first */
    int64_t steps;           /* updates that ran */
    int64_t skipped;         /* updates of idle steps */
    int64_t overflows;       /* steps whose amax times the scale they ran with was above the largest
                                number, or was NaN or infinite */
    int64_t bad_amaxes;      /* noted values that were NaN or infinite */
    int64_t scale_overflows; /* updates whose scale would have been beyond f32 */
    int32_t bad_now;         /* this step had a bad amax */
} heed_delayed_scaling_t;

/* A state at its beginning: history is filled with 0, scale is 1. A dtype without a largest number
 * (no float type) or no history gives a state that the functions below refuse. */
HEED_API heed_delayed_scaling_t heed_delayed_scaling(heed_dtype_t dtype, float *history,
                                                     int32_t length);

/* Notes the amax of a tensor of this step; the largest stays. Errors: NULL, DTYPE, VALUE (length,
 * margins, a negative amax). */
HEED_API HEED_MUST_USE heed_status_t heed_delayed_note(heed_delayed_scaling_t *state, float amax);

/* Ends a step: the new scale is aim / amax in f32 where amax, the largest of the window or this
 * step's, is finite and above 0, the largest f32 number where that overflows, and otherwise the old
 * one. Then the window moves on, and its oldest value is dropped. Errors: as above. */
HEED_API HEED_MUST_USE heed_status_t heed_delayed_update(heed_delayed_scaling_t *state);

/* ---- what was lost --------------------------------------------------------------------------- */

typedef struct heed_error_statistics {
    int64_t elements;     /* compared: finite in both tensors */
    int64_t same_special; /* NaN in both, or the same infinity */
    int64_t bad;          /* not finite in one, and not the same in both */
    double sqnr_db;       /* 10 log10(sum reference^2 / sum error^2); infinite without error */
    double relative_rms;  /* sqrt(sum error^2 / sum reference^2) */
    double max_error;     /* largest absolute error */
    double cosine;        /* of the two as vectors; 1 where both are 0 */
    /* Sums over the elements compared, from which those of parts can be put together. */
    double reference_squares, error_squares;
} heed_error_statistics_t;

/* Compares two tensors of one shape and any float dtypes, both on the CPU, with their own strides
 * and byte_offset; sums are float64. Errors: NULL, SHAPE, STRIDE, DTYPE, VALUE (not on the CPU). */
HEED_API HEED_MUST_USE heed_status_t heed_error_statistics(const heed_tensor_t *reference,
                                                           const heed_tensor_t *value,
                                                           heed_error_statistics_t *statistics);

#ifdef __cplusplus
}
#endif
#endif
