/* Tensor parallelism: which part of a weight a rank has, and what ranks exchange. */
#include "split.h"

/* Sizes that are multiplied stay below this, so that products of two and a few of them fit. */
static const int64_t most_rows = INT64_C(1) << 40, most_heads = 1 << 20;

const char *heed_collective_name(heed_collective_t collective)
{
    static const char *const names[] = {"none", "all-reduce", "all-gather", "reduce-scatter",
                                        "all-to-all"};
    return (unsigned)collective < (unsigned)HD_COUNT(names) ? names[collective] : "?";
}

double heed_collective_bytes(heed_collective_t collective, int32_t ranks, double bytes)
{
    if (ranks < 2 || collective == HEED_COLLECTIVE_NONE)
        return 0;
    double part = bytes * (ranks - 1) / ranks;
    return collective == HEED_COLLECTIVE_ALL_REDUCE ? 2 * part : part;
}

static heed_status_t check_flag(const char *name, int32_t flag)
{
    if (flag < 0 || flag > 1)
        return hd_fail(HEED_ERROR_VALUE, "%s=%d is not 0 or 1", name, flag);
    return HEED_OK;
}

static heed_status_t check_size(const char *name, int64_t size, int64_t most)
{
    if (size < 1 || size > most)
        return hd_fail(HEED_ERROR_VALUE, "%s=%lld is not 1 to %lld", name, (long long)size,
                       (long long)most);
    return HEED_OK;
}

static heed_status_t check_rank(int32_t ranks, int32_t rank)
{
    if (ranks < 1 || rank < 0 || rank >= ranks)
        return hd_fail(HEED_ERROR_VALUE, "rank=%d is not 0 to ranks-1, ranks=%d", rank, ranks);
    return HEED_OK;
}

/* ---- one weight ------------------------------------------------------------------------------ */

void hd_linear_collectives(heed_linear_kind_t kind, int32_t ranks, int32_t sequence_parallel,
                           heed_linear_slice_t *slice)
{
    bool column = kind == HEED_LINEAR_COLUMN;
    heed_collective_t sum =
        sequence_parallel ? HEED_COLLECTIVE_REDUCE_SCATTER : HEED_COLLECTIVE_ALL_REDUCE;
    heed_collective_t spread =
        sequence_parallel ? HEED_COLLECTIVE_ALL_GATHER : HEED_COLLECTIVE_NONE;
    slice->x = slice->y = slice->dy = slice->dx = HEED_COLLECTIVE_NONE;
    if (ranks < 2)
        return;
    *(column ? &slice->x : &slice->dy) = spread;
    *(column ? &slice->dx : &slice->y) = sum;
}

heed_status_t heed_linear_slice(heed_linear_kind_t kind, int64_t out, int64_t in, int32_t ranks,
                                int32_t rank, heed_split_policy_t policy, int64_t align,
                                int32_t sequence_parallel, heed_linear_slice_t *slice)
{
    if (!slice)
        return hd_fail(HEED_ERROR_NULL, "slice is null");
    if (kind != HEED_LINEAR_COLUMN && kind != HEED_LINEAR_ROW)
        return hd_fail(HEED_ERROR_VALUE, "kind=%d is no heed_linear_kind_t", (int)kind);
    HD_TRY(check_flag("sequence_parallel", sequence_parallel));
    HD_TRY(check_size("out", out, most_rows));
    HD_TRY(check_size("in", in, most_rows));
    HD_TRY(check_rank(ranks, rank));
    bool column = kind == HEED_LINEAR_COLUMN;
    heed_range_t part;
    HD_TRY(
        hd_split_part(column ? "out" : "in", column ? out : in, ranks, policy, align, rank, &part));
    slice->out = column ? part : (heed_range_t){0, out};
    slice->in = column ? (heed_range_t){0, in} : part;
    slice->bias = slice->out;
    slice->bias_after = !column;
    hd_linear_collectives(kind, ranks, sequence_parallel, slice);
    return HEED_OK;
}

static heed_status_t check_layout(heed_fused_layout_t layout)
{
    if (layout != HEED_FUSED_CONCATENATED && layout != HEED_FUSED_INTERLEAVED)
        return hd_fail(HEED_ERROR_VALUE, "layout=%d is no heed_fused_layout_t", (int)layout);
    return HEED_OK;
}

/* ---- queries, keys and values ---------------------------------------------------------------- */

static heed_status_t check_qkv(const heed_qkv_t *qkv, int32_t ranks, int32_t rank)
{
    int64_t heads = qkv->heads, kv_heads = qkv->kv_heads;
    HD_TRY(check_size("heads", heads, most_heads));
    HD_TRY(check_size("kv_heads", kv_heads, most_heads));
    HD_TRY(check_size("dim", qkv->dim, most_heads));
    HD_TRY(check_size("dim_v", qkv->dim_v, most_heads));
    HD_TRY(check_layout(qkv->layout));
    HD_TRY(check_rank(ranks, rank));
    if (heads % kv_heads)
        return hd_fail(HEED_ERROR_VALUE, "heads=%lld is no multiple of kv_heads=%lld",
                       (long long)heads, (long long)kv_heads);
    if (qkv->policy != HEED_SPLIT_EQUAL && qkv->policy != HEED_SPLIT_BALANCED)
        return hd_fail(HEED_ERROR_VALUE, "policy=%d: heads are split EQUAL or BALANCED",
                       (int)qkv->policy);
    if (ranks > heads)
        return hd_fail(HEED_ERROR_VALUE, "ranks=%d, but there are heads=%lld", ranks,
                       (long long)heads);
    if (qkv->policy == HEED_SPLIT_EQUAL &&
        (heads % ranks || (ranks <= kv_heads ? kv_heads % ranks : ranks % kv_heads)))
        return hd_fail(HEED_ERROR_VALUE,
                       "heads=%lld, kv_heads=%lld do not divide into ranks=%d equal parts",
                       (long long)heads, (long long)kv_heads, ranks);
    return HEED_OK;
}

/* More ranks than key heads: ranks are dealt out to key heads, then query heads to the ranks. */
static void share_group(const heed_qkv_t *qkv, int32_t ranks, int32_t rank, heed_qkv_slice_t *slice)
{
    int64_t group = qkv->heads / qkv->kv_heads, head = 0;
    heed_range_t team = hd_balanced(ranks, qkv->kv_heads, 0);
    while (rank >= team.first + team.count)
        team = hd_balanced(ranks, qkv->kv_heads, ++head);
    slice->copies = (int32_t)team.count;
    slice->copy = (int32_t)(rank - team.first);
    slice->kv_heads = (heed_range_t){head, 1};
    slice->q_heads = hd_balanced(group, team.count, slice->copy);
    slice->q_heads.first += head * group;
}

static heed_range_t rows_of(int64_t before, heed_range_t heads, int64_t dim)
{
    return (heed_range_t){before + heads.first * dim, heads.count * dim};
}

/* Joins ranges that follow each other. */
static int32_t join(heed_range_t *rows, int32_t count)
{
    int32_t joined = 1;
    for (int32_t i = 1; i < count; i++) {
        heed_range_t *last = &rows[joined - 1];
        if (last->first + last->count == rows[i].first)
            last->count += rows[i].count;
        else
            rows[joined++] = rows[i];
    }
    return joined;
}

static void set_rows(const heed_qkv_t *qkv, heed_qkv_slice_t *slice)
{
    int64_t q = qkv->heads * qkv->dim, k = qkv->kv_heads * qkv->dim;
    slice->rows[0] = rows_of(0, slice->q_heads, qkv->dim);
    slice->rows[1] = rows_of(q, slice->kv_heads, qkv->dim);
    slice->rows[2] = rows_of(q + k, slice->kv_heads, qkv->dim_v);
    if (qkv->layout == HEED_FUSED_INTERLEAVED) {
        int64_t heads = qkv->heads / qkv->kv_heads, group = (heads + 1) * qkv->dim + qkv->dim_v;
        int64_t first = slice->kv_heads.first, start = first * group,
                keys = start + q / qkv->kv_heads;
        /* One group; of more, which are whole, the first range takes in the rest. */
        slice->rows[0].first = start + (slice->q_heads.first - first * heads) * qkv->dim;
        slice->rows[1] = (heed_range_t){keys, qkv->dim};
        slice->rows[2] = (heed_range_t){keys + qkv->dim, qkv->dim_v};
        if (slice->kv_heads.count > 1) {
            slice->rows[0] = (heed_range_t){start, slice->kv_heads.count * group};
            slice->row_count = 1;
            return;
        }
    }
    slice->row_count = join(slice->rows, 3);
}

heed_status_t heed_qkv_slice(const heed_qkv_t *qkv, int32_t ranks, int32_t rank,
                             heed_qkv_slice_t *slice)
{
    if (!qkv || !slice)
        return hd_fail(HEED_ERROR_NULL, "%s is null", qkv ? "slice" : "qkv");
    HD_TRY(check_qkv(qkv, ranks, rank));
    *slice = (heed_qkv_slice_t){.copies = 1};
    if (ranks <= qkv->kv_heads) {
        int64_t group = qkv->heads / qkv->kv_heads;
        slice->kv_heads = hd_balanced(qkv->kv_heads, ranks, rank);
        slice->q_heads = rows_of(0, slice->kv_heads, group);
    } else {
        share_group(qkv, ranks, rank, slice);
    }
    set_rows(qkv, slice);
    return HEED_OK;
}

/* ---- gates and vocabularies ------------------------------------------------------------------ */

heed_status_t heed_gated_slice(int64_t hidden, heed_fused_layout_t layout, int32_t ranks,
                               int32_t rank, heed_split_policy_t policy, int64_t align,
                               heed_range_t rows[2], int32_t *row_count)
{
    heed_range_t part;
    if (!rows || !row_count)
        return hd_fail(HEED_ERROR_NULL, "%s is null", rows ? "row_count" : "rows");
    HD_TRY(check_layout(layout));
    HD_TRY(check_rank(ranks, rank));
    HD_TRY(check_size("hidden", hidden, most_rows));
    HD_TRY(hd_split_part("hidden", hidden, ranks, policy, align, rank, &part));
    bool joined = layout == HEED_FUSED_INTERLEAVED;
    rows[0] = joined ? (heed_range_t){2 * part.first, 2 * part.count} : part;
    rows[1] = (heed_range_t){joined ? 0 : hidden + part.first, joined ? 0 : part.count};
    *row_count = joined ? 1 : join(rows, 2);
    return HEED_OK;
}

heed_status_t heed_vocab_slice(int64_t tokens, int64_t multiple, int32_t ranks, int32_t rank,
                               heed_vocab_slice_t *slice)
{
    if (!slice)
        return hd_fail(HEED_ERROR_NULL, "slice is null");
    HD_TRY(check_size("tokens", tokens, most_rows));
    HD_TRY(check_size("multiple", multiple, most_heads));
    HD_TRY(check_rank(ranks, rank));
    int64_t unit = multiple * ranks;
    slice->padded = hd_ceil_div(tokens, unit) * unit;
    slice->tokens = hd_balanced(slice->padded, ranks, rank);
    slice->real = hd_max(hd_min(tokens - slice->tokens.first, slice->tokens.count), 0);
    return HEED_OK;
}

/* ---- batches --------------------------------------------------------------------------------- */

heed_status_t heed_batch_slice(int64_t batch, int32_t ranks, int32_t rank,
                               heed_split_policy_t policy, int64_t microbatch,
                               heed_batch_slice_t *slice)
{
    heed_range_t part;
    if (!slice)
        return hd_fail(HEED_ERROR_NULL, "slice is null");
    HD_TRY(check_size("batch", batch, most_rows));
    HD_TRY(check_size("microbatch", microbatch, batch));
    HD_TRY(check_rank(ranks, rank));
    int64_t align = policy == HEED_SPLIT_ALIGNED ? microbatch : 1;
    HD_TRY(hd_split_part("batch", batch, ranks, policy, align, rank, &part));
    slice->samples = part;
    slice->microbatches = hd_ceil_div(part.count, microbatch);
    slice->last = part.count ? part.count - (slice->microbatches - 1) * microbatch : 0;
    slice->weight = (double)part.count / (double)batch;
    return HEED_OK;
}
