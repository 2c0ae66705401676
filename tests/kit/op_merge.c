/* Merges of partial states for the kit. Results are judged against states merged one after the
 * other by log(exp(a) + exp(b)) in double, which is not how the library does it.
 *
 * With u = 2^-24 the lse is rounded once: 2 u |lse|. Weights w_p and products are f32 numbers, and
 * P of them are added: out is off by at most (P + 4) u times the sum of w_p |part_out|, which is at
 * most the largest |part_out| of the states that are not empty; then it is rounded to its type.
 * What f16 cannot hold as a normal number counts units of 2^-24. */
#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define U 0x1p-24

static const struct {
    const char *name;
    heed_dtype_t dtype;
    uint64_t bit;
} dtypes[] = {{"f32", HEED_F32, HEED_MERGE_CAN_F32},
              {"bf16", HEED_BF16, HEED_MERGE_CAN_BF16},
              {"f16", HEED_F16, HEED_MERGE_CAN_F16}};
enum { DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

/* ---- problems -------------------------------------------------------------------------------- */

static const char *draw_dtype(kit_random_t *random, uint64_t features)
{
    int at = (int)kit_random_int(random, 0, DTYPES - 1);
    for (int i = 0; i < DTYPES && !(features & dtypes[at].bit); i++)
        at = (at + 1) % DTYPES;
    return dtypes[at].name;
}

static bool draw_bit(kit_random_t *random, uint64_t features, uint64_t bit)
{
    return features & bit && kit_random_next(random) % 2;
}

static void draw_problem(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    int64_t stride[2] = {1, 1};
    if (draw_bit(random, features, HEED_MERGE_CAN_STRIDED_DIM))
        for (int i = 0; i < 2; i++)
            stride[i] = kit_random_int(random, 1, 4);
    bool into = draw_bit(random, features, HEED_MERGE_CAN_INTO);
    snprintf(text, size,
             "merge dtype=%s parts=%lld b=%lld sq=%lld h=%lld d=%lld out=%s lse=%d into=%d "
             "layout=%s stride=%lld,%lld",
             draw_dtype(random, features), (long long)kit_random_int(random, 0, 9),
             (long long)kit_random_int(random, 0, 3), (long long)kit_random_int(random, 0, 40),
             (long long)kit_random_int(random, 1, 5), (long long)kit_random_int(random, 1, 130),
             draw_dtype(random, features), into || draw_bit(random, features, HEED_MERGE_CAN_LSE),
             into, kit_random_next(random) % 2 ? "bshd" : "bhsd", (long long)stride[0],
             (long long)stride[1]);
}

static const char *const corners[] = {
    "merge parts=0 b=1 sq=3 h=2 d=16 lse=1",
    "merge parts=0 b=1 sq=3 h=2 d=16 into=1",
    "merge parts=1 b=1 sq=1 h=1 d=1 lse=1",
    "merge parts=1 b=2 sq=5 h=3 d=64 into=1",
    "merge parts=2 b=1 sq=0 h=2 d=16 lse=1",
    "merge parts=2 b=1 sq=4 h=2 d=0 lse=1",
    "merge parts=2 b=1 sq=300 h=8 d=128",
    "merge parts=2 b=1 sq=300 h=8 d=128 dtype=bf16 out=f32 lse=1",
    "merge parts=64 b=2 sq=1 h=8 d=128 dtype=f32 out=bf16 lse=1",
    "merge parts=1000 b=1 sq=2 h=1 d=80 dtype=f16 lse=1",
    "merge parts=7 b=2 sq=33 h=4 d=40 dtype=f16 out=bf16 layout=bhsd into=1",
    "merge parts=3 b=2 sq=17 h=3 d=24 stride=3,2 layout=bhsd lse=1",
    NULL,
};

static uint64_t bit_of(heed_dtype_t dtype)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].bit;
    return 0;
}

static uint64_t needs(const void *at)
{
    const heed_merge_desc_t *desc = at;
    const heed_tensor_t *parts = &desc->part_out, *out = &desc->out;
    bool strided = (parts->shape[4] > 1 && parts->strides[4] != 1) ||
                   (out->shape[3] > 1 && out->strides[3] != 1);
    return bit_of(parts->dtype) | bit_of(out->dtype) | (desc->lse.ndim ? HEED_MERGE_CAN_LSE : 0) |
           (desc->into ? HEED_MERGE_CAN_INTO : 0) | (strided ? HEED_MERGE_CAN_STRIDED_DIM : 0);
}

/* ---- states ---------------------------------------------------------------------------------- */

/* Sizes of a problem, and number of state p (P: the one in the output), row (b, i, h) in its
 * arrays.
 */
typedef struct sizes {
    int64_t parts, b, sq, h, d, rows;
} sizes_t;

static sizes_t sizes_of(const heed_merge_desc_t *desc)
{
    const int64_t *shape = desc->part_out.shape;
    return (sizes_t){.parts = shape[0],
                     .b = shape[1],
                     .sq = shape[2],
                     .h = shape[3],
                     .d = shape[4],
                     .rows = shape[1] * shape[2] * shape[3]};
}

/* Row number r counts b, i, h; that of its lse b, h, i. */
static int64_t lse_row(const sizes_t *n, int64_t r)
{
    int64_t h = r % n->h, i = r / n->h % n->sq, b = r / n->h / n->sq;
    return (b * n->h + h) * n->sq + i;
}

enum { ALL_EMPTY, ONE_STATE, FAR, NOT_A_NUMBER, EQUAL, KINDS };

/* kind: of the row; the same for all its states. */
static double draw_lse(kit_random_t *random, kit_values_t values, int kind)
{
    static const double far[] = {-1e30, -1e4, -100, 0, 100, 1e4, 1e30, -3e38, 3e38};
    bool rare = kit_random_next(random) % 4 == 0;
    if (values == KIT_VALUES_PLAIN || kind >= KINDS)
        return kit_random_next(random) % 8 ? 3 * kit_random_normal(random) : -INFINITY;
    return kind == ALL_EMPTY      ? -INFINITY
           : kind == ONE_STATE    ? (rare ? 5 * kit_random_normal(random) : -INFINITY)
           : kind == FAR          ? far[kit_random_int(random, 0, 8)]
           : kind == NOT_A_NUMBER ? (rare ? NAN : rare + kit_random_normal(random))
                                  : 12.5;
}

static void fill_state(kit_random_t *random, const sizes_t *n, kit_values_t values,
                       const int *kinds, double *out, double *lse)
{
    double scale = values == KIT_VALUES_PLAIN ? 1 : ldexp(1, (int)kit_random_int(random, -20, 12));
    for (int64_t r = 0; r < n->rows; r++) {
        double at = draw_lse(random, values, kinds[r]);
        lse[lse_row(n, r)] = at;
        for (int64_t c = 0; c < n->d; c++)
            out[r * n->d + c] = at == -INFINITY ? NAN : scale * kit_random_normal(random);
    }
}

/* Every state at once: the one in the output is number `parts`. */
static void fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                 const kit_buffers_t *buffers)
{
    void *at;
    if (heed_problem_desc(problem, &at) != HEED_OK)
        return;
    const heed_merge_desc_t *desc = at;
    sizes_t n = sizes_of(desc);
    int64_t each = n.rows * n.d, states = n.parts + 1;
    double *out = calloc((size_t)(states * each) + 1, sizeof(*out));
    double *lse = calloc((size_t)(states * n.rows) + 1, sizeof(*lse));
    int *kinds = calloc((size_t)n.rows + 1, sizeof(*kinds));
    if (out && lse && kinds) {
        for (int64_t r = 0; r < n.rows; r++)
            kinds[r] = (int)kit_random_int(random, 0, 2 * KINDS);
        for (int64_t p = 0; p < states; p++)
            fill_state(random, &n, values, kinds, out + p * each, lse + p * n.rows);
        kit_scatter(&desc->part_out, buffers->data[HEED_MERGE_PART_OUT], out);
        kit_scatter(&desc->part_lse, buffers->data[HEED_MERGE_PART_LSE], lse);
        if (desc->into) {
            kit_scatter(&desc->out, buffers->data[HEED_MERGE_OUT], out + n.parts * each);
            kit_scatter(&desc->lse, buffers->data[HEED_MERGE_LSE], lse + n.parts * n.rows);
            kit_buffers_keep(buffers);
        }
    }
    free(out);
    free(lse);
    free(kinds);
}

/* ---- judging --------------------------------------------------------------------------------- */

/* Arrays of a problem after a run; old_ ones only where the output held a state. */
typedef struct run {
    const heed_merge_desc_t *desc;
    sizes_t n;
    double *part_out, *part_lse, *out, *lse, *old_out, *old_lse;
    double *want, *size; /* [D]: the row, and the largest |part_out| of each column */
} run_t;

/* exp(top) sum, of the states that were taken. Apart, for a log of both may be too large to hold
 * what a further state adds. */
typedef struct taken {
    double top, sum;
} taken_t;

/* Takes one more state into run->want. */
static void take(const run_t *run, taken_t *taken, const double *row, double lse)
{
    if (lse == -INFINITY)
        return;
    if (!(lse <= taken->top)) {
        taken->sum *= exp(taken->top - lse);
        taken->top = lse;
    }
    double weight = exp(lse - taken->top), before = taken->sum;
    taken->sum += weight;
    for (int64_t c = 0; c < run->n.d; c++) {
        double share = weight / taken->sum * (row[c] - run->want[c]);
        run->want[c] = before == 0 ? row[c] : run->want[c] + share;
        if (isnan(taken->sum))
            run->want[c] = NAN;
        run->size[c] = fmax(run->size[c], fabs(row[c]));
    }
}

/* run->want of row r. Returns its lse. */
static double merge_here(const run_t *run, int64_t r)
{
    const sizes_t *n = &run->n;
    taken_t taken = {-INFINITY, 0};
    memset(run->want, 0, (size_t)n->d * sizeof(double));
    memset(run->size, 0, (size_t)n->d * sizeof(double));
    for (int64_t p = 0; p < n->parts; p++)
        take(run, &taken, run->part_out + (p * n->rows + r) * n->d,
             run->part_lse[p * n->rows + lse_row(n, r)]);
    if (run->old_out)
        take(run, &taken, run->old_out + r * n->d, run->old_lse[lse_row(n, r)]);
    return taken.sum == 0 ? -INFINITY : taken.top + log(taken.sum);
}

static void judge_number(kit_verdict_t *verdict, const char *what, const int64_t *at, double got,
                         double want, double bound)
{
    double error = fabs(got - want), ratio = error / bound;
    if (got == want || (isnan(got) && isnan(want)))
        error = ratio = 0;
    if (!(ratio <= 1) && !verdict->sentence[0])
        snprintf(verdict->sentence, sizeof(verdict->sentence),
                 "%s of row b=%lld i=%lld h=%lld, c=%lld: %.9g, should be %.9g +- %.3g", what,
                 (long long)at[0], (long long)at[1], (long long)at[2], (long long)at[3], got, want,
                 bound);
    verdict->max_err = fmax(verdict->max_err, isnan(error) ? INFINITY : error);
    verdict->worst_ratio = fmax(verdict->worst_ratio, isnan(ratio) ? INFINITY : ratio);
}

static void judge_rows(const run_t *run, const char *names[2], kit_verdict_t *verdict)
{
    const sizes_t *n = &run->n;
    heed_dtype_t dtype = run->desc->out.dtype;
    double unit = kit_unit_roundoff(dtype), least = dtype == HEED_F16 ? 0x1p-25 : 0x1p-126;
    double sums = (double)(n->parts + 4) * U;
    for (int64_t r = 0; r < n->rows; r++) {
        int64_t at[] = {r / n->h / n->sq, r / n->h % n->sq, r % n->h, 0};
        double lse = merge_here(run, r);
        for (; at[3] < n->d; at[3]++) {
            double want = run->want[at[3]], error = sums * run->size[at[3]];
            judge_number(verdict, names[0], at, run->out[r * n->d + at[3]], want,
                         error + 1.01 * unit * (fabs(want) + error) + least);
        }
        if (run->lse)
            judge_number(verdict, names[1], at, run->lse[lse_row(n, r)], lse,
                         2 * U * fabs(lse) + 0x1p-126);
    }
}

static double *gather(heed_problem_t *problem, int index, void *const *data)
{
    const heed_tensor_t *tensor = heed_problem_tensor(problem, index);
    return tensor && tensor->ndim ? kit_gather(tensor, data[index]) : NULL;
}

static void judge_side(heed_problem_t *problem, const kit_buffers_t *buffers, const char *names[2],
                       kit_verdict_t *verdict)
{
    void *at;
    if (heed_problem_desc(problem, &at) != HEED_OK)
        return;
    run_t run = {.desc = at,
                 .n = sizes_of(at),
                 .part_out = gather(problem, HEED_MERGE_PART_OUT, buffers->data),
                 .part_lse = gather(problem, HEED_MERGE_PART_LSE, buffers->data),
                 .out = gather(problem, HEED_MERGE_OUT, buffers->data),
                 .lse = gather(problem, HEED_MERGE_LSE, buffers->data)};
    if (run.desc->into) {
        run.old_out = gather(problem, HEED_MERGE_OUT, buffers->before);
        run.old_lse = gather(problem, HEED_MERGE_LSE, buffers->before);
    }
    run.want = calloc((size_t)run.n.d + 1, sizeof(double));
    run.size = calloc((size_t)run.n.d + 1, sizeof(double));
    bool states = run.part_out && run.part_lse && (!run.desc->into || (run.old_out && run.old_lse));
    if (states && run.out && run.want && run.size && (run.lse || !run.desc->lse.ndim)) {
        judge_rows(&run, names, verdict);
    } else {
        verdict->worst_ratio = INFINITY;
        snprintf(verdict->sentence, sizeof(verdict->sentence), "no memory to judge the outputs");
    }
    double *arrays[] = {run.part_out, run.part_lse, run.out,  run.lse,
                        run.old_out,  run.old_lse,  run.want, run.size};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        free(arrays[i]);
}

static void judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                  heed_problem_t *reference_problem, const kit_buffers_t *reference,
                  kit_verdict_t *verdict)
{
    const char *names[] = {"out", "lse"},
               *reference_names[] = {"reference's out", "reference's lse"};
    (void)features;
    *verdict = (kit_verdict_t){0};
    judge_side(problem, buffers, names, verdict);
    judge_side(reference_problem, reference, reference_names, verdict);
}

const kit_op_t kit_op_merge = {.op = "merge",
                               .draw = draw_problem,
                               .fill = fill,
                               .corners = corners,
                               .needs = needs,
                               .reference_words = "out=f32",
                               .judge = judge};
