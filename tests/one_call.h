/* A sequence, what one call over all its keys gives for a few masks, and room for what a schedule
 * gives. */
#ifndef TESTS_ONE_CALL_H
#define TESTS_ONE_CALL_H

#include "expect.h"

#include "kit.h"

enum { B = 2, N = 83, H = 4, D = 16, DV = 24 };

static float q[B * N * H * D], k[B * N * H * D], v[B * N * H * DV];
static float dense_out[B * N * H * DV], dense_lse[B * H * N];
static float out[B * N * H * DV], lse[B * H * N];
static int64_t q_shape[4], k_shape[4], v_shape[4], out_shape[4], lse_shape[3];

static inline void fill(void)
{
    kit_random_t random = {21};
    for (int i = 0; i < B * N * H * D; i++) {
        q[i] = (float)kit_random_normal(&random);
        k[i] = (float)kit_random_normal(&random);
    }
    for (int i = 0; i < B * N * H * DV; i++)
        v[i] = (float)kit_random_normal(&random);
}

typedef struct problem {
    int queries, key_heads, causal, left, right;
} problem_t;

static inline void set_shapes(const problem_t *problem)
{
    memcpy(q_shape, (int64_t[]){B, problem->queries, H, D}, sizeof(q_shape));
    memcpy(k_shape, (int64_t[]){B, N, problem->key_heads, D}, sizeof(k_shape));
    memcpy(v_shape, (int64_t[]){B, N, problem->key_heads, DV}, sizeof(v_shape));
    memcpy(out_shape, (int64_t[]){B, problem->queries, H, DV}, sizeof(out_shape));
    memcpy(lse_shape, (int64_t[]){B, H, problem->queries}, sizeof(lse_shape));
}

static inline void attend_densely(heed_context_t *context, const problem_t *problem)
{
    heed_attention_desc_t desc = heed_attention_desc();
    set_shapes(problem);
    desc.causal = problem->causal;
    desc.window_left = problem->left;
    desc.window_right = problem->right;
    desc.q = heed_tensor(q, HEED_F32, 4, q_shape, NULL);
    desc.k = heed_tensor(k, HEED_F32, 4, k_shape, NULL);
    desc.v = heed_tensor(v, HEED_F32, 4, v_shape, NULL);
    desc.out = heed_tensor(dense_out, HEED_F32, 4, out_shape, NULL);
    desc.lse = heed_tensor(dense_lse, HEED_F32, 3, lse_shape, NULL);
    expect_ok(heed_attention(context, &desc));
}

static inline void expect_dense(const problem_t *problem, const char *what, int number)
{
    const struct {
        const char *name;
        const float *got, *want;
        int count;
    } all[] = {{"out", out, dense_out, B * problem->queries * H * DV},
               {"lse", lse, dense_lse, B * problem->queries * H}};
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < all[n].count; i++)
            if (all[n].got[i] != all[n].want[i] &&
                !(fabsf(all[n].got[i] - all[n].want[i]) <= 1e-5f))
                fail_msg("%s %d: %s[%d] = %.8g, should be %.8g (%d queries, %d key heads, causal "
                         "%d, window %d,%d)",
                         what, number, all[n].name, i, (double)all[n].got[i],
                         (double)all[n].want[i], problem->queries, problem->key_heads,
                         problem->causal, problem->left, problem->right);
}

static inline void poison(void)
{
    memset(out, 0xff, sizeof(out));
    memset(lse, 0xff, sizeof(lse));
}

static const problem_t problems[] = {
    {N, H, 0, -1, -1}, {N, H, 1, -1, -1}, {N, 2, 1, 9, -1}, {N, 1, 0, 5, 7},   {N, 2, 0, -1, 3},
    {N, H, 0, 20, -1}, {7, H, 1, -1, -1}, {7, 2, 0, 12, 4}, {1, 1, 1, 30, -1}, {N, 2, 1, 0, -1},
};
enum { PROBLEMS = sizeof(problems) / sizeof(problems[0]) };

#endif
