/* What a flash attention call needs, worked out once for workspace() and once for run(): cells,
 * tasks, which operands are packed, bytes of every buffer. */
#ifndef HD_FLASH_SIZES_H
#define HD_FLASH_SIZES_H

#include "flash_ahead.h"
#include "flash_modify.h"
#include "flash_rows.h"

enum { PACK_BYTES = 64 << 20, PACK_CORE_BYTES = 256 << 10, SERIAL_FLOPS = 2000000 };

/* Keys of a step at most: blocks that every query sees are taken two at a time, and the rest of a
 * sequence goes with the last of them, for each step scales and stores all of O^T. */
enum { STEP_KEYS = (FLASH_AMX ? 16 : 2) * HD_BLOCK_KEYS };

/* Tasks that walk over the keys together, at most, and the bytes of keys and values from which it
 * pays: while those of a head stay in a core's own cache, nothing is gained. */
enum { MOST_SHARE = 4, SHARE_BYTES = 256 << 10 };

/* ---- sizes: the same for workspace() and run() ----------------------------------------------- */

typedef struct flash_sizes {
    int steps;                                  /* cells of the head size */
    int fold;                                   /* heads of a group in one task */
    int64_t blocks;                             /* of queries, for each head */
    int64_t tasks;                              /* of one key head */
    int share;                                  /* tasks that walk together */
    int64_t turns;                              /* walks of one key head */
    bool pack_k, pack_v;                        /* before the tasks */
    bool tile_k, tile_v;                        /* within a task, block by block */
    int64_t k_head, v_head;                     /* bytes of a packed head */
    int64_t wave;                               /* key heads packed at a time */
    int64_t staging_row;                        /* bytes */
    size_t q, s, p, o, staging, k_tile, v_tile; /* bytes of a thread's buffers */
    size_t addend;                              /* those of a bias */
    size_t rest;                                /* those of a last few rows of K */
    size_t state;
    int threads;
} flash_sizes_t;

/* A little more than needed, so that buffers do not start in the same cache sets. */
static size_t padded(int64_t bytes)
{
    return hd_round_up((size_t)bytes, 64) + 192;
}

/* Rows of pages are not all one stride apart, and codes with a scale are no cells. */
static bool is_readable(const hd_view_t *view, const hd_view_t *scale, int size)
{
    return hd_view_is_plain(view, FLASH_PAIRS ? HEED_BF16 : HEED_F32) &&
           size % (FLASH_AMX ? 32 : CELL) == 0 && !view->page && !scale->dtype;
}

static void choose_packing(const hd_attention_t *a, flash_sizes_t *z)
{
    bool shared = z->turns > 1;
    bool read_k = is_readable(&a->k, &a->k_scale, a->d);
    bool read_v = !FLASH_PAIRS && is_readable(&a->v, &a->v_scale, a->dv);
    bool dense_k = a->k.row == packed_k_row(a), dense_v = a->v.row == packed_v_row(a);
    z->pack_k = shared && !(read_k && dense_k);
    z->pack_v = shared && !(read_v && dense_v);
    z->tile_k = !z->pack_k && !read_k;
    z->tile_v = !z->pack_v && !read_v;
    z->k_head = z->pack_k ? a->keys * packed_k_row(a) : 0;
    z->v_head =
        z->pack_v ? (int64_t)hd_round_up((size_t)a->keys, VALUE_KEYS) / CELL * packed_v_row(a) : 0;
    z->k_head = (int64_t)hd_round_up((size_t)z->k_head, 64);
    z->v_head = (int64_t)hd_round_up((size_t)z->v_head, 64);
}

/* Tasks of a key head share a walk where that leaves each thread walks enough to be shared out
 * evenly. */
static int choose_share(const hd_attention_t *a, const flash_sizes_t *z, int threads)
{
    int64_t all = a->batch * a->key_heads * z->tasks;
    int64_t bytes = a->keys * (packed_k_row(a) + packed_v_row(a) / CELL);
    int share = bytes < SHARE_BYTES ? 1 : MOST_SHARE;
    while (share > 1 && (all < (int64_t)16 * threads * share || z->tasks < share))
        share /= 2;
    return share;
}

/* Tasks of a key head whose sequences have at most so many queries. What shares a task moves the
 * last bits: with ragged batches it would depend on the batch. */
static void choose_tasks(const hd_attention_t *a, int64_t queries, flash_sizes_t *z)
{
    z->fold = 1;
    if (!a->visible.tiles && queries > 0 && !a->batch_invariant)
        z->fold = (int)hd_max(hd_min(ROWS / hd_min(queries, ROWS), a->group), 1);
    z->blocks = hd_ceil_div(queries, ROWS);
    z->tasks = hd_ceil_div(a->group, z->fold) * z->blocks;
}

/* What task number `index` of a key head has: the last queries, which a causal mask leaves the most
 * keys, come first; the same queries of its heads follow each other, for they see the same keys. */
typedef struct flash_place {
    int64_t first; /* query */
    int rows;      /* 0: the sequence has no such task */
    int64_t fold;  /* the first of its heads, counted within the group */
    int heads;
} flash_place_t;

/* The first query of block `block` of a sequence. Blocks are whole but where the last would be 16
 * queries or fewer, as 197 or 577 leave them: then all are as even as multiples of 16 allow, for
 * few vectors make slow tiles: 2 % faster for 197, 257 and 517. Those of the matrix unit are whole,
 * and tile lists count in them. */
static int64_t first_of(const hd_attention_t *a, int64_t queries, int64_t block)
{
    enum { UNIT = 16 };
    int64_t blocks = hd_ceil_div(queries, ROWS), units = hd_ceil_div(queries, UNIT);
    if (FLASH_AMX || a->visible.tiles || (units * UNIT) % ROWS != UNIT || block >= blocks)
        return block * ROWS;
    return UNIT * (units / blocks * block + hd_min(units % blocks, block));
}

static flash_place_t place_of(const hd_attention_t *a, const flash_sizes_t *z, int64_t b,
                              int64_t index)
{
    int64_t folds = z->tasks / z->blocks, fold = index % folds * z->fold;
    int64_t block = z->blocks - 1 - index / folds, queries = hd_queries(a, b);
    int64_t first = first_of(a, queries, block);
    int64_t end = hd_min(first_of(a, queries, block + 1), queries);
    return (flash_place_t){first, (int)hd_max(end - first, 0), fold,
                           (int)hd_min(z->fold, a->group - fold)};
}

/* Heads of `bytes` packed bytes that are packed at a time: what the cores' own caches keep until it
 * is read, but enough that no thread waits long for the others' last walk. */
static int64_t choose_wave(const flash_sizes_t *z, int64_t bytes)
{
    int64_t kept = PACK_CORE_BYTES * (int64_t)z->threads / bytes;
    int64_t shared = z->threads > 1 ? hd_ceil_div((int64_t)16 * z->threads, z->turns) : 1;
    return hd_max(hd_min(hd_max(kept, shared), PACK_BYTES / bytes), z->threads);
}

static flash_sizes_t flash_sizes(const hd_attention_t *a, int threads)
{
    flash_sizes_t z = {.steps = head_cells(a)};
    choose_tasks(a, a->queries, &z);
    double work =
        2.0 * (double)(a->batch * a->heads) * (double)a->queries * (double)a->keys * (a->d + a->dv);
    z.threads = work < SERIAL_FLOPS ? 1 : threads;
    z.share = choose_share(a, &z, z.threads);
    z.turns = hd_ceil_div(z.tasks, z.share);
    choose_packing(a, &z);

    int64_t heads = a->batch * a->key_heads, bytes = z.k_head + z.v_head;
    z.wave = bytes ? hd_min(choose_wave(&z, bytes), heads) : heads;
    if (z.threads > heads * z.turns)
        z.threads = (int)hd_max(heads * z.turns, 1);

    z.staging_row = (int64_t)hd_round_up((size_t)hd_max(a->d, a->dv), VEC_LANES * FLASH_PLANES) * 4;
    z.q = padded((int64_t)TILES * z.steps * LANES * 4);
    z.s = padded(STEP_KEYS * LANES * 4);
    z.p = FLASH_PAIRS ? padded(STEP_KEYS / CELL * LANES * 4) : 0;
#if FLASH_PLANES > 1
    z.p += SPLIT_WEIGHTS;
#endif
    z.o = padded((int64_t)TILES * value_columns(a) * LANES * 4);
    z.staging = padded(VEC_LANES * z.staging_row);
    z.k_tile = z.tile_k ? padded(STEP_KEYS * packed_k_row(a)) : 0;
    z.v_tile = z.tile_v ? padded(STEP_KEYS / CELL * packed_v_row(a)) : 0;
    z.addend = flash_has_bias(a) ? padded(HD_BLOCK_KEYS * ROWS * 4) : 0;
    z.rest = FLASH_AMX ? padded(VALUE_KEYS * packed_k_row(a)) : 0;
    z.state = (size_t)z.share * (z.q + z.o) + z.s + z.p + z.staging + z.k_tile + z.v_tile +
              z.addend + z.rest;
    return z;
}

#endif
