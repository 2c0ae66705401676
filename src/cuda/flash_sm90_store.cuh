/* What a warp does with its 16 finished rows: judge them, normalise, merge, store. */
#ifndef HD_FLASH_SM90_STORE_CUH
#define HD_FLASH_SM90_STORE_CUH

#include "flash_sm90_softmax.cuh"

namespace flash_sm90
{

#define HD_LN2 0.69314718f

/* A row's way into (out, lse): weights of what is there and of what is new. */
typedef struct merged {
    float lse, old, fresh;
} merged_t;

/* old_lse: NULL where nothing is merged. inverse: 1 / the row's sum, 0 for an empty row. */
HD_INLINE merged_t merge(const float *old_lse, float lse, float inverse)
{
    merged_t m = {lse, 0, inverse};
    if (!old_lse)
        return m;
    float top = fmaxf(*old_lse, lse);
    if (top == -INFINITY)
        return m;
    float theirs = expf(*old_lse - top), mine = expf(lse - top);
    m.old = theirs / (mine + theirs);
    m.fresh = inverse * (mine / (mine + theirs));
    m.lse = top + logf(mine + theirs);
    return m;
}

/* An empty state may hold anything: what weighs nothing is not read. */
HD_INLINE void store_element(const hd_view_t *out, char *row, int column, const merged_t *m,
                             float value)
{
    char *to = row + column * out->elem;
    value = m->fresh == 0 ? 0 : m->fresh * value;
    if (m->old != 0)
        value = fmaf(m->old, hd_element_load(out->dtype, to), value);
    hd_element_store(out->dtype, to, value);
}

HD_INLINE float *lse_of(const hd_attention_t *a, const task_t *task, int query)
{
    return a->lse.data ? (float *)hd_view_row(&a->lse, task->batch, query, task->head) : nullptr;
}

template <class C> struct writer {
    const params_t *p;
    const task_t *task;
    int lane;
    int first; /* query of the warp's first row */

    HD_INLINE void begin(const params_t *params, const task_t *of)
    {
        p = params, task = of;
        lane = (int)threadIdx.x & 31;
        first =
            task->first + ROWS * ((int)threadIdx.x / 128 - 1) + 16 * ((int)threadIdx.x >> 5 & 3);
    }

    /* ---- judging ----------------------------------------------------------------------------- */

    /* After the row sums are whole. A row is lost if a number in it is none, whoever's fault that
     * is, or if its scores are so large that the reference leaves nothing of the weights. */
    HD_INLINE bool is_lost(const state<C> *x, int half)
    {
        float zero = 0;
#pragma unroll
        for (int i = 0; i < C::DIM / 2; i++)
            if ((i >> 1 & 1) == half)
                zero = fmaf(x->o[i], 0.f, zero);
        zero = quad_sum(zero);
        return zero != 0 || !(x->sum[half] < 0x1p100f) || is_huge(x->reference[half]);
    }

    static HD_INLINE bool is_huge(float reference)
    {
        return fabsf(reference) > 0x1p20f && reference != -INFINITY;
    }

    /* ---- by the copy engine ------------------------------------------------------------------ */

    /* Through 16 rows of shared memory that are this warp's alone, in the copy engine's layout. */
    HD_INLINE void store_by_map(const state<C> *x, unsigned char *staging)
    {
        unsigned char *rows = staging + (lane & 15) * SLAB_BYTES;
#pragma unroll
        for (int i = 0; i < C::DIM / 16; i++) {
            /* Four 8x8 matrices: both halves of the rows, then the next 8 columns. */
            int piece = (2 * (i % 4) + (lane >> 4)) ^ (lane & 7);
            uint32_t r[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                r[j] = C::TYPE == HD_MMA_BF16
                           ? hd_pack_bf16(x->o[8 * i + 2 * j], x->o[8 * i + 2 * j + 1])
                           : hd_pack_f16(x->o[8 * i + 2 * j], x->o[8 * i + 2 * j + 1]);
            hd_stmatrix_x4(rows + i / 4 * QUERY_SLAB + piece * 16, r);
        }
        hd_fence_async();
        __syncwarp();
        if (lane == 0 && first < (int)p->a.queries)
            for (int s = 0; s < C::SLABS; s++)
                if (64 * s < p->a.dv)
                    hd_tma_store(&p->out, staging + s * QUERY_SLAB, 64 * s, first, task->head,
                                 task->batch);
        if (lane == 0)
            hd_tma_commit();
        __syncwarp();
    }

    /* ---- element by element ------------------------------------------------------------------ */

    /* Columns from .. end-1 of 16 rows in f32, which lie at staging + row * 128 bytes, 32 columns
     * in a slab. */
    HD_INLINE void store_columns(const merged_t (&m)[2], const bool (&skip)[2],
                                 const unsigned char *staging, int from, int end)
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            unsigned skipped = __ballot_sync(~0u, skip[h]);
#pragma unroll 1
            for (int r = 0; r < 8; r++) {
                merged_t row = {0, __shfl_sync(~0u, m[h].old, 4 * r),
                                __shfl_sync(~0u, m[h].fresh, 4 * r)};
                int query = first + r + 8 * h;
                if (skipped >> 4 * r & 1 || query >= (int)p->a.queries)
                    continue;
                char *to = hd_view_row(&p->a.out, task->batch, query, task->head);
                const unsigned char *at = staging + (r + 8 * h) * SLAB_BYTES + lane * 4;
#pragma unroll 1
                for (int c = from; c < end && c + lane < p->a.dv; c += 32, at += QUERY_SLAB)
                    store_element(&p->a.out, to, c + lane, &row, *(const float *)at);
            }
        }
    }

    /* Of 16 rows without a key: what they are merged with, else zeros. */
    HD_INLINE void store_empty(const merged_t (&m)[2])
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll 1
            for (int r = 0; r < 8; r++) {
                merged_t row = {0, __shfl_sync(~0u, m[h].old, 4 * r), 0};
                int query = first + r + 8 * h;
                if (query >= (int)p->a.queries)
                    continue;
                char *to = hd_view_row(&p->a.out, task->batch, query, task->head);
#pragma unroll 1
                for (int c = lane; c < p->a.dv; c += 32)
                    store_element(&p->a.out, to, c, &row, 0);
            }
        }
    }

    /* Half of the columns at a time: there is room for 16 bits an element. */
    HD_INLINE void store_rows(const state<C> *x, const merged_t (&m)[2], const bool (&skip)[2],
                              unsigned char *staging)
    {
        unsigned char *rows = staging + (lane >> 2) * SLAB_BYTES + 8 * (lane & 3);
#pragma unroll
        for (int from = 0; from < C::DIM; from += 32 * C::SLABS) {
#pragma unroll
            for (int i = from / 2; i < C::DIM / 2 && i < from / 2 + 16 * C::SLABS; i += 2) {
                unsigned char *to = rows + (i >> 1 & 1) * 8 * SLAB_BYTES +
                                    (i - from / 2) / 16 * QUERY_SLAB + i / 4 % 4 * 32;
                *(float2 *)to = {x->o[i], x->o[i + 1]};
            }
            __syncwarp();
            store_columns(m, skip, staging, from, from + 32 * C::SLABS);
            __syncwarp();
        }
        /* The next Q may land here as soon as one lane says so, for all of them. */
        hd_fence_async();
        __syncwarp();
    }

    /* ---- a tile ------------------------------------------------------------------------------ */

    /* Merges lse and stores it; what is to become of the rows' outputs. */
    HD_INLINE void store_lse(const state<C> *x, const bool (&skip)[2], merged_t (&m)[2])
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int query = first + (lane >> 2) + 8 * h;
            float *at = query < (int)p->a.queries ? lse_of(&p->a, task, query) : nullptr;
            float sum = x->sum[h];
            float lse = sum == 0 ? -INFINITY : (x->reference[h] + log2f(sum)) * HD_LN2;
            m[h] = merge(p->a.merge ? at : nullptr, lse, sum == 0 ? 0 : 1 / sum);
            /* The row's other lanes have read the old one. */
            __syncwarp();
            if (at && !skip[h] && (lane & 3) == 0)
                *at = m[h].lse;
        }
    }

    /* staging: NULL for a tile without keys that has no place of its own. */
    HD_INLINE void store(state<C> *x, const bool (&skip)[2], unsigned char *staging)
    {
        merged_t m[2];
        store_lse(x, skip, m);
        if (!C::OWN_OUT && !staging) {
            store_empty(m);
        } else if (p->tma_store && __all_sync(~0u, !skip[0] && !skip[1])) {
            x->scale_out(m[0].fresh, m[1].fresh);
            store_by_map(x, staging);
        } else {
            store_rows(x, m, skip, staging);
        }
    }
};

} // namespace flash_sm90

#endif
