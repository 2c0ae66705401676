/* Delayed scaling and error statistics. */
#include "casting.h"
#include "internal.h"
#include "sums.h"

#include <math.h>

/* ---- delayed scaling ------------------------------------------------------------------------- */

static bool is_float(heed_dtype_t dtype)
{
    return dtype == HEED_F32 || dtype == HEED_F16 || dtype == HEED_BF16 || dtype == HEED_E8M0 ||
           hd_fp8_format(dtype).mantissa;
}

heed_delayed_scaling_t heed_delayed_scaling(heed_dtype_t dtype, float *history, int32_t length)
{
    heed_delayed_scaling_t state = {
        .dtype = dtype, .history = history, .length = length, .scale = 1};
    for (int32_t i = 0; history && i < length; i++)
        history[i] = 0;
    return state;
}

static heed_status_t check(const heed_delayed_scaling_t *state)
{
    if (!state || !state->history)
        return hd_fail(HEED_ERROR_NULL, "%s is null", state ? "history" : "state");
    if (!is_float(state->dtype))
        return hd_fail(HEED_ERROR_DTYPE, "dtype is %s: it takes a float type",
                       heed_dtype_name(state->dtype));
    if (state->length < 1)
        return hd_fail(HEED_ERROR_VALUE, "length=%d is not 1 or more", state->length);
    if (state->margin < -64 || state->margin > 64)
        return hd_fail(HEED_ERROR_VALUE, "margin=%d is not -64 to 64", state->margin);
    if (!(state->relative_margin >= 0) || state->relative_margin > 1e6f)
        return hd_fail(HEED_ERROR_VALUE, "relative_margin=%g is not 0 to 1e6",
                       (double)state->relative_margin);
    return HEED_OK;
}

heed_status_t heed_delayed_note(heed_delayed_scaling_t *state, float amax)
{
    HD_TRY(check(state));
    uint32_t bits = hd_to_bits(amax), now = hd_to_bits(state->history[0]);
    if ((bits & HD_F32_MAGNITUDE) >= HD_F32_INF) {
        state->bad_amaxes++;
        state->bad_now = 1;
        if (!state->keep_bad || (bits & HD_F32_MAGNITUDE) > HD_F32_INF)
            return HEED_OK;
    }
    if (bits >> 31 && bits != 0x80000000)
        return hd_fail(HEED_ERROR_VALUE, "amax=%g is negative", (double)amax);
    /* Bits of numbers that are not negative stand in the order of the numbers. */
    if ((bits & HD_F32_MAGNITUDE) > now)
        state->history[0] = amax;
    return HEED_OK;
}

/* largest * 2^-margin / (1 + relative_margin). */
static uint32_t aim(const heed_delayed_scaling_t *state)
{
    uint32_t power = (uint32_t)(127 - state->margin) << 23;
    uint32_t largest = hd_exact_multiply(hd_largest_bits(state->dtype), power);
    /* 1 + margin in integers, as 2^-30 units: exact enough for a margin, whatever the mode. */
    int exponent;
    uint32_t significand = hd_exact_split(hd_to_bits(state->relative_margin), &exponent);
    int shift = exponent + 30;
    uint64_t units = shift >= 0    ? (uint64_t)significand << shift
                     : shift > -32 ? (uint64_t)significand >> -shift
                                   : 0;
    return hd_exact_divide(largest, hd_exact_round(0, -30, ((uint64_t)1 << 30) + units));
}

static uint32_t window_amax(const heed_delayed_scaling_t *state)
{
    uint32_t most = hd_to_bits(state->history[0]);
    for (int32_t i = 1; !state->most_recent && i < state->length; i++) {
        uint32_t bits = hd_to_bits(state->history[i]);
        most = bits > most && bits <= HD_F32_INF ? bits : most;
    }
    return most;
}

static bool step_overflowed(const heed_delayed_scaling_t *state)
{
    uint32_t top = hd_exact_multiply(hd_to_bits(state->history[0]), hd_to_bits(state->scale));
    return state->bad_now || top > hd_largest_bits(state->dtype);
}

/* As Transformer Engine rolls its history: what was staged becomes the newest, at the end; place 0,
 * which the oldest moved into, is cleared. */
static void move_window(heed_delayed_scaling_t *state)
{
    float staged = state->history[0];
    memmove(state->history, state->history + 1, (size_t)(state->length - 1) * sizeof(float));
    state->history[state->length - 1] = staged;
    state->history[0] = 0;
    state->bad_now = 0;
}

heed_status_t heed_delayed_update(heed_delayed_scaling_t *state)
{
    HD_TRY(check(state));
    bool idle = hd_to_bits(state->history[0]) << 1 == 0 && !state->bad_now;
    if (idle && state->skip_idle) {
        state->skipped++;
        return HEED_OK;
    }
    state->steps++;
    state->overflows += step_overflowed(state);
    uint32_t amax = window_amax(state);
    if (amax > 0 && amax < HD_F32_INF) {
        uint32_t scale = hd_exact_divide(aim(state), amax);
        state->scale_overflows += scale == HD_F32_INF;
        state->scale = hd_from_bits(scale == HD_F32_INF ? 0x7f7fffff : scale);
    }
    move_window(state);
    return HEED_OK;
}

/* ---- error statistics ------------------------------------------------------------------------ */

enum { PIECE = 1024 };

/* Elements that are not finite in both are counted, and 0 in both from here on. */
static void take_out(float *x, float *y, int64_t n, heed_error_statistics_t *to)
{
    for (int64_t i = 0; i < n; i++) {
        const bool same = isnan(x[i]) ? isnan(y[i]) : x[i] == y[i];
        if (hd_sums_keep(&x[i], &y[i]))
            continue;
        to->same_special += same;
        to->bad += !same;
        to->elements--;
    }
}

/* x and y are what is compared, or lie elsewhere: from and to. Sums of squares are finite exactly
 * where all elements are. */
static void compare(const float *from, const float *to, int64_t n, float *x, float *y,
                    heed_error_statistics_t *statistics, hd_sums_t *sums)
{
    hd_sums_t part = {0};
    statistics->elements += n;
    if (n % HD_SUMS_STEP == 0)
        part = hd_sum_up(from, to, n, true);
    if (n % HD_SUMS_STEP || !isfinite(part.reference + part.value)) {
        memmove(x, from, (size_t)n * sizeof(*x));
        memmove(y, to, (size_t)n * sizeof(*y));
        take_out(x, y, n, statistics);
        for (int64_t i = n; i % HD_SUMS_STEP; i++)
            x[i] = y[i] = 0;
        part = hd_sum_up(x, y, hd_ceil_div(n, HD_SUMS_STEP) * HD_SUMS_STEP, true);
    }
    hd_sums_add(sums, &part);
}

/* Elements `first` on, counted in the order of the axes, along the last one: where they are, or
 * decoded to `to`. */
static const float *load(const heed_tensor_t *tensor, int64_t first, int64_t n, float *to)
{
    int last = tensor->ndim - 1;
    int64_t offset = 0, rest = first, size = hd_dtype_bytes(tensor->dtype);
    for (int axis = last; axis >= 0; axis--) {
        offset += rest % tensor->shape[axis] * tensor->strides[axis];
        rest /= tensor->shape[axis];
    }
    const char *at = (const char *)tensor->data + tensor->byte_offset + offset * size;
    if (tensor->dtype == HEED_F32 && tensor->strides[last] == 1)
        return (const float *)(const void *)at;
    for (int64_t i = 0; i < n; i++)
        to[i] = hd_from_bits(hd_cast_load(tensor->dtype, at + i * tensor->strides[last] * size));
    return to;
}

static heed_status_t check_pair(const heed_tensor_t *reference, const heed_tensor_t *value,
                                heed_tensor_t *complete, hd_axes_t *axes)
{
    const heed_tensor_t *tensors[] = {reference, value};
    static const char *const names[] = {"reference", "value"};
    for (int i = 0; i < 2; i++) {
        HD_TRY(hd_tensor_complete(names[i], tensors[i], false, &complete[i], &axes[i]));
        complete[i].data = tensors[i]->data;
        if (!is_float(tensors[i]->dtype))
            return hd_fail(HEED_ERROR_DTYPE, "%s is %s: it takes a float type", names[i],
                           heed_dtype_name(tensors[i]->dtype));
        if (tensors[i]->device.type != HEED_DEVICE_CPU)
            return hd_fail(HEED_ERROR_VALUE, "%s is on device %d:%d, not on the CPU", names[i],
                           tensors[i]->device.type, tensors[i]->device.id);
        if (!tensors[i]->data && hd_tensor_elements(tensors[i]) > 0)
            return hd_fail(HEED_ERROR_NULL, "%s.data is null", names[i]);
    }
    bool same = reference->ndim == value->ndim;
    for (int i = 0; same && i < reference->ndim; i++)
        same = reference->shape[i] == value->shape[i];
    return same ? HEED_OK : hd_fail(HEED_ERROR_SHAPE, "value has another shape than reference");
}

heed_status_t heed_error_statistics(const heed_tensor_t *reference, const heed_tensor_t *value,
                                    heed_error_statistics_t *statistics)
{
    heed_tensor_t t[2];
    hd_axes_t axes[2];
    hd_sums_t sums = {0};
    if (!reference || !value || !statistics)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !reference ? "reference"
                       : !value   ? "value"
                                  : "statistics");
    HD_TRY(check_pair(reference, value, t, axes));
    *statistics = (heed_error_statistics_t){0};
    int64_t count = hd_tensor_elements(&t[0]), along = t[0].shape[t[0].ndim - 1], n;
    for (int64_t i = 0; i < count; i += n) {
        float x[PIECE], y[PIECE];
        n = hd_min(hd_min(PIECE, count - i), along - i % along);
        const float *from = load(&t[0], i, n, x), *to = load(&t[1], i, n, y);
        compare(from, to, n, x, y, statistics, &sums);
    }
    double squares = sums.reference, error = sums.error;
    statistics->max_error = sums.worst;
    statistics->reference_squares = squares;
    statistics->error_squares = error;
    double lengths = sqrt(squares) * sqrt(sums.value);
    statistics->relative_rms =
        error == 0 ? 0 : sqrt(error / squares); /* infinite where all is error */
    statistics->sqnr_db = error == 0 ? INFINITY : 10 * log10(squares / error);
    statistics->cosine = lengths > 0                       ? sums.product / lengths
                         : squares == 0 && sums.value == 0 ? 1
                                                           : 0;
    return HEED_OK;
}
