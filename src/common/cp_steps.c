/* Steps of attention over ranks, and the moving of rows between tensors and messages. */
#include "context_parallel.h"
#include "loop.h"
#include "view.h"

#include <string.h>

/* ---- steps ----------------------------------------------------------------------------------- */

/* Rows of a run within a side's tensors. */
static hd_rows_t rows_of(const hd_side_t *side, int number)
{
    const heed_ring_run_t *run = &side->tokens->runs[number];
    if (side->whole)
        return (hd_rows_t){0, run->count, run->first - side->tokens->offset, run->distance, 1};
    return (hd_rows_t){0, run->count, hd_tokens_first(side->tokens, number), 1, 1};
}

typedef struct pair {
    const hd_side_t *queries, *results, *keys;
    heed_ring_run_t q_run, k_run;
    hd_rows_t q_rows, out_rows, k_rows;
} pair_t;

static heed_status_t add_pair(hd_cp_t *cp, const pair_t *pair)
{
    hd_step_t part = {.desc = heed_attention_desc()};
    const heed_tensor_t *tensors[HD_STEP_OPERANDS] = {&pair->queries->first, &pair->keys->first,
                                                      &pair->keys->second, &pair->results->first,
                                                      &pair->results->second};
    const int64_t at[HD_STEP_OPERANDS] = {pair->queries->at[0], pair->keys->at[0],
                                          pair->keys->at[1], pair->results->at[0],
                                          pair->results->at[1]};
    const hd_rows_t *rows[HD_STEP_OPERANDS] = {&pair->q_rows, &pair->k_rows, &pair->k_rows,
                                               &pair->out_rows, &pair->out_rows};
    int64_t low, high;
    part.desc.scale = cp->desc.scale;
    memcpy(part.at, at, sizeof(at));
    for (int n = 0; n < HD_STEP_OPERANDS; n++)
        hd_step_rows(&part, n, tensors[n], n == HEED_ATTENTION_LSE ? 2 : 1, rows[n]->first,
                     rows[n]->distance, rows[n]->count);
    hd_cp_band(&cp->desc, &pair->q_run, &pair->k_run, &low, &high);
    return hd_steps_band(cp->context, &cp->steps, &part, low, high);
}

/* Every distance-th one from number `first` on. */
static void thin(heed_ring_run_t *run, hd_rows_t *rows, int64_t first, int64_t distance)
{
    int64_t count = hd_max(0, hd_ceil_div(rows->count - first, distance));
    if (run)
        *run =
            (heed_ring_run_t){run->first + first * run->distance, run->distance * distance, count};
    rows->first += first * rows->distance;
    rows->distance *= distance;
    rows->count = count;
}

/* Queries that lie closer than the keys are taken in turns, so that each turn sees a band. */
static heed_status_t add_turns(hd_cp_t *cp, const pair_t *pair)
{
    int64_t turns = pair->k_run.distance / pair->q_run.distance;
    if (!cp->desc.causal && cp->desc.window_left < 0 && cp->desc.window_right < 0)
        turns = 1;
    for (int64_t i = 0; i < hd_min(turns, pair->q_run.count); i++) {
        pair_t turn = *pair;
        thin(&turn.q_run, &turn.q_rows, i, turns);
        thin(NULL, &turn.out_rows, i, turns);
        HD_TRY(add_pair(cp, &turn));
    }
    return HEED_OK;
}

static void cut(hd_rows_t *rows, int64_t before, int64_t count)
{
    rows->first += before * rows->distance;
    rows->count = count;
}

/* Of every document that both runs have tokens of. */
static heed_status_t add_documents(hd_cp_t *cp, const pair_t *pair)
{
    const hd_documents_t *documents = &cp->documents;
    hd_shared_t shared;
    for (int64_t d = hd_documents_find(documents, &pair->q_run, &pair->k_run);
         hd_documents_share(documents, d, &pair->q_run, &pair->k_run, &shared); d++) {
        pair_t part = *pair;
        if (shared.queries.count == 0 || shared.keys.count == 0)
            continue;
        part.q_run = shared.queries;
        part.k_run = shared.keys;
        cut(&part.q_rows, shared.query_row, shared.queries.count);
        cut(&part.out_rows, shared.query_row, shared.queries.count);
        cut(&part.k_rows, shared.key_row, shared.keys.count);
        HD_TRY(add_turns(cp, &part));
    }
    return HEED_OK;
}

heed_status_t hd_cp_add(hd_cp_t *cp, const hd_side_t *queries, const hd_side_t *results,
                        const hd_side_t *keys)
{
    for (int a = 0; a < queries->tokens->count; a++)
        for (int b = 0; b < keys->tokens->count; b++) {
            pair_t pair = {.queries = queries,
                           .results = results,
                           .keys = keys,
                           .q_run = queries->tokens->runs[a],
                           .k_run = keys->tokens->runs[b],
                           .q_rows = rows_of(queries, a),
                           .out_rows = rows_of(results, a),
                           .k_rows = rows_of(keys, b)};
            HD_TRY(add_documents(cp, &pair));
        }
    return HEED_OK;
}

heed_status_t hd_cp_phases(hd_cp_t *cp, int64_t count)
{
    cp->phase_end = hd_alloc(cp->context, (size_t)count * sizeof(int64_t));
    if (!cp->phase_end)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %lld phases", (long long)count);
    return HEED_OK;
}

heed_status_t hd_cp_run_phase(hd_cp_t *cp, int64_t phase)
{
    return hd_steps_run(&cp->steps, phase ? cp->phase_end[phase - 1] : 0, cp->phase_end[phase],
                        cp->buffers, cp->memory + cp->workspace_at);
}

/* ---- tensors --------------------------------------------------------------------------------- */

heed_tensor_t hd_cp_heads(const heed_tensor_t *from, int axis, int64_t first, int64_t count,
                          hd_axes_t *axes, int64_t *at)
{
    memcpy(axes->shape, from->shape, (size_t)from->ndim * sizeof(int64_t));
    memcpy(axes->strides, from->strides, (size_t)from->ndim * sizeof(int64_t));
    axes->shape[axis] = count;
    *at += first * from->strides[axis] * (int64_t)heed_dtype_size(from->dtype);
    return heed_tensor(NULL, from->dtype, from->ndim, axes->shape, axes->strides);
}

heed_tensor_t hd_cp_dense(const heed_tensor_t *like, int64_t rows, int64_t heads, hd_axes_t *axes)
{
    memcpy(axes->shape, (int64_t[]){like->shape[0], rows, heads, like->shape[3]},
           4 * sizeof(int64_t));
    hd_dense_strides(4, axes->shape, axes->strides);
    return heed_tensor(NULL, like->dtype, 4, axes->shape, axes->strides);
}

size_t hd_cp_bytes(const heed_tensor_t *like, int64_t rows, int64_t heads)
{
    return (size_t)(like->shape[0] * rows * heads * like->shape[3]) * heed_dtype_size(like->dtype);
}

/* ---- moving ---------------------------------------------------------------------------------- */

typedef struct move {
    hd_view_t from, to;
    const hd_move_t *source, *target;
    int64_t count, heads, dim;
} move_t;

static void move_row(const move_t *move, const char *from, char *to)
{
    size_t size = (size_t)hd_dtype_bytes(move->from.dtype);
    if (move->from.elem == (int64_t)size && move->to.elem == (int64_t)size) {
        memcpy(to, from, size * (size_t)move->dim);
        return;
    }
    for (int64_t c = 0; c < move->dim; c++)
        memcpy(to + c * move->to.elem, from + c * move->from.elem, size);
}

static void move_item(void *at, int worker, int64_t item)
{
    const move_t *move = at;
    int64_t b = item / move->count, i = item % move->count;
    (void)worker;
    for (int64_t h = 0; h < move->heads; h++)
        move_row(move,
                 hd_view_row(&move->from, b, move->source->first + i * move->source->distance,
                             move->source->head + h),
                 hd_view_row(&move->to, b, move->target->first + i * move->target->distance,
                             move->target->head + h));
}

void hd_cp_move(const hd_cp_t *cp, const hd_move_t *from, const hd_move_t *to, int64_t count,
                int64_t heads)
{
    move_t move = {.from = hd_view(from->tensor, from->data),
                   .to = hd_view(to->tensor, to->data),
                   .source = from,
                   .target = to,
                   .count = count,
                   .heads = heads,
                   .dim = from->tensor->shape[3]};
    if (count > 0)
        hd_loop(cp->context->devices[0].threads, from->tensor->shape[0] * count, move_item, &move);
}

char *hd_cp_pack(const hd_cp_t *cp, const heed_tensor_t *tensor, void *data,
                 const hd_tokens_t *tokens, int64_t head, int64_t heads, char *to)
{
    hd_side_t side = {.tokens = tokens, .whole = cp->desc.whole};
    hd_axes_t axes;
    heed_tensor_t dense = hd_cp_dense(tensor, tokens->rows, heads, &axes);
    for (int i = 0; i < tokens->count; i++) {
        hd_rows_t rows = rows_of(&side, i);
        hd_move_t source = {tensor, data, rows.first, rows.distance, head};
        hd_move_t target = {&dense, to, hd_tokens_first(tokens, i), 1, 0};
        hd_cp_move(cp, &source, &target, rows.count, heads);
    }
    return to + hd_cp_bytes(tensor, tokens->rows, heads);
}

void hd_cp_unpack(const hd_cp_t *cp, const heed_tensor_t *dense, char *from,
                  const hd_tokens_t *tokens, const heed_tensor_t *tensor, void *data, int64_t head)
{
    hd_side_t side = {.tokens = tokens, .whole = cp->desc.whole};
    for (int i = 0; i < tokens->count; i++) {
        hd_rows_t rows = rows_of(&side, i);
        hd_move_t source = {dense, from, hd_tokens_first(tokens, i), 1, 0};
        hd_move_t target = {tensor, data, rows.first, rows.distance, head};
        hd_cp_move(cp, &source, &target, rows.count, dense->shape[2]);
    }
}

/* ---- memory and the state -------------------------------------------------------------------- */

size_t hd_cp_reserve(hd_cp_t *cp, size_t bytes)
{
    size_t at = cp->bytes;
    cp->bytes += hd_round_up(bytes, 64);
    return at;
}

heed_status_t hd_cp_allocate(hd_cp_t *cp)
{
    cp->workspace_at = hd_cp_reserve(cp, cp->steps.workspace);
    cp->memory = hd_alloc_aligned(cp->context, cp->bytes + 1, 64);
    if (!cp->memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %zu bytes of attention over ranks",
                       cp->bytes);
    return HEED_OK;
}

void hd_cp_begin(hd_cp_t *cp)
{
    int threads = cp->context->devices[0].threads;
    char **out = &cp->buffers[HEED_ATTENTION_OUT], **lse = &cp->buffers[HEED_ATTENTION_LSE];
    hd_state_buffers(&cp->state, hd_tensor_data(&cp->desc.out), hd_tensor_data(&cp->desc.lse),
                     cp->memory + cp->state_at, out, lse);
    hd_state_clear(&cp->state, *out, *lse, threads);
}

void hd_cp_end(hd_cp_t *cp)
{
    hd_side_t side = {.tokens = &cp->queries, .whole = cp->desc.whole};
    for (int i = 0; i < cp->queries.count; i++) {
        hd_rows_t rows = rows_of(&side, i);
        rows.from = hd_tokens_first(&cp->queries, i);
        hd_state_store(&cp->state, cp->buffers, &rows, &cp->out, hd_tensor_data(&cp->desc.out),
                       &cp->lse, hd_tensor_data(&cp->desc.lse), cp->context->devices[0].threads);
    }
}
