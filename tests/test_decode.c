/* What the kernels for few queries promise beyond right numbers: keys split at any size give the
 * single pass; with batch_invariant the bits of a row depend neither on the batch, nor on threads,
 * nor on where keys lie; stored codes are read exactly. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 3, SQ = 2, SK = 2100, H = 6, HK = 2, D = 32, DV = 48 };

typedef struct numbers {
    float q[B * SQ * H * D], k[B * SK * HK * D], v[B * SK * HK * DV];
} numbers_t;

typedef struct results {
    float out[B * SQ * H * DV], lse[B * H * SQ];
} results_t;

static numbers_t in;
static results_t whole, got;

static int64_t q_shape[4], k_shape[4], v_shape[4], out_shape[4], lse_shape[3];

static void fill(float *to, size_t count, kit_random_t *random)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (float)kit_random_normal(random);
}

static int make_numbers(void **state)
{
    kit_random_t random = {7};
    (void)state;
    fill(in.q, sizeof(in.q) / sizeof(float), &random);
    fill(in.k, sizeof(in.k) / sizeof(float), &random);
    fill(in.v, sizeof(in.v) / sizeof(float), &random);
    return 0;
}

/* Attention of `count` sequences from number `first` on, into the same place of `to`. */
static heed_attention_desc_t describe(results_t *to, int64_t first, int64_t count)
{
    memcpy(q_shape, (int64_t[]){count, SQ, H, D}, sizeof(q_shape));
    memcpy(k_shape, (int64_t[]){count, SK, HK, D}, sizeof(k_shape));
    memcpy(v_shape, (int64_t[]){count, SK, HK, DV}, sizeof(v_shape));
    memcpy(out_shape, (int64_t[]){count, SQ, H, DV}, sizeof(out_shape));
    memcpy(lse_shape, (int64_t[]){count, H, SQ}, sizeof(lse_shape));
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = heed_tensor(in.q + first * SQ * H * D, HEED_F32, 4, q_shape, NULL);
    desc.k = heed_tensor(in.k + first * SK * HK * D, HEED_F32, 4, k_shape, NULL);
    desc.v = heed_tensor(in.v + first * SK * HK * DV, HEED_F32, 4, v_shape, NULL);
    desc.out = heed_tensor(to->out + first * SQ * H * DV, HEED_F32, 4, out_shape, NULL);
    desc.lse = heed_tensor(to->lse + first * H * SQ, HEED_F32, 3, lse_shape, NULL);
    desc.causal = 1;
    return desc;
}

static heed_context_t *new_context(const char *impl, int threads)
{
    heed_context_t *context = NULL;
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    config.threads = threads;
    config.impl = impl;
    expect_ok(heed_context_create(&config, &context));
    return context;
}

/* Calls `prove` for each usable kernel for few queries. */
static void for_each(void (*prove)(const char *impl))
{
    heed_context_t *all = expect_context(NULL);
    const heed_impl_t *impl;
    int count = 0;
    for (int i = 0; (impl = heed_impl_at(all, i)); i++)
        if (strstr(impl->name, "cpu:decode_") && heed_impl_usable(all, impl, NULL)) {
            prove(impl->name);
            count++;
        }
    heed_context_destroy(all);
    assert_true(count > 0);
}

static void run(const char *impl, int threads, const heed_attention_desc_t *desc)
{
    heed_context_t *context = new_context(impl, threads);
    expect_ok(heed_attention(context, desc));
    heed_context_destroy(context);
}

/* ---- splits ---------------------------------------------------------------------------------- */

static void assert_near(const char *what, const float *now, const float *then, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)now[i] - (double)then[i]) <= 2e-6 * (1 + fabs((double)then[i])))) {
            print_error("%s[%zu] = %.9g, should be %.9g\n", what, i, (double)now[i],
                        (double)then[i]);
            fail();
        }
}

static void splits_of(const char *impl)
{
    static const int64_t sizes[] = {1, 7, 16, 100, 1024, SK - 1, SK, INT64_MAX};
    heed_attention_desc_t desc = describe(&whole, 0, B);
    desc.split_keys = SK;
    run(impl, 1, &desc);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
        for (int threads = 1; threads <= 4; threads += 3) {
            memset(&got, 0xff, sizeof(got));
            desc = describe(&got, 0, B);
            desc.split_keys = sizes[s];
            run(impl, threads, &desc);
            assert_near("out", got.out, whole.out, sizeof(got.out) / sizeof(float));
            assert_near("lse", got.lse, whole.lse, sizeof(got.lse) / sizeof(float));
        }
}

static void splits_give_the_single_pass(void **state)
{
    (void)state;
    for_each(splits_of);
}

/* ---- batch_invariant ------------------------------------------------------------------------- */

static void assert_same(void)
{
    assert_memory_equal(&got, &whole, sizeof(got));
}

/* Each sequence alone against all at once, with 1 to 5 threads: 6 units fill teams of some sizes,
 * in others splits are tasks. */
static void batches_of(const char *impl)
{
    heed_attention_desc_t desc = describe(&whole, 0, B);
    desc.batch_invariant = 1;
    run(impl, 1, &desc);
    for (int threads = 1; threads <= 5; threads++) {
        memset(&got, 0xff, sizeof(got));
        for (int64_t b = 0; b < B; b++) {
            desc = describe(&got, b, 1);
            desc.batch_invariant = 1;
            run(impl, threads, &desc);
        }
        assert_same();
        memset(&got, 0xff, sizeof(got));
        desc = describe(&got, 0, B);
        desc.batch_invariant = 1;
        run(impl, threads, &desc);
        assert_same();
    }
}

static void rows_depend_on_neither_batch_nor_threads(void **state)
{
    (void)state;
    for_each(batches_of);
}

/* The same keys in pages in reverse, of sizes that blocks of keys do not know. */
static void pages_of(const char *impl)
{
    static const int64_t sizes[] = {7, 16, 64};
    static numbers_t paged;
    static int32_t table[B * (SK / 7 + 1)], lengths[B] = {SK, SK, SK};
    heed_attention_desc_t desc = describe(&whole, 0, B);
    desc.batch_invariant = 1;
    run(impl, 1, &desc);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        int64_t size = sizes[s], each = SK / size, pages = B * each, used = each * size;
        int64_t k_pages[4] = {pages, size, HK, D}, v_pages[4] = {pages, size, HK, DV};
        int64_t table_shape[2] = {B, each}, lengths_shape[1] = {B};
        for (int64_t b = 0; b < B; b++) {
            lengths[b] = (int32_t)used;
            for (int64_t p = 0; p < each; p++) {
                int64_t to = pages - 1 - (b * each + p);
                table[b * each + p] = (int32_t)to;
                memcpy(paged.k + to * size * HK * D, in.k + (b * SK + p * size) * HK * D,
                       (size_t)(size * HK * D) * sizeof(float));
                memcpy(paged.v + to * size * HK * DV, in.v + (b * SK + p * size) * HK * DV,
                       (size_t)(size * HK * DV) * sizeof(float));
            }
        }
        desc = describe(&whole, 0, B);
        desc.batch_invariant = 1;
        desc.seqlens_k = heed_tensor(lengths, HEED_I32, 1, lengths_shape, NULL);
        run(impl, 1, &desc);
        memset(&got, 0xff, sizeof(got));
        desc = describe(&got, 0, B);
        desc.batch_invariant = 1;
        desc.k = heed_tensor(paged.k, HEED_F32, 4, k_pages, NULL);
        desc.v = heed_tensor(paged.v, HEED_F32, 4, v_pages, NULL);
        desc.page_table = heed_tensor(table, HEED_I32, 2, table_shape, NULL);
        run(impl, 3, &desc);
        assert_same();
    }
}

static void pages_change_no_bit(void **state)
{
    (void)state;
    for_each(pages_of);
}

/* ---- codes ----------------------------------------------------------------------------------- */

static double value_of(heed_dtype_t dtype, int code)
{
    const uint8_t byte = (uint8_t)code;
    return kit_load(dtype, &byte, 0);
}

static bool same_value(double now, double then, double within)
{
    return isnan(then) ? isnan(now) : now == then || fabs(now - then) <= within * (1 + fabs(then));
}

/* One key, whose value holds all codes: out is that value, exactly. 256 keys of one column, each
 * in a sequence of its own: lse is the score, up to the rounding of one product
 * and one exponential. */
static void codes_of_dtype(const char *impl, heed_dtype_t dtype)
{
    enum { CODES = 256, WIDTH = 64 };
    static uint8_t keys[CODES][WIDTH], value[CODES];
    static float query[CODES][WIDTH], out[CODES][CODES], lse[CODES];
    int64_t narrow[4] = {CODES, 1, 1, WIDTH}, wide[4] = {CODES, 1, 1, CODES};
    int64_t same[4] = {0, CODES, CODES, 1}, one[3] = {CODES, 1, 1};
    heed_attention_desc_t desc = heed_attention_desc();
    for (int c = 0; c < CODES; c++) {
        keys[c][c % WIDTH] = value[c] = (uint8_t)c;
        memset(query[c], 0, sizeof(query[c]));
        query[c][c % WIDTH] = 1;
    }
    desc.scale = 1;
    desc.q = heed_tensor(query, HEED_F32, 4, narrow, NULL);
    desc.k = heed_tensor(keys, dtype, 4, narrow, NULL);
    desc.v = heed_tensor(value, dtype, 4, wide, same);
    desc.out = heed_tensor(out, HEED_F32, 4, wide, NULL);
    desc.lse = heed_tensor(lse, HEED_F32, 3, one, NULL);
    run(impl, 1, &desc);
    for (int c = 0; c < CODES; c++) {
        double score = value_of(dtype, c);
        /* An infinite score has no softmax. */
        if (!isinf(score) && !same_value((double)lse[c], score, 3e-7))
            fail_msg("%s: key of code %d is %g", impl, c, (double)lse[c]);
        if (!same_value((double)out[0][c], score, 0))
            fail_msg("%s: value of code %d is %g", impl, c, (double)out[0][c]);
    }
}

static void codes_of(const char *impl)
{
    codes_of_dtype(impl, HEED_E4M3);
    codes_of_dtype(impl, HEED_E5M2);
    codes_of_dtype(impl, HEED_I8);
}

static void codes_are_read_exactly(void **state)
{
    (void)state;
    for_each(codes_of);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_give_the_single_pass),
        cmocka_unit_test(rows_depend_on_neither_batch_nor_threads),
        cmocka_unit_test(pages_change_no_bit),
        cmocka_unit_test(codes_are_read_exactly),
    };
    return cmocka_run_group_tests(tests, make_numbers, NULL);
}
