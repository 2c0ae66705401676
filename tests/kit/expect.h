/* What the CMocka tests share: statuses with their sentences, contexts that no environment touches,
 * and a small attention with memory. */
#ifndef KIT_EXPECT_H
#define KIT_EXPECT_H

#include <heed/heed.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Fails the test unless the status is as wanted and, if words are given, the sentence has them. */
static inline void expect_status_at(heed_status_t got, heed_status_t want, const char *words,
                                    const char *file, int line)
{
    if (got == want && (!words || strstr(heed_last_error(), words)))
        return;
    print_error("%s instead of %s, with the sentence:\n    %s\nwhich should have: %s\n",
                heed_status_name(got), heed_status_name(want), heed_last_error(),
                words ? words : "(anything)");
    _fail(file, line);
}

#define expect_ok(call) expect_status_at((call), HEED_OK, NULL, __FILE__, __LINE__)
#define expect_fails(call, want, words) \
    expect_status_at((call), (want), (words), __FILE__, __LINE__)

/* Fails the test unless the numbers are the same but for 1e-12. */
static inline void expect_number_at(double got, double want, const char *file, int line)
{
    if (fabs(got - want) <= 1e-12)
        return;
    print_error("%.17g is not %.17g\n", got, want);
    _fail(file, line);
}

#define expect_number(got, want) expect_number_at((got), (want), __FILE__, __LINE__)

/* A context that reads no environment; `impl` may be NULL. */
static inline heed_context_t *expect_context(const char *impl)
{
    heed_context_t *context = NULL;
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    config.threads = 2;
    config.impl = impl;
    expect_ok(heed_context_create(&config, &context));
    assert_non_null(context);
    return context;
}

/* Attention of 2 x 5 queries on 7 keys, 4 heads on 2, head sizes 16 and 8, f32, with lse. */
enum {
    SMALL_B = 2,
    SMALL_SQ = 5,
    SMALL_SK = 7,
    SMALL_H = 4,
    SMALL_HK = 2,
    SMALL_D = 16,
    SMALL_DV = 8
};

typedef struct small {
    float q[SMALL_B * SMALL_SQ * SMALL_H * SMALL_D];
    float k[SMALL_B * SMALL_SK * SMALL_HK * SMALL_D];
    float v[SMALL_B * SMALL_SK * SMALL_HK * SMALL_DV];
    float out[SMALL_B * SMALL_SQ * SMALL_H * SMALL_DV];
    float lse[SMALL_B * SMALL_H * SMALL_SQ];
    int64_t shapes[4][4];
    int64_t lse_shape[3];
    void *buffers[HEED_ATTENTION_OPERANDS];
    heed_attention_desc_t desc;
} small_t;

static inline void small_fill(float *to, size_t count, unsigned seed)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (float)((i * 37 + seed * 11) % 23) / 8 - 1.375f;
}

static inline void small_init(small_t *s)
{
    const int64_t shapes[4][4] = {{SMALL_B, SMALL_SQ, SMALL_H, SMALL_D},
                                  {SMALL_B, SMALL_SK, SMALL_HK, SMALL_D},
                                  {SMALL_B, SMALL_SK, SMALL_HK, SMALL_DV},
                                  {SMALL_B, SMALL_SQ, SMALL_H, SMALL_DV}};
    memset(s, 0, sizeof(*s));
    memcpy(s->shapes, shapes, sizeof(shapes));
    memcpy(s->lse_shape, (const int64_t[]){SMALL_B, SMALL_H, SMALL_SQ}, sizeof(s->lse_shape));
    small_fill(s->q, sizeof(s->q) / sizeof(float), 1);
    small_fill(s->k, sizeof(s->k) / sizeof(float), 2);
    small_fill(s->v, sizeof(s->v) / sizeof(float), 3);
    s->desc = heed_attention_desc();
    s->desc.q = heed_tensor(s->q, HEED_F32, 4, s->shapes[0], NULL);
    s->desc.k = heed_tensor(s->k, HEED_F32, 4, s->shapes[1], NULL);
    s->desc.v = heed_tensor(s->v, HEED_F32, 4, s->shapes[2], NULL);
    s->desc.out = heed_tensor(s->out, HEED_F32, 4, s->shapes[3], NULL);
    s->desc.lse = heed_tensor(s->lse, HEED_F32, 3, s->lse_shape, NULL);
    void *const buffers[] = {s->q, s->k, s->v, s->out, s->lse};
    memcpy(s->buffers, buffers, sizeof(buffers));
}

#endif
