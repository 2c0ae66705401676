/* What a decoding call needs, worked out once for workspace() and once for run(): how the keys are
 * split, which rows are staged, bytes of every buffer. */
#ifndef HD_DECODE_SIZES_H
#define HD_DECODE_SIZES_H

#include "decode_tile.h"

enum {
    DECODE_QUERIES = 16,                 /* of a head, at most */
    DECODE_LEAST_SPLIT = 512,            /* keys of a split that was not asked for */
    DECODE_SERIAL_BYTES = 128 * 1024,    /* less is read by one thread before a team has started */
    DECODE_FULL_USE = 92                 /* percent of a team's time that splitting is for */
};

typedef struct decode_sizes {
    int64_t units;          /* batch entries times key heads */
    int64_t low, high;      /* keys that any query sees */
    int rows;               /* queries of a unit: all of a group */
    int64_t split_keys, first_split, splits; /* split s: keys s * split_keys and up */
    int d, dv;              /* rounded up to whole loads */
    bool stage_k, stage_v;  /* rows cannot be read where they lie */
    size_t state, q, weights, parts, k_stage, v_stage, row; /* bytes */
    size_t member;          /* of a thread's buffers */
    size_t states;          /* of all partial states */
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
    return (int64_t)hd_round_up((size_t)hd_ceil_div(keys, best), DECODE_KEYS);
}

static size_t decode_padded(int64_t bytes)
{
    return hd_round_up((size_t)bytes, 64) + 64;
}

static void decode_size_buffers(const hd_attention_t *a, decode_sizes_t *z)
{
    z->d = (int)hd_round_up((size_t)a->d, DECODE_STEP);
    z->dv = (int)hd_round_up((size_t)a->dv, DECODE_STEP);
    z->stage_k = !decode_is_readable(&a->k, a->d);
    z->stage_v = !decode_is_readable(&a->v, a->dv);
    z->state = decode_padded((int64_t)z->rows * (z->dv + VEC_LANES + 1) * 4);
    z->q = decode_padded((int64_t)z->rows * z->d * 4);
    z->weights = decode_padded((int64_t)z->rows * DECODE_KEYS * 4);
    z->parts = decode_padded(8 * DECODE_KEYS * VEC_LANES * 4);
    z->k_stage = z->stage_k ? decode_padded((int64_t)DECODE_KEYS * z->d * 4) : 0;
    z->v_stage = z->stage_v ? decode_padded((int64_t)DECODE_KEYS * z->dv * 4) : 0;
    z->row = decode_padded((hd_max(z->d, z->dv) + z->dv) * 4);
    z->member = z->state + z->q + 2 * z->weights + z->parts + z->k_stage + z->v_stage + z->row;
}

static decode_sizes_t decode_sizes(const hd_attention_t *a, int threads)
{
    decode_sizes_t z = {.units = a->batch * a->key_heads, .threads = threads};
    z.rows = (int)(a->queries * a->group);
    if (a->queries > 0) {
        z.low = hd_first_key(&a->visible, 0);
        z.high = hd_max(hd_end_key(&a->visible, a->queries - 1), z.low);
    }
    int64_t keys = z.high - z.low;
    double bytes = (double)z.units * (double)keys * (a->d + a->dv) *
                   (double)hd_dtype_bytes(a->k.dtype);
    if (bytes < DECODE_SERIAL_BYTES)
        z.threads = 1;
    z.split_keys = decode_split(hd_max(z.units, 1), hd_max(keys, 1), z.threads);
    z.first_split = z.low / z.split_keys;
    z.splits = hd_max(hd_ceil_div(z.high, z.split_keys) - z.first_split, 1);
    z.threads = (int)hd_max(hd_min(z.threads, z.units * z.splits), 1);
    decode_size_buffers(a, &z);
    z.states = z.splits > 1 ? z.state * (size_t)(z.units * z.splits) : 0;
    return z;
}

#endif
