/* Appending to a cache: what lies in it afterwards, in every type, by one call or by many; and what
 * is refused before anything is written. */
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 3, S = 7, HK = 2, D = 24, DV = 16, PAGE = 4, TABLE = 5, PAGES = 16 };

typedef struct cache {
    float k_new[B * S * HK * D], v_new[B * S * HK * DV];
    float k[PAGES * PAGE * HK * D], v[PAGES * PAGE * HK * DV]; /* room for any type */
    float k_scale[PAGES * PAGE * HK], v_scale[PAGES * PAGE * HK];
    int32_t table[B * TABLE], lengths[B];
    int64_t k_new_shape[4], v_new_shape[4], k_shape[4], v_shape[4], table_shape[2], batch[1];
    int64_t scale_shape[3];
    heed_kv_append_desc_t desc;
} cache_t;

static cache_t cache;
static heed_context_t *context;

static void init(heed_dtype_t dtype, int scale_ndim)
{
    static const int32_t lengths[] = {0, 5, 13};
    memset(&cache, 0, sizeof(cache));
    memset(cache.k, 0x55, sizeof(cache.k));
    memset(cache.v, 0x55, sizeof(cache.v));
    small_fill(cache.k_new, B * S * HK * D, 1);
    small_fill(cache.v_new, B * S * HK * DV, 2);
    memcpy(cache.lengths, lengths, sizeof(lengths));
    for (int i = 0; i < B * TABLE; i++)
        cache.table[i] = (i * 7 + 2) % PAGES;
    for (int i = 0; i < PAGES * PAGE * HK; i++)
        cache.k_scale[i] = cache.v_scale[i] = 0.0625f;
    cache_t *c = &cache;
    heed_kv_append_desc_t *desc = &c->desc;
    *desc = heed_kv_append_desc();
    memcpy(c->k_new_shape, (int64_t[]){B, S, HK, D}, sizeof(c->k_new_shape));
    memcpy(c->v_new_shape, (int64_t[]){B, S, HK, DV}, sizeof(c->v_new_shape));
    memcpy(c->k_shape, (int64_t[]){PAGES, PAGE, HK, D}, sizeof(c->k_shape));
    memcpy(c->v_shape, (int64_t[]){PAGES, PAGE, HK, DV}, sizeof(c->v_shape));
    memcpy(c->table_shape, (int64_t[]){B, TABLE}, sizeof(c->table_shape));
    memcpy(c->scale_shape, (int64_t[]){PAGES, PAGE, HK}, sizeof(c->scale_shape));
    c->batch[0] = B;
    if (scale_ndim == 1)
        c->scale_shape[0] = HK;
    desc->k_new = heed_tensor(c->k_new, HEED_F32, 4, c->k_new_shape, NULL);
    desc->v_new = heed_tensor(c->v_new, HEED_F32, 4, c->v_new_shape, NULL);
    desc->k = heed_tensor(c->k, dtype, 4, c->k_shape, NULL);
    desc->v = heed_tensor(c->v, dtype, 4, c->v_shape, NULL);
    desc->page_table = heed_tensor(c->table, HEED_I32, 2, c->table_shape, NULL);
    desc->seqlens_k = heed_tensor(c->lengths, HEED_I32, 1, c->batch, NULL);
    if (scale_ndim) {
        desc->k_scale = heed_tensor(c->k_scale, HEED_F32, scale_ndim, c->scale_shape, NULL);
        desc->v_scale = heed_tensor(c->v_scale, HEED_F32, scale_ndim, c->scale_shape, NULL);
    }
    desc->advance = 1;
}

static int begin(void **state)
{
    (void)state;
    context = expect_context(NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    heed_context_destroy(context);
    return 0;
}

/* ---- what lies there ------------------------------------------------------------------------- */

/* Row number of key j of sequence b in the pool. */
static int64_t row_of(int b, int j)
{
    return (int64_t)cache.table[b * TABLE + j / PAGE] * PAGE + j % PAGE;
}

static void check_values(const void *codes, heed_dtype_t dtype, const float *scales, int scale_ndim,
                         const float *from, int dim, const int32_t *before)
{
    double step = dtype == HEED_F32    ? 0x1p-23
                  : dtype == HEED_F16  ? 0x1p-11
                  : dtype == HEED_BF16 ? 0x1p-8
                  : dtype == HEED_E4M3 ? 0x1p-4
                  : dtype == HEED_E5M2 ? 0x1p-3
                                       : 0.5 / 127;
    for (int b = 0; b < B; b++)
        for (int i = 0; i < S * HK * dim; i++) {
            int h = i / dim % HK, j = before[b] + i / dim / HK;
            int64_t at = (row_of(b, j) * HK + h) * dim + i % dim;
            double scale = scale_ndim == 3   ? (double)scales[row_of(b, j) * HK + h]
                           : scale_ndim == 1 ? (double)scales[h]
                                             : 1;
            double want = (double)from[b * S * HK * dim + i],
                   got = kit_load(dtype, codes, at) * scale;
            double bound = dtype == HEED_I8 && scale_ndim == 1 ? scale / 2 : step * 1.5;
            if (!(fabs(got - want) <= bound)) {
                print_error("%s: sequence %d, key %d: %g, should be %g\n", heed_dtype_name(dtype),
                            b, j, got, want);
                fail();
            }
        }
}

static void values(void **state)
{
    static const heed_dtype_t types[] = {HEED_F32,  HEED_BF16, HEED_F16,
                                         HEED_E4M3, HEED_E5M2, HEED_I8};
    static const int ndims[] = {0, 1, 3};
    (void)state;
    for (int t = 0; t < 6; t++)
        for (int n = types[t] == HEED_I8; n < 3; n++) {
            int32_t before[B];
            init(types[t], ndims[n]);
            memcpy(before, cache.lengths, sizeof(before));
            expect_ok(heed_kv_append(context, &cache.desc));
            check_values(cache.k, types[t], cache.k_scale, ndims[n], cache.k_new, D, before);
            check_values(cache.v, types[t], cache.v_scale, ndims[n], cache.v_new, DV, before);
            for (int b = 0; b < B; b++)
                assert_int_equal(cache.lengths[b], before[b] + S);
        }
}

/* Row by row gives the same bits as all at once, and ragged rows do. */
static void one_by_one(void **state)
{
    static cache_t whole;
    static int64_t packed[4] = {1, B * S, HK, D}, packed_v[4] = {1, B * S, HK, DV},
                   four[1] = {B + 1};
    int32_t starts[] = {0, S, 2 * S, 3 * S};
    (void)state;
    init(HEED_E4M3, 3);
    expect_ok(heed_kv_append(context, &cache.desc));
    whole = cache;
    init(HEED_E4M3, 3);
    int64_t k_strides[] = {S * HK * D, HK * D, D, 1}, v_strides[] = {S * HK * DV, HK * DV, DV, 1};
    cache.desc.k_new.strides = k_strides;
    cache.desc.v_new.strides = v_strides;
    cache.k_new_shape[1] = cache.v_new_shape[1] = 1;
    for (int i = 0; i < S; i++) {
        cache.desc.k_new.data = cache.k_new + i * HK * D;
        cache.desc.v_new.data = cache.v_new + i * HK * DV;
        expect_ok(heed_kv_append(context, &cache.desc));
    }
    assert_memory_equal(cache.k, whole.k, sizeof(cache.k));
    assert_memory_equal(cache.v, whole.v, sizeof(cache.v));
    assert_memory_equal(cache.k_scale, whole.k_scale, sizeof(cache.k_scale));
    init(HEED_E4M3, 3);
    cache.desc.k_new.shape = packed;
    cache.desc.v_new.shape = packed_v;
    cache.desc.cu_seqlens = heed_tensor(starts, HEED_I32, 1, four, NULL);
    expect_ok(heed_kv_append(context, &cache.desc));
    assert_memory_equal(cache.k, whole.k, sizeof(cache.k));
    assert_memory_equal(cache.v, whole.v, sizeof(cache.v));
}

/* What lies beyond a type becomes its largest number; NaN stays. */
static void beyond(void **state)
{
    (void)state;
    init(HEED_E4M3, 0);
    cache.k_new[0] = 1e9f;
    cache.k_new[1] = -INFINITY;
    cache.k_new[2] = NAN;
    expect_ok(heed_kv_append(context, &cache.desc));
    const uint8_t *codes = (const uint8_t *)cache.k + row_of(0, 0) * HK * D;
    assert_int_equal(codes[0], 0x7e);
    assert_int_equal(codes[1], 0xfe);
    assert_int_equal(codes[2] & 0x7f, 0x7f);
}

/* ---- what is refused ------------------------------------------------------------------------- */

#define REFUSES(change, status, words)                                             \
    do {                                                                           \
        static cache_t before;                                                     \
        init(HEED_F16, 1);                                                         \
        (void)(change);                                                            \
        before = cache;                                                            \
        expect_fails(heed_kv_append(context, &cache.desc), status, words);         \
        assert_memory_equal(cache.k, before.k, sizeof(cache.k));                   \
        assert_memory_equal(cache.v, before.v, sizeof(cache.v));                   \
        assert_memory_equal(cache.lengths, before.lengths, sizeof(cache.lengths)); \
    } while (0)

static void refusals(void **state)
{
    (void)state;
    REFUSES(cache.lengths[2] = 14, HEED_ERROR_VALUE,
            "seqlens_k[2]=14 and 7 new keys: there is room for 20");
    REFUSES(cache.lengths[0] = -1, HEED_ERROR_VALUE, "seqlens_k[0]=-1");
    REFUSES(cache.table[TABLE + 2] = PAGES, HEED_ERROR_VALUE,
            "page_table[1,2]=16: there are 16 pages");
    REFUSES(cache.table[1] = -1, HEED_ERROR_VALUE, "page_table[0,1]=-1");
    REFUSES(cache.k_scale[1] = NAN, HEED_ERROR_VALUE, "k_scale[1]=nan");
    REFUSES(cache.v_scale[0] = 0, HEED_ERROR_VALUE, "v_scale[0]=0");
    REFUSES(cache.k_new_shape[3] = D + 1, HEED_ERROR_SHAPE, "k.shape[3]=24, but k_new has 25");
    REFUSES(cache.v_shape[1] = PAGE + 1, HEED_ERROR_SHAPE, "v.shape[1]=5, but k has 4");
    REFUSES(cache.desc.k.dtype = HEED_I32, HEED_ERROR_DTYPE, "k is i32");
    REFUSES(cache.desc.k_new.dtype = HEED_I8, HEED_ERROR_DTYPE, "k_new is i8");
    REFUSES(cache.desc.v.data = NULL, HEED_ERROR_NULL, "v.data is null");
    REFUSES(cache.desc.advance = 2, HEED_ERROR_VALUE, "advance=2");
    expect_fails(heed_kv_append(NULL, &cache.desc), HEED_ERROR_NULL, "context");
    expect_fails(heed_kv_append(context, NULL), HEED_ERROR_NULL, "desc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(one_by_one),
        cmocka_unit_test(beyond),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
