/* From partial states to results: states of splits become one, in the order of the keys, and its
 * rows are normalised and stored. */
#ifndef HD_DECODE_RESULT_H
#define HD_DECODE_RESULT_H

#include "decode_keys.h"
#include "merge_row.h"

static float decode_total(const float *sum)
{
    float total = 0;
    for (int x = 0; x < VEC_LANES; x++)
        total += sum[x];
    return total;
}

/* The maximum passes over NaN: a row whose scores are all NaN is told by its sum. */
static bool decode_is_empty(const decode_state_t *state, int r)
{
    return state->reference[r] == -INFINITY && !isnan(decode_total(state->sum + r * VEC_LANES));
}

static void decode_join_row(vec_t old_factor, float *to, vec_t factor, const float *from, int n)
{
    for (int c = 0; c < n; c += VEC_LANES)
        vec_store(to + c,
                  vec_fma(vec_load(from + c), factor, vec_mul(vec_load(to + c), old_factor)));
}

/* Adds the state of later keys to one of earlier keys. */
static void decode_join(const decode_task_t *task, const decode_state_t *to,
                        const decode_state_t *from)
{
    const int dv = task->z->dv;
    for (int r = 0; r < task->rows; r++) {
        if (decode_is_empty(from, r))
            continue;
        bool first = decode_is_empty(to, r);
        float old = to->reference[r], now = from->reference[r], top = fmaxf(old, now);
        /* Both -inf: all is NaN. */
        vec_t factor = vec_set1(now == top ? 1 : exp2f(now - top));
        vec_t old_factor = vec_set1(first ? 0 : old == top ? 1 : exp2f(old - top));
        decode_join_row(old_factor, to->out + r * dv, factor, from->out + r * dv, dv);
        decode_join_row(old_factor, to->sum + r * VEC_LANES, factor, from->sum + r * VEC_LANES,
                        VEC_LANES);
        to->reference[r] = top;
    }
}

/* A finished row: what its sums are to be multiplied by, and its lse. A sink is one more weight,
 * without a value. */
static float decode_norm(const decode_task_t *task, int r, double *lse)
{
    const double ln2 = 0.69314718055994530942;
    const hd_modifiers_t *modifiers = &task->a->modifiers;
    double top = (double)task->state.reference[r] * ln2, factor = 1;
    double sum = (double)decode_total(task->state.sum + r * VEC_LANES);
    bool empty = decode_is_empty(&task->state, r);
    double sink = hd_has_sinks(modifiers) ? hd_sink(modifiers, decode_head(task, r)) : -INFINITY;
    if (empty) {
        *lse = sink;
        return 0;
    }
    if (sink > top) {
        factor = exp(top - sink);
        sum = sum * factor + 1;
        top = sink;
    } else if (sink > -(double)INFINITY) {
        sum += exp(sink - top);
    }
    *lse = top + log(sum);
    return (float)(factor * (double)task->v_factor / sum);
}

static void decode_finish_row(const decode_task_t *task, int r)
{
    const hd_attention_t *a = task->a;
    int64_t query = decode_query(task, r), head = decode_head(task, r);
    const float *sums = task->state.out + r * task->z->dv;
    char *out = hd_view_row(&a->out, task->b, query, head);
    char *lse_to = a->lse.data ? hd_view_row(&a->lse, task->b, query, head) : NULL;
    bool empty = decode_is_empty(&task->state, r);
    double lse;
    float factor = decode_norm(task, r, &lse);
    if (empty)
        memset(task->row, 0, (size_t)a->dv * sizeof(float));
    else
        decode_arrange(task->v_dtype, a->dv, true, sums, factor, task->row);
    if (a->merge)
        lse = merge_row(a, out, lse_to, task->row, lse);
    row_from_f32(&a->out, task->row, a->dv, out);
    if (lse_to) {
        float value = (float)lse;
        memcpy(lse_to, &value, sizeof(value));
    }
}

static void decode_finish(const decode_task_t *task)
{
    for (int r = 0; r < task->rows; r++)
        decode_finish_row(task, r);
}

#endif
