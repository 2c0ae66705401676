#include "dilated_steps.h"

#include <string.h>

hd_dilated_part_t hd_dilated_whole(const heed_dilated_desc_t *desc, const hd_state_t *state)
{
    int64_t tokens = desc->q.shape[1];
    return (hd_dilated_part_t){.desc = desc,
                               .q = desc->q,
                               .k = desc->k,
                               .v = desc->v,
                               .state = state,
                               .query_end = tokens,
                               .key_end = tokens};
}

/* ---- pieces ---------------------------------------------------------------------------------- */

heed_status_t hd_dilated_pieces(const heed_dilated_desc_t *desc, int branch, hd_piece_fn_t *each,
                                void *arg)
{
    int64_t rate = desc->rates[branch], heads = desc->k.shape[2], first, end;
    hd_piece_t piece = {.branch = branch, .rate = rate, .step = 1};
    piece.segment = piece.pitch = hd_dilated_segment(desc, branch);
    if (desc->mode == HEED_DILATED_TORCHSCALE)
        piece.pitch = hd_ceil_div(piece.segment, rate) * rate;
    if (!hd_dilated_mixes(desc)) {
        hd_dilated_group(desc, branch, &first, &end);
        piece.offset = branch % rate;
        piece.first = first;
        piece.count = end - first;
        return each(arg, &piece);
    }
    int64_t run = hd_ceil_div(heads, rate); /* torchscale: so many neighbours share an offset */
    bool paper = desc->offset_rule == HEED_OFFSET_PAPER;
    for (piece.offset = 0; piece.offset < hd_min(rate, heads); piece.offset++) {
        piece.first = paper ? piece.offset : piece.offset * run;
        piece.step = paper ? rate : 1;
        piece.count =
            paper ? hd_lattice_count(heads, rate, piece.offset) : hd_min(run, heads - piece.first);
        if (piece.count > 0)
            HD_TRY(each(arg, &piece));
    }
    return HEED_OK;
}

/* ---- views ----------------------------------------------------------------------------------- */

/* Key heads that a single stride reaches, of one batch entry. */
typedef struct heads {
    int64_t batch, first, count, step;
} heads_t;

/* Some lattice rows in each of some segments, which begin `pitch` rows apart; the first is `row`
 * of the tensor. */
typedef struct rows {
    int64_t row, count, segments, pitch;
} rows_t;

static void set_view(const heed_tensor_t *from, const heads_t *heads, const hd_piece_t *piece,
                     int64_t group, const rows_t *rows, int operand, hd_step_t *step)
{
    const int64_t *strides = from->strides;
    hd_axes_t *axes = &step->axes[operand];
    memcpy(axes->shape,
           (int64_t[]){rows->segments, rows->count, heads->count * group, from->shape[3]},
           4 * sizeof(int64_t));
    memcpy(axes->strides,
           (int64_t[]){rows->pitch * strides[1], piece->rate * strides[1], heads->step * strides[2],
                       strides[3]},
           4 * sizeof(int64_t));
    *hd_step_tensor(step, operand) = heed_tensor(NULL, from->dtype, 4, axes->shape, axes->strides);
    step->at[operand] =
        heads->batch * strides[0] + rows->row * strides[1] + heads->first * group * strides[2];
    step->at[operand] *= (int64_t)heed_dtype_size(from->dtype);
}

static void set_lse(const heed_tensor_t *from, const heads_t *heads, const hd_piece_t *piece,
                    int64_t group, const rows_t *rows, hd_step_t *step)
{
    const int64_t *strides = from->strides;
    hd_axes_t *axes = &step->axes[HEED_ATTENTION_LSE];
    memcpy(axes->shape, (int64_t[]){rows->segments, heads->count * group, rows->count},
           3 * sizeof(int64_t));
    memcpy(
        axes->strides,
        (int64_t[]){rows->pitch * strides[2], heads->step * strides[1], piece->rate * strides[2]},
        3 * sizeof(int64_t));
    step->desc.lse = heed_tensor(NULL, HEED_F32, 3, axes->shape, axes->strides);
    step->at[HEED_ATTENTION_LSE] = 4 * (heads->batch * strides[0] +
                                        heads->first * group * strides[1] + rows->row * strides[2]);
}

static void set_views(const hd_dilated_part_t *part, const hd_piece_t *piece, const heads_t *heads,
                      const rows_t *queries, const rows_t *keys, hd_step_t *step)
{
    int64_t group = part->desc->q.shape[2] / part->desc->k.shape[2];
    step->desc.scale = part->desc->scale;
    set_view(&part->q, heads, piece, group, queries, HEED_ATTENTION_Q, step);
    set_view(&part->k, heads, piece, 1, keys, HEED_ATTENTION_K, step);
    set_view(&part->v, heads, piece, 1, keys, HEED_ATTENTION_V, step);
    rows_t results = *queries;
    results.row +=
        (queries->row + part->query_base) / piece->segment * (piece->pitch - piece->segment);
    results.pitch = piece->pitch;
    set_view(&part->state->out, heads, piece, group, &results, HEED_ATTENTION_OUT, step);
    set_lse(&part->state->lse, heads, piece, group, &results, step);
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Where a step's rows are: lattice rows of one segment, or of several whole ones. */
typedef struct place {
    rows_t queries, keys;
    int64_t low, high; /* query row i sees the key rows i + low .. i + high, where not square */
    bool square, merge;
    const heed_tile_list_t *tiles;
} place_t;

static heed_status_t add_step(heed_context_t *context, hd_steps_t *steps,
                              const hd_dilated_part_t *part, const hd_piece_t *piece,
                              const heads_t *heads, const place_t *place)
{
    if (!place->square) {
        hd_step_t cut = {.desc = heed_attention_desc()};
        set_views(part, piece, heads, &place->queries, &place->keys, &cut);
        return hd_steps_band(context, steps, &cut, place->low, place->high);
    }
    hd_step_t *step = hd_steps_new(context, steps);
    if (!step)
        return HEED_ERROR_OUT_OF_MEMORY;
    step->desc.causal = part->desc->causal;
    step->desc.merge = place->merge;
    step->desc.tiles = place->tiles;
    set_views(part, piece, heads, &place->queries, &place->keys, step);
    return hd_steps_plan(context, steps);
}

/* For all heads of the piece in all batch entries. Query heads of several key heads follow one
 * stride only where each key head has one, or where key heads are neighbours. */
static heed_status_t add_place(heed_context_t *context, hd_steps_t *steps,
                               const hd_dilated_part_t *part, const hd_piece_t *piece,
                               const place_t *place)
{
    const heed_dilated_desc_t *desc = part->desc;
    bool apart = desc->q.shape[2] != desc->k.shape[2] && piece->step > 1;
    if (place->queries.count <= 0 || place->keys.count <= 0 || place->queries.segments <= 0 ||
        piece->count <= 0)
        return HEED_OK;
    for (int64_t b = 0; b < desc->q.shape[0]; b++) {
        for (int64_t n = 0; n < (apart ? piece->count : 1); n++) {
            heads_t heads = {b, piece->first, piece->count, piece->step};
            if (apart)
                heads = (heads_t){b, piece->first + n * piece->step, 1, 1};
            HD_TRY(add_step(context, steps, part, piece, &heads, place));
        }
    }
    return HEED_OK;
}

heed_status_t hd_dilated_square(heed_context_t *context, hd_steps_t *steps,
                                const hd_dilated_part_t *part, const hd_piece_t *piece,
                                const heed_tile_list_t *tiles, int64_t first, int64_t segments,
                                int64_t tokens, bool merge)
{
    int64_t count = hd_lattice_count(tokens, piece->rate, piece->offset);
    int64_t token = first + piece->offset;
    place_t place = {.queries = {token - part->query_base, count, segments, piece->segment},
                     .keys = {token - part->key_base, count, segments, piece->segment},
                     .square = true,
                     .merge = merge,
                     .tiles = tiles};
    return add_place(context, steps, part, piece, &place);
}

/* Lattice rows before token `end` of the segment that begins at `start`, at most all. */
static int64_t rows_before(const hd_piece_t *piece, int64_t start, int64_t end)
{
    int64_t inside = hd_min(hd_max(end - start, 0), piece->segment);
    return hd_lattice_count(inside, piece->rate, piece->offset);
}

/* The part's queries over its keys in one segment. */
static heed_status_t add_segment(heed_context_t *context, hd_steps_t *steps,
                                 const hd_dilated_part_t *part, const hd_piece_t *piece,
                                 int64_t segment, bool merge)
{
    int64_t start = segment * piece->segment;
    int64_t query = rows_before(piece, start, part->query_first);
    int64_t key = rows_before(piece, start, part->key_first);
    place_t place = {.merge = merge};
    place.queries.count = rows_before(piece, start, part->query_end) - query;
    place.keys.count = rows_before(piece, start, part->key_end) - key;
    place.queries.segments = place.keys.segments = 1;
    place.queries.pitch = place.keys.pitch = piece->segment;
    start += piece->offset;
    place.queries.row = start + query * piece->rate - part->query_base;
    place.keys.row = start + key * piece->rate - part->key_base;
    place.square = query == key && place.queries.count == place.keys.count;
    place.low = -place.queries.count;
    place.high = part->desc->causal ? query - key : place.keys.count;
    return add_place(context, steps, part, piece, &place);
}

/* Whole segments of the part together, the others one by one. */
typedef struct adding {
    heed_context_t *context;
    hd_steps_t *steps;
    const hd_dilated_part_t *part;
    bool merge;
} adding_t;

static heed_status_t add_piece(void *arg, const hd_piece_t *piece)
{
    const adding_t *to = arg;
    const hd_dilated_part_t *part = to->part;
    int64_t w = piece->segment, first = hd_max(part->query_first, part->key_first) / w;
    int64_t end = hd_ceil_div(hd_min(part->query_end, part->key_end), w), whole = first;
    if (part->query_first != part->key_first) { /* one of them may end where the other begins */
        first = hd_max(part->query_first / w, part->key_first / w);
        end = hd_min(hd_ceil_div(part->query_end, w), hd_ceil_div(part->key_end, w));
        whole = first;
    } else if (part->query_end == part->key_end) {
        int64_t from = hd_ceil_div(part->query_first, w);
        whole = hd_max(part->query_end / w, from);
        for (int64_t s = first; s < hd_min(from, end); s++)
            HD_TRY(add_segment(to->context, to->steps, part, piece, s, to->merge));
        HD_TRY(hd_dilated_square(to->context, to->steps, part, piece, NULL, from * w, whole - from,
                                 w, to->merge));
    }
    for (int64_t s = whole; s < end; s++)
        HD_TRY(add_segment(to->context, to->steps, part, piece, s, to->merge));
    return HEED_OK;
}

heed_status_t hd_dilated_branch(heed_context_t *context, hd_steps_t *steps,
                                const hd_dilated_part_t *part, int branch, bool merge)
{
    adding_t to = {context, steps, part, merge};
    return hd_dilated_pieces(part->desc, branch, add_piece, &to);
}
