/* No kernel reads beyond an operand: each of q, k, v and out ends where readable memory does, and
 * numbers of queries, keys and columns fill up no tile. The checker's guard zones see only what is
 * written. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

enum { OPERANDS = HEED_ATTENTION_OUT + 1, ROOM = 1 << 20 };

typedef struct problem {
    heed_dtype_t dtype;
    int64_t sq, sk, heads, key_heads, d, dv;
    int32_t causal;
} problem_t;

static const problem_t problems[] = {
    {HEED_F32, 17, 33, 2, 1, 32, 32, 0},   {HEED_BF16, 17, 33, 1, 1, 32, 32, 0},
    {HEED_BF16, 65, 97, 2, 2, 64, 64, 1},  {HEED_BF16, 129, 301, 1, 1, 64, 48, 0},
    {HEED_BF16, 5, 7, 1, 1, 33, 17, 0},    {HEED_F16, 65, 97, 2, 1, 64, 40, 1},
    {HEED_F32, 129, 301, 1, 1, 64, 72, 0}, {HEED_F32, 1, 301, 4, 1, 64, 64, 0},
    {HEED_BF16, 1, 301, 4, 1, 64, 64, 0},  {HEED_F32, 3, 5, 1, 1, 7, 3, 1},
};

static char *maps[OPERANDS];

static int make_maps(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    (void)state;
    for (int i = 0; i < OPERANDS; i++) {
        maps[i] =
            mmap(NULL, ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (maps[i] == MAP_FAILED || mprotect(maps[i] + ROOM, page, PROT_NONE))
            return -1;
    }
    return 0;
}

/* Packed [1, rows, heads, columns] up to the very end. */
static heed_tensor_t at_the_end(int operand, heed_dtype_t dtype, int64_t *shape)
{
    size_t count = (size_t)(shape[1] * shape[2] * shape[3]);
    char *at = maps[operand] + ROOM - count * heed_dtype_size(dtype);
    kit_random_t random = {(uint64_t)operand + 1};
    for (size_t i = 0; i < count; i++)
        kit_store(dtype, at, (int64_t)i, kit_random_normal(&random));
    return heed_tensor(at, dtype, 4, shape, NULL);
}

static heed_status_t run(const char *impl, const problem_t *p, double *out)
{
    heed_context_t *context = expect_context(impl);
    int64_t q[] = {1, p->sq, p->heads, p->d}, k[] = {1, p->sk, p->key_heads, p->d};
    int64_t v[] = {1, p->sk, p->key_heads, p->dv}, o[] = {1, p->sq, p->heads, p->dv};
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = at_the_end(HEED_ATTENTION_Q, p->dtype, q);
    desc.k = at_the_end(HEED_ATTENTION_K, p->dtype, k);
    desc.v = at_the_end(HEED_ATTENTION_V, p->dtype, v);
    desc.out = at_the_end(HEED_ATTENTION_OUT, HEED_F32, o);
    desc.causal = p->causal;
    heed_status_t status = heed_attention(context, &desc);
    for (int64_t i = 0; status == HEED_OK && i < p->sq * p->heads * p->dv; i++)
        out[i] = kit_load(HEED_F32, desc.out.data, i);
    heed_context_destroy(context);
    return status;
}

/* Whether implementation `name` took one of the problems. */
static bool takes_some(const char *name)
{
    static double want[1 << 15], got[1 << 15];
    int taken = 0;
    for (size_t i = 0; i < sizeof(problems) / sizeof(problems[0]); i++) {
        const problem_t *p = &problems[i];
        heed_status_t status = run(name, p, got);
        if (status != HEED_OK) {
            assert_int_equal(status, HEED_ERROR_UNSUPPORTED);
            continue;
        }
        taken++;
        expect_ok(run("cpu:standard", p, want));
        for (int64_t j = 0; j < p->sq * p->heads * p->dv; j++)
            assert_true(fabs(got[j] - want[j]) < (p->dtype == HEED_BF16 ? 2e-2 : 1e-4));
    }
    return taken > 0;
}

static void nothing_is_read_beyond(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const heed_impl_t *impl;
    int taken = 0;
    (void)state;
    for (int i = 0; (impl = heed_impl_at(context, i)) != NULL; i++)
        if (!strcmp(impl->op, "attention") && impl->device_type == HEED_DEVICE_CPU &&
            heed_impl_usable(context, impl, NULL))
            taken += takes_some(impl->name);
    assert_true(taken >= 2);
    heed_context_destroy(context);
}

/* A key of -inf, where every query is positive, has no weight: what is left is as without it. A
 * value of +inf makes its column infinite, and no other. */
static void infinities(heed_context_t *context, heed_dtype_t dtype)
{
    enum { SQ = 19, SK = 64, D = 32, KEY = 11, COLUMN = 5 };
    static char q[SQ * D * 4], k[SK * D * 4], v[SK * D * 4];
    float out[SQ * D], without[SQ * D];
    const double off = dtype == HEED_BF16 ? 2e-2 : 1e-4;
    kit_random_t random = {3};
    for (int i = 0; i < SK * D; i++) {
        kit_store(dtype, k, i, kit_random_normal(&random));
        kit_store(dtype, v, i, kit_random_normal(&random));
        if (i < SQ * D)
            kit_store(dtype, q, i, 0.1 + fabs(kit_random_normal(&random)));
    }
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(q, dtype, 1, SQ, 1, D);
    desc.k = HEED_TENSOR(k, dtype, 1, SK, 1, D);
    desc.v = HEED_TENSOR(v, dtype, 1, SK, 1, D);
    desc.out = HEED_TENSOR(without, HEED_F32, 1, SQ, 1, D);
    for (int c = 0; c < D; c++)
        kit_store(dtype, k, KEY * D + c, -1e4);
    heed_status_t status = heed_attention(context, &desc);
    if (status == HEED_ERROR_UNSUPPORTED)
        return;
    expect_ok(status);
    kit_store(dtype, k, KEY * D + 3, -INFINITY);
    kit_store(dtype, v, (KEY + 1) * D + COLUMN, INFINITY);
    desc.out = HEED_TENSOR(out, HEED_F32, 1, SQ, 1, D);
    expect_ok(heed_attention(context, &desc));
    for (int i = 0; i < SQ * D; i++)
        assert_true(i % D == COLUMN ? out[i] == INFINITY : fabs(out[i] - without[i]) < off);
}

static void infinities_stay_where_they_are(void **state)
{
    static const heed_dtype_t types[] = {HEED_F32, HEED_BF16, HEED_F16};
    heed_context_t *all = expect_context(NULL);
    const heed_impl_t *impl;
    (void)state;
    for (int i = 0; (impl = heed_impl_at(all, i)) != NULL; i++) {
        if (strcmp(impl->op, "attention") != 0 || impl->device_type != HEED_DEVICE_CPU ||
            !heed_impl_usable(all, impl, NULL))
            continue;
        heed_context_t *context = expect_context(impl->name);
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
            infinities(context, types[t]);
        heed_context_destroy(context);
    }
    heed_context_destroy(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_is_read_beyond, make_maps),
        cmocka_unit_test(infinities_stay_where_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
