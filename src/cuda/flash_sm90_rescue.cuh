/* What becomes of a row that was done the plain way. */
#ifndef HD_FLASH_SM90_RESCUE_CUH
#define HD_FLASH_SM90_RESCUE_CUH

#include "flash_rescue.cuh"
#include "flash_sm90_store.cuh"

namespace flash_sm90
{

HD_INLINE void store_rescued(const rescue<task_t> *x)
{
    const hd_attention_t *a = x->a;
    const task_t *task = x->task;
    int query = x->query;
    float *at = lse_of(a, task, query);
    float lse = x->sum == 0 ? -INFINITY : x->most + logf(x->sum);
    merged_t m = merge(a->merge ? at : nullptr, lse, x->sum == 0 ? 0 : 1 / x->sum);
    char *row = hd_view_row(&a->out, task->batch, query, task->head);
    for (int c = 0; c < rescue<task_t>::COLUMNS; c++)
        if (x->lane + 32 * c < a->dv)
            store_element(&a->out, row, x->lane + 32 * c, &m, x->out[c]);
    __syncwarp();
    if (at && x->lane == 0)
        *at = m.lse;
}

/* Not inlined: its registers and code stay out of the main loop's way. */
static __device__ __attribute__((noinline)) void rescue_row(const hd_attention_t *a,
                                                            const task_t *task, int query)
{
    rescue<task_t> row;
    row.a = a;
    row.task = task;
    row.query = query;
    row.run();
    store_rescued(&row);
}

} // namespace flash_sm90

#endif
