/* What inference adds to attention: what is refused, and properties that hold whatever the numbers
 * are. Every implementation of the CPU that takes the problem is held to them. */
#include "expect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 3, SQ = 5, SK = 40, H = 4, HK = 2, D = 32, PAGE = 8, PAGES = 20, TABLE = SK / PAGE };

/* ---- a small cache --------------------------------------------------------------------------- */

typedef struct cache {
    float q[B * SQ * H * D], k[PAGES * PAGE * HK * D], v[PAGES * PAGE * HK * D];
    float out[B * SQ * H * D], lse[B * H * SQ];
    float scale[HK], slopes[H], bias[SQ * SK];
    int32_t table[B * TABLE], lengths[B], starts[B + 1];
    heed_attention_desc_t desc;
} cache_t;

static cache_t cache;
static heed_context_t *context;

static void fill(float *to, size_t count, unsigned seed)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (float)((i * 2654435761u + seed * 40503u) % 1009) / 504.5f - 1;
}

#define FILL(array, seed) fill(array, sizeof(array) / sizeof((array)[0]), seed)

/* Three sequences of 40, 13 and 0 keys in pages out of order. */
static void init_cache(void)
{
    static const int32_t lengths[] = {SK, 13, 0}, starts[] = {0, SQ, 2 * SQ - 1, 3 * SQ};
    memset(&cache, 0, sizeof(cache));
    FILL(cache.q, 1);
    FILL(cache.k, 2);
    FILL(cache.v, 3);
    FILL(cache.bias, 4);
    memcpy(cache.lengths, lengths, sizeof(lengths));
    memcpy(cache.starts, starts, sizeof(starts));
    for (int i = 0; i < B * TABLE; i++)
        cache.table[i] = (i * 7 + 3) % PAGES;
    for (int h = 0; h < HK; h++)
        cache.scale[h] = 1 + (float)h;
    heed_attention_desc_t *desc = &cache.desc;
    static int64_t q[] = {B, SQ, H, D}, k[] = {PAGES, PAGE, HK, D}, lse[] = {B, H, SQ};
    static int64_t table[] = {B, TABLE}, batch[] = {B}, heads[] = {HK};
    *desc = heed_attention_desc();
    desc->q = heed_tensor(cache.q, HEED_F32, 4, q, NULL);
    desc->k = heed_tensor(cache.k, HEED_F32, 4, k, NULL);
    desc->v = heed_tensor(cache.v, HEED_F32, 4, k, NULL);
    desc->out = heed_tensor(cache.out, HEED_F32, 4, q, NULL);
    desc->lse = heed_tensor(cache.lse, HEED_F32, 3, lse, NULL);
    desc->page_table = heed_tensor(cache.table, HEED_I32, 2, table, NULL);
    desc->seqlens_k = heed_tensor(cache.lengths, HEED_I32, 1, batch, NULL);
    desc->k_scale = heed_tensor(cache.scale, HEED_F32, 1, heads, NULL);
    desc->causal = 1;
}

static int begin(void **state)
{
    (void)state;
    context = expect_context(NULL);
    init_cache();
    return 0;
}

static int end(void **state)
{
    (void)state;
    heed_context_destroy(context);
    return 0;
}

/* ---- what is refused ------------------------------------------------------------------------- */

#define REFUSES(change, status, words)                                     \
    do {                                                                   \
        init_cache();                                                      \
        (void)(change);                                                    \
        expect_fails(heed_attention(context, &cache.desc), status, words); \
        assert_true(cache.out[0] == 0 && cache.lse[0] == 0);               \
    } while (0)
#define BAD HEED_ERROR_VALUE

static void data_that_is_refused(void **state)
{
    (void)state;
    expect_ok(heed_attention(context, &cache.desc));
    REFUSES(cache.table[2] = PAGES, BAD, "page_table[0,2]=20: there are 20 pages");
    REFUSES(cache.table[6] = -1, BAD, "page_table[1,1]=-1: there are 20 pages");
    REFUSES(cache.lengths[1] = -1, BAD, "seqlens_k[1]=-1: there is room for 0 to 40 keys");
    REFUSES(cache.lengths[2] = 41, BAD, "seqlens_k[2]=41: there is room for 0 to 40 keys");
    REFUSES(cache.scale[1] = NAN, BAD, "k_scale[1]=nan is not finite");
    REFUSES(cache.scale[0] = -INFINITY, BAD, "k_scale[0]=-inf is not finite");
    /* What no key in use needs is not looked at. */
    init_cache();
    cache.table[7] = cache.table[B * TABLE - 1] = -1;
    expect_ok(heed_attention(context, &cache.desc));
    cache.desc.unchecked = 1;
    expect_ok(heed_attention(context, &cache.desc));
}

static void make_ragged(void)
{
    static int64_t q[] = {1, B * SQ, H, D}, lse[] = {1, H, B * SQ}, starts[] = {B + 1};
    cache.desc.q.shape = cache.desc.out.shape = q;
    cache.desc.lse.shape = lse;
    cache.desc.cu_seqlens_q = heed_tensor(cache.starts, HEED_I32, 1, starts, NULL);
}

static void starts_that_are_refused(void **state)
{
    (void)state;
    init_cache();
    make_ragged();
    expect_ok(heed_attention(context, &cache.desc));
    REFUSES((make_ragged(), cache.starts[1] = 12), BAD,
            "cu_seqlens_q[2]=9, but the one before is 12");
    REFUSES((make_ragged(), cache.starts[3] = 16), BAD,
            "cu_seqlens_q[3]=16, but there are 15 rows");
    REFUSES((make_ragged(), cache.starts[0] = -1), BAD, "cu_seqlens_q[0]=-1");
}

static void set_bias(int64_t queries, int64_t keys)
{
    static int64_t shape[] = {1, 1, 0, 0};
    shape[2] = queries;
    shape[3] = keys;
    cache.desc.bias = heed_tensor(cache.bias, HEED_F32, 4, shape, NULL);
}

static void descriptors_that_are_refused(void **state)
{
    static int64_t two[] = {2, 2}, five[] = {5};
    (void)state;
    REFUSES(set_bias(SQ, SK - 1), HEED_ERROR_SHAPE,
            "bias.shape[3]=39, but the number of keys is 40");
    REFUSES(set_bias(SQ - 1, SK), HEED_ERROR_SHAPE, "bias.shape[2]=4: it is 1 or 5");
    REFUSES((make_ragged(), set_bias(SQ - 2, SK)), BAD, "bias is for 3 queries and 40 keys");
    REFUSES(cache.desc.softcap = -1, BAD, "softcap=-1");
    REFUSES(cache.desc.softcap = NAN, BAD, "softcap=nan");
    REFUSES(cache.desc.off_by_one = 2, BAD, "off_by_one=2");
    REFUSES(cache.desc.window_left = -2, BAD, "window_left=-2");
    REFUSES(cache.desc.split_keys = -1, BAD, "split_keys=-1");
    REFUSES(cache.desc.k_scale.shape = five, HEED_ERROR_SHAPE, "k_scale.shape[0]=5: it is 1 or 2");
    REFUSES(cache.desc.page_table.shape = two, HEED_ERROR_SHAPE,
            "page_table.shape[0]=2, but the batch");
    REFUSES(cache.desc.seqlens_k.shape = five, HEED_ERROR_SHAPE,
            "seqlens_k.shape[0]=5, but the batch");
    REFUSES(cache.desc.page_table.dtype = HEED_I64, HEED_ERROR_DTYPE,
            "page_table is i64: it is i32");
    REFUSES((make_ragged(), cache.desc.cu_seqlens_k = cache.desc.cu_seqlens_q), BAD,
            "cu_seqlens_k beside page_table");
    REFUSES(cache.desc.sinks = heed_tensor(cache.slopes, HEED_F32, 1, five, NULL), HEED_ERROR_SHAPE,
            "sinks.shape[0]=5, but the heads are 4");
    REFUSES(cache.desc.q.dtype = HEED_E4M3, HEED_ERROR_DTYPE, "with q in e4m3");
}

/* ---- properties ------------------------------------------------------------------------------ */

/* Calls `property` with each implementation of the CPU alone. */
static void each_impl(void (*property)(const char *impl))
{
    const heed_impl_t *impl;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++) {
        char only[128];
        if (strcmp(impl->op, "attention") != 0 || !heed_impl_usable(context, impl, NULL) ||
            impl->device_type != HEED_DEVICE_CPU)
            continue;
        snprintf(only, sizeof(only), "attention=%s", impl->name);
        heed_context_t *all = context;
        context = expect_context(only);
        init_cache();
        property(impl->name);
        heed_context_destroy(context);
        context = all;
    }
}

/* False where the implementation does not take the problem. */
static bool run(void)
{
    heed_status_t status = heed_attention(context, &cache.desc);
    if (status != HEED_ERROR_UNSUPPORTED)
        expect_ok(status);
    return status == HEED_OK;
}

static void expect_near(const char *impl, const float *got, const float *want, int count)
{
    for (int i = 0; i < count; i++)
        if (!(fabsf(got[i] - want[i]) <= 2e-6f * (1 + fabsf(want[i]))) && got[i] != want[i]) {
            print_error("%s: [%d] is %g, should be %g\n", impl, i, (double)got[i], (double)want[i]);
            fail();
        }
}

/* The same keys in other pages, some of them shared, give the same bits. */
static void pages_in_any_order(const char *impl)
{
    (void)impl;
    cache_t first;
    if (!run())
        return;
    first = cache;
    for (int i = 0; i < B * TABLE; i++) {
        int from = first.table[i], to = (from * 3 + 5) % PAGES;
        size_t page = PAGE * HK * D;
        cache.table[i] = to;
        memcpy(cache.k + (size_t)to * page, first.k + (size_t)from * page, page * sizeof(float));
        memcpy(cache.v + (size_t)to * page, first.v + (size_t)from * page, page * sizeof(float));
    }
    assert_true(run());
    assert_memory_equal(cache.out, first.out, sizeof(cache.out));
    assert_memory_equal(cache.lse, first.lse, sizeof(cache.lse));
}

static void page_order(void **state)
{
    (void)state;
    each_impl(pages_in_any_order);
}

/* A ragged batch gives what its sequences give one by one. */
static void ragged_is_looped(const char *impl)
{
    static float out[B * SQ * H * D];
    static int64_t q[] = {1, 0, H, D}, one[] = {1}, table[] = {1, TABLE}, lse[] = {1, H, 0};
    make_ragged();
    if (!run())
        return;
    memcpy(out, cache.out, sizeof(out));
    for (int b = 0; b < B; b++) {
        int64_t start = cache.starts[b];
        heed_attention_desc_t *desc = &cache.desc;
        q[1] = lse[2] = cache.starts[b + 1] - start;
        desc->cu_seqlens_q.ndim = 0;
        desc->q = heed_tensor(cache.q + start * H * D, HEED_F32, 4, q, NULL);
        desc->out = heed_tensor(cache.out + start * H * D, HEED_F32, 4, q, NULL);
        desc->lse = heed_tensor(cache.lse, HEED_F32, 3, lse, NULL);
        desc->page_table = heed_tensor(cache.table + b * TABLE, HEED_I32, 2, table, NULL);
        desc->seqlens_k = heed_tensor(cache.lengths + b, HEED_I32, 1, one, NULL);
        memset(cache.out + start * H * D, 0xff, (size_t)(q[1] * H * D) * sizeof(float));
        assert_true(run());
    }
    expect_near(impl, out, cache.out, B * SQ * H * D);
}

static void ragged(void **state)
{
    (void)state;
    each_impl(ragged_is_looped);
}

/* Keys in two halves, merged, give what all give. */
static void halves_are_one(const char *impl)
{
    static float out[B * SQ * H * D], lse[B * H * SQ];
    static int64_t k[] = {B, SK, HK, D}, half[] = {B, SK / 2, HK, D};
    heed_attention_desc_t *desc = &cache.desc;
    static float dense_k[B * SK * HK * D], dense_v[B * SK * HK * D];
    static int64_t strides[] = {SK * HK * D, HK * D, D, 1};
    FILL(dense_k, 5);
    FILL(dense_v, 6);
    desc->page_table.ndim = desc->seqlens_k.ndim = desc->causal = 0;
    desc->softcap = 2;
    desc->k = heed_tensor(dense_k, HEED_F32, 4, k, NULL);
    desc->v = heed_tensor(dense_v, HEED_F32, 4, k, NULL);
    if (!run())
        return;
    memcpy(out, cache.out, sizeof(out));
    memcpy(lse, cache.lse, sizeof(lse));
    for (int part = 0; part < 2; part++) {
        desc->k = heed_tensor(dense_k + part * SK / 2 * HK * D, HEED_F32, 4, half, strides);
        desc->v = heed_tensor(dense_v + part * SK / 2 * HK * D, HEED_F32, 4, half, strides);
        desc->merge = part;
        assert_true(run());
    }
    expect_near(impl, cache.out, out, B * SQ * H * D);
    expect_near(impl, cache.lse, lse, B * H * SQ);
}

static void halves(void **state)
{
    (void)state;
    each_impl(halves_are_one);
}

/* Heads in another order give their results in that order. */
static void heads_are_their_own(const char *impl)
{
    static int64_t heads[] = {H};
    cache_t first;
    (void)impl;
    for (int h = 0; h < H; h++)
        cache.slopes[h] = 0.1f * (float)(h + 1);
    cache.desc.alibi_slopes = heed_tensor(cache.slopes, HEED_F32, 1, heads, NULL);
    if (!run())
        return;
    first = cache;
    /* Heads 0, 1 and 2, 3 share a key head: both are swapped within their group. */
    for (int i = 0; i < B * SQ * H; i++)
        memcpy(cache.q + i * D, first.q + (i ^ 1) * D, D * sizeof(float));
    for (int h = 0; h < H; h++)
        cache.slopes[h] = first.slopes[h ^ 1];
    assert_true(run());
    for (int i = 0; i < B * SQ * H; i++)
        assert_memory_equal(cache.out + i * D, first.out + (i ^ 1) * D, D * sizeof(float));
}

static void heads(void **state)
{
    (void)state;
    each_impl(heads_are_their_own);
}

/* With batch_invariant a sequence alone, and with other numbers of threads, gives the same bits. */
static void batch_does_not_matter(const char *impl)
{
    static int64_t q[] = {1, SQ, H, D}, one[] = {1}, table[] = {1, TABLE}, lse[] = {1, H, SQ};
    cache_t first;
    char only[128];
    cache.desc.batch_invariant = 1;
    if (!run())
        return;
    first = cache;
    snprintf(only, sizeof(only), "attention=%s", impl);
    for (int threads = 1; threads <= 3; threads++) {
        heed_context_t *before = context;
        heed_context_config_t config = heed_context_config();
        config.ignore_environment = 1;
        config.threads = threads;
        config.impl = only;
        expect_ok(heed_context_create(&config, &context));
        cache.desc = first.desc;
        memset(cache.out, 0xff, sizeof(cache.out));
        assert_true(run());
        assert_memory_equal(cache.out, first.out, sizeof(cache.out));
        cache.desc.q.shape = cache.desc.out.shape = q;
        cache.desc.lse.shape = lse;
        cache.desc.page_table.shape = table;
        cache.desc.seqlens_k.shape = one;
        memset(cache.out, 0xff, sizeof(cache.out));
        assert_true(run());
        assert_memory_equal(cache.out, first.out, SQ * H * D * sizeof(float));
        heed_context_destroy(context);
        context = before;
    }
}

static void invariant(void **state)
{
    (void)state;
    each_impl(batch_does_not_matter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(data_that_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(starts_that_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(descriptors_that_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(page_order, begin, end),
        cmocka_unit_test_setup_teardown(ragged, begin, end),
        cmocka_unit_test_setup_teardown(halves, begin, end),
        cmocka_unit_test_setup_teardown(heads, begin, end),
        cmocka_unit_test_setup_teardown(invariant, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
