/* Outputs in E4M3's order of columns: a thread holds four that follow each other. They leave
 * straight from registers: the four threads of a row write 16 elements, a sector of 32 bytes in 16
 * bits. */
#ifndef HD_FLASH_SM90_FP8_STORE_CUH
#define HD_FLASH_SM90_FP8_STORE_CUH

#include "flash_sm90_fp8_config.cuh"
#include "flash_sm90_store.cuh"

namespace flash_sm90
{

template <class C> struct fp8_writer : writer<C> {
    using base = writer<C>;
    using base::lane;
    using base::p;

    /* Columns 16 b + 4 (lane % 4) .. of half h. */
    static HD_INLINE void columns(const state<C> *x, int b, int h, float (&value)[4])
    {
        value[0] = x->o[8 * b + 2 * h];
        value[1] = x->o[8 * b + 4 + 2 * h];
        value[2] = x->o[8 * b + 2 * h + 1];
        value[3] = x->o[8 * b + 4 + 2 * h + 1];
    }

    /* Whether four elements of a row can be written at once: nothing is read. */
    HD_INLINE bool is_whole(const char *row) const
    {
        const hd_view_t *out = &p->a.out;
        int64_t bytes = hd_dtype_bytes(out->dtype);
        return !p->a.merge && out->elem == bytes && p->a.dv % 4 == 0 &&
               (uintptr_t)row % (uintptr_t)(4 * bytes) == 0;
    }

    HD_INLINE void store_four(char *at, const float (&value)[4], float by) const
    {
        float v[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] = by == 0 ? 0 : by * value[j];
        if (p->a.out.dtype == HEED_F32)
            *(float4 *)at = make_float4(v[0], v[1], v[2], v[3]);
        else if (p->a.out.dtype == HEED_BF16)
            *(uint2 *)at = make_uint2(hd_pack_bf16(v[0], v[1]), hd_pack_bf16(v[2], v[3]));
        else
            *(uint2 *)at = make_uint2(hd_pack_f16(v[0], v[1]), hd_pack_f16(v[2], v[3]));
    }

    HD_INLINE void store_row(const state<C> *x, int h, char *row, const merged_t *m) const
    {
        bool whole = is_whole(row);
#pragma unroll
        for (int b = 0; b < C::DIM / 16; b++) {
            int column = 16 * b + 4 * (lane & 3);
            float value[4];
            columns(x, b, h, value);
            if (whole && column < p->a.dv)
                store_four(row + column * p->a.out.elem, value, m->fresh);
            for (int j = 0; j < 4 && !whole; j++)
                if (column + j < p->a.dv)
                    store_element(&p->a.out, row, column + j, m, value[j]);
        }
    }

    HD_INLINE void store(state<C> *x, const bool (&skip)[2], unsigned char *)
    {
        merged_t m[2];
        base::store_lse(x, skip, m);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int query = base::first + (lane >> 2) + 8 * h;
            if (!skip[h] && query < (int)p->a.queries)
                store_row(x, h, hd_view_row(&p->a.out, base::task->batch, query, base::task->head),
                          &m[h]);
        }
    }
};

} // namespace flash_sm90

#endif
