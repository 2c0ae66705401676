/* What a decoding call needs, worked out once for workspace() and once for run(): how keys are
 * split, which rows are staged, bytes of every buffer. From the descriptor alone, for lengths are
 * data. */
#ifndef HD_DECODE_SIZES_H
#define HD_DECODE_SIZES_H

#include "decode_tile.h"

enum {
    DECODE_QUERIES = 16,              /* of a unit, at most */
    DECODE_LEAST_SPLIT = 512,         /* keys of a split that was not asked for */
    DECODE_INVARIANT_SPLIT = 1024,    /* of one that neither batch nor threads may choose */
    DECODE_SERIAL_BYTES = 128 * 1024, /* are read by one thread before a team has started */
    DECODE_FULL_USE = 92,             /* percent of a team's time that splitting is for */
    DECODE_MATRIX_ROWS = 16,          /* of a tile of the matrix unit */
    DECODE_MATRIX_COLUMNS = 64        /* of V that are packed for it at once */
};

typedef struct decode_sizes {
    int queries, rows;     /* of a unit at most: queries, and those times the heads of a group */
    int64_t chunks;        /* units of a sequence's key head, at most */
    int64_t units;         /* at most */
    int64_t span;          /* keys that a unit sees, at most */
    int64_t split_keys;    /* split s is the keys from s * split_keys on */
    int64_t splits;        /* of a unit at most, where each is a task; 1: one task does them all */
    int d, dv;             /* rounded up to whole loads */
    bool stage_k, stage_v; /* rows cannot be read in place */
    bool matrix;           /* the matrix unit multiplies */
    int tile_rows;         /* rows, rounded up to whole tiles of the unit */
    size_t state, q, weights, seen, parts, k_stage, v_stage, row; /* bytes */
    size_t unit_q, unit_keys, unit_weights, unit_values; /* the same, of the unit's operands */
    size_t member;                                       /* of a thread's buffers */
    size_t states;                                       /* of all partial states */
    int threads;
} decode_sizes_t;

static bool decode_is_readable(const hd_view_t *view, int size)
{
    return hd_view_is_plain(view, view->dtype) && size % DECODE_STEP == 0;
}

/* How much of a team's time is used by so many equal tasks, in percent. */
static int64_t decode_use(int64_t tasks, int threads)
{
    return 100 * tasks / (hd_ceil_div(tasks, threads) * threads);
}

/* As few splits as leave hardly a thread without work. */
static int64_t decode_split(int64_t units, int64_t keys, int threads)
{
    int64_t most = hd_max(hd_min(keys / DECODE_LEAST_SPLIT, 8 * (int64_t)threads), 1), best = 1;
    for (int64_t splits = 1; splits <= most; splits++) {
        if (decode_use(units * splits, threads) > decode_use(units * best, threads))
            best = splits;
        if (decode_use(units * best, threads) >= DECODE_FULL_USE)
            break;
    }
    int64_t length = hd_ceil_div(keys, best);
    return best > 1 ? hd_ceil_div(length, DECODE_KEYS) * DECODE_KEYS : length;
}

static void decode_choose_split(const hd_attention_t *a, bool ragged, decode_sizes_t *z)
{
    const hd_visibility_t *visible = &a->visible;
    int64_t units = hd_max(z->units, 1), room = hd_max(a->keys, 1);
    z->span = hd_max(hd_min(room, visible->left + visible->right + z->queries), 1);
    z->split_keys = a->split_keys        ? a->split_keys
                    : a->batch_invariant ? DECODE_INVARIANT_SPLIT
                    : ragged             ? room
                                         : decode_split(units, z->span, z->threads);
    z->splits = 1;
    if (!ragged && decode_use(units, z->threads) < DECODE_FULL_USE) {
        int64_t all = hd_ceil_div(room, z->split_keys);
        z->splits = hd_min(all, hd_ceil_div(z->span, z->split_keys) + 1);
    }
}

static size_t decode_padded(int64_t bytes)
{
    return hd_round_up((size_t)bytes, 64) + 64;
}

/* The unit has bf16 alone: other types would lose bits. */
static bool decode_takes_matrix(const hd_attention_t *a, const decode_sizes_t *z)
{
    const bool k = a->k.dtype == HEED_BF16 || decode_is_wide(a->k.dtype);
    const bool v = a->v.dtype == HEED_BF16 || decode_is_wide(a->v.dtype);
    return DECODE_MATRIX && a->q.dtype == HEED_BF16 && k && v && !z->stage_k && !z->stage_v;
}

static void decode_size_operands(decode_sizes_t *z)
{
    if (!z->matrix)
        return;
    z->unit_q = decode_padded((int64_t)z->tile_rows * z->d * 2);
    z->unit_keys = decode_padded((int64_t)DECODE_KEYS * z->d * 2);
    z->unit_weights = decode_padded((int64_t)z->tile_rows * DECODE_KEYS * 2);
    z->unit_values = decode_padded(DECODE_KEYS * DECODE_MATRIX_COLUMNS * 2);
}

static void decode_size_buffers(const hd_attention_t *a, decode_sizes_t *z)
{
    z->d = (int)hd_round_up((size_t)a->d, DECODE_STEP);
    z->dv = (int)hd_round_up((size_t)a->dv, DECODE_STEP);
    z->stage_k = !decode_is_readable(&a->k, a->d);
    z->stage_v = !decode_is_readable(&a->v, a->dv);
    z->matrix = decode_takes_matrix(a, z);
    z->tile_rows = z->matrix ? (int)hd_round_up((size_t)z->rows, DECODE_MATRIX_ROWS) : z->rows;
    z->state = decode_padded((int64_t)z->tile_rows * (z->dv + VEC_LANES + 1) * 4);
    z->q = decode_padded((int64_t)z->rows * z->d * 4);
    z->weights = decode_padded((int64_t)z->rows * DECODE_KEYS * 4);
    z->seen = decode_padded((int64_t)z->rows * (int64_t)sizeof(decode_bits_t));
    z->parts = decode_padded(DECODE_MOST_QUERIES * DECODE_KEYS * VEC_LANES * 4);
    z->k_stage = z->stage_k ? decode_padded((int64_t)DECODE_KEYS * z->d * 4) : 0;
    z->v_stage = z->stage_v ? decode_padded((int64_t)DECODE_KEYS * z->dv * 4) : 0;
    z->row = decode_padded((hd_max(z->d, z->dv) + z->dv) * 4);
    decode_size_operands(z);
    z->member = z->unit_q + z->unit_keys + z->unit_weights + z->unit_values + 2 * z->state + z->q +
                2 * (z->weights + z->seen) + z->parts + z->k_stage + z->v_stage + z->row;
}

static decode_sizes_t decode_sizes(const heed_attention_desc_t *desc, int threads)
{
    const hd_attention_t a = hd_attention(desc, NULL);
    const bool ragged_q = desc->cu_seqlens_q.ndim, ragged_k = desc->cu_seqlens_k.ndim;
    decode_sizes_t z = {.threads = threads};
    z.queries = (int)hd_min(a.queries, DECODE_QUERIES);
    z.rows = (int)(z.queries * a.group);
    z.chunks = hd_ceil_div(a.queries, DECODE_QUERIES);
    z.units = a.batch * a.key_heads * z.chunks;
    double elements = (double)a.key_heads * (double)a.keys * (a.d + a.dv);
    double bytes = elements * (double)hd_dtype_bytes(a.k.dtype) * (ragged_k ? 1 : (double)a.batch);
    if (bytes < DECODE_SERIAL_BYTES)
        z.threads = 1;
    decode_choose_split(&a, ragged_q || ragged_k, &z);
    z.threads = (int)hd_max(hd_min(z.threads, z.units * z.splits), 1);
    decode_size_buffers(&a, &z);
    z.states = z.splits > 1 ? z.state * (size_t)(z.units * z.splits) : 0;
    return z;
}

#endif
