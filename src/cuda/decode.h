/* Decoding on CUDA, what the kernels of every card share on the host: which problems they take, how
 * rows are packed, how keys are split, what it may cost.
 *
 * Few queries read many keys: bandwidth is all. The queries of a key head are packed, row r being
 * query r / group of its head r % group, so that one pass over K and V serves them all. Where batch
 * and key heads do not fill the card, the keys are split into parts of a fixed number of tokens, a
 * block each, whose states (f32 out, log2 of the sum) lie in the workspace until a second launch
 * merges them.
 *
 * The second launch rather than the last block to arrive: a counter of arrivals needs memory that
 * is zero when the launch begins, which nobody promises of a workspace, and its memset would be a
 * second entry in the stream too. A launch also merges with the whole card, in the order of the
 * splits; on Hopper it is started before the first one ends. */
#ifndef HD_DECODE_H
#define HD_DECODE_H

#include "../common/attention.h"
#include "cuda.h"

enum {
    DECODE_ROWS = 64,        /* packed, at most */
    DECODE_DIM = 256,        /* D and Dv at most */
    DECODE_MAX_SPLITS = 128, /* the merge has a thread for each */
    DECODE_MAP_BLOCKS = 2048 /* of keys in a split, where a tile list says which to visit */
};

enum {
    DECODE_FEATURES = HEED_ATTENTION_CAN_BF16 | HEED_ATTENTION_CAN_F16 |
                      HEED_ATTENTION_CAN_OUT_F32 | HEED_ATTENTION_CAN_CAUSAL |
                      HEED_ATTENTION_CAN_WINDOW | HEED_ATTENTION_CAN_GROUPED |
                      HEED_ATTENTION_CAN_LSE | HEED_ATTENTION_CAN_MERGE |
                      HEED_ATTENTION_CAN_ODD_DIM | HEED_ATTENTION_CAN_DV | HEED_ATTENTION_CAN_TILES
};

typedef struct decode_params {
    hd_attention_t a;
    int64_t units;               /* batch entries times key heads */
    int rows;                    /* packed: queries times group */
    int low, high;               /* keys that any query sees */
    int all_low, all_high;       /* keys that all queries see */
    int split_keys, splits;      /* split s takes split_keys keys from low, rounded down, on */
    float scale;                 /* of scores in log2 */
    bool fast_q, fast_k, fast_v; /* rows may be read by 4 (q) or 16 bytes */
    float *partial;              /* out of [unit][split][row], NULL: no split */
    float *partial_lse;          /* log2, after it */
    int partial_stride;          /* floats of a row, a multiple of 4 */
} decode_params_t;

/* Of a card with `slots` blocks running at once. */
static inline double decode_use(int64_t blocks, int64_t slots)
{
    return (double)blocks / (double)(hd_ceil_div(blocks, slots) * slots);
}

/* How many blocks of keys a split takes. As few splits as bring the card's use to 85 % of the best;
 * none shorter than 4 blocks, or than what makes up for writing and reading its rows' states. */
static inline int64_t decode_split_blocks(int64_t blocks, int64_t units, int rows, int64_t slots)
{
    int64_t most = hd_min(hd_min(blocks / (4 + rows / 8), DECODE_MAX_SPLITS), slots), splits = 1;
    double best = 0;
    for (int64_t i = 1; i <= most; i++)
        if (decode_use(units * i, slots) > best)
            best = decode_use(units * i, slots);
    while (splits < most && decode_use(units * splits, slots) < 0.85 * best)
        splits++;
    return hd_ceil_div(blocks, splits);
}

/* All but what depends on addresses, of data and of a tile list on a card. */
static inline decode_params_t decode_plan(const heed_attention_desc_t *desc, void *const *data,
                                          int64_t slots)
{
    decode_params_t p = {hd_attention(desc, data)};
    const hd_visibility_t *visible = &p.a.visible;
    p.units = p.a.batch * p.a.key_heads;
    p.rows = (int)(p.a.queries * p.a.group);
    p.low = (int)hd_first_key(visible, 0);
    p.high = (int)hd_max(hd_end_key(visible, p.a.queries - 1), p.low);
    p.all_low = (int)hd_first_key(visible, p.a.queries - 1);
    p.all_high = (int)hd_end_key(visible, 0);
    int64_t blocks = hd_ceil_div(p.high - p.low / HD_BLOCK_KEYS * HD_BLOCK_KEYS, HD_BLOCK_KEYS);
    blocks = p.high > p.low ? blocks : 1;
    int64_t length = decode_split_blocks(blocks, hd_max(p.units, 1), p.rows, slots);
    length = desc->tiles ? hd_min(length, DECODE_MAP_BLOCKS) : length;
    p.split_keys = (int)hd_min(length * HD_BLOCK_KEYS, INT32_MAX / HD_BLOCK_KEYS * HD_BLOCK_KEYS);
    p.splits = (int)hd_ceil_div(blocks, length);
    p.scale = p.a.scale * 1.44269504088896340736f;
    p.partial_stride = (p.a.dv + 3) / 4 * 4;
    return p;
}

static inline size_t decode_workspace(const decode_params_t *p)
{
    size_t states = (size_t)p->units * (size_t)p->splits * (size_t)p->rows;
    return p->splits > 1 ? states * ((size_t)p->partial_stride + 1) * sizeof(float) : 0;
}

static inline void decode_place(decode_params_t *p, void *workspace)
{
    if (p->splits == 1)
        return;
    p->partial = (float *)workspace;
    p->partial_lse =
        p->partial + (int64_t)p->units * p->splits * p->rows * (int64_t)p->partial_stride;
}

/* Whether all rows are whole and start at multiples of `bytes`. */
static inline bool decode_is_aligned(const hd_view_t *view, int bytes)
{
    return view->elem == 2 && (uintptr_t)view->data % (uintptr_t)bytes == 0 &&
           view->batch % bytes == 0 && view->row % bytes == 0 && view->head % bytes == 0;
}

/* The head size that a kernel is compiled for. */
static inline int decode_dim(const heed_attention_desc_t *desc)
{
    int64_t dim = hd_max(desc->q.shape[3], desc->v.shape[3]);
    return dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
}

static inline int decode_supports(const heed_attention_desc_t *desc,
                                  const heed_device_info_t *device, heed_why_t *why)
{
    const int64_t *q = desc->q.shape, *v = desc->v.shape;
    if (device->compute_major < HD_CUDA_MIN_MAJOR)
        return hd_cuda_refuse(
            why, HEED_ERROR_UNSUPPORTED, "needs compute capability %d.%d: this card has %d.%d",
            HD_CUDA_MIN_MAJOR, HD_CUDA_MIN_MINOR, device->compute_major, device->compute_minor);
    if (q[3] > DECODE_DIM || v[3] > DECODE_DIM)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "head sizes q.shape[3]=%lld, v.shape[3]=%lld: at most %d",
                              (long long)q[3], (long long)v[3], DECODE_DIM);
    int64_t group = q[2] / desc->k.shape[2];
    if (q[1] > DECODE_ROWS / group)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape[1]=%lld queries of %lld heads a key head: for few queries, "
                              "at most %d rows",
                              (long long)q[1], (long long)group, DECODE_ROWS);
    if (desc->k.shape[1] > INT32_MAX - DECODE_MAX_SPLITS * HD_BLOCK_KEYS)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED, "k.shape[1]=%lld: at most 2^31 - 8193",
                              (long long)desc->k.shape[1]);
    int64_t most = (int64_t)DECODE_MAX_SPLITS * DECODE_MAP_BLOCKS * HD_BLOCK_KEYS;
    if (desc->tiles && desc->k.shape[1] > most)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "k.shape[1]=%lld: at most %lld with a tile list",
                              (long long)desc->k.shape[1], (long long)most);
    double rows = (double)q[0] * (double)q[1] * (double)q[2];
    if (rows * DECODE_MAX_SPLITS > INT32_MAX)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape: %.0f rows of queries, at most %d", rows,
                              INT32_MAX / DECODE_MAX_SPLITS);
    return 1;
}

/* Bytes a nanosecond that a card's memory gives at best: those of the largest one of its kind. */
static inline double decode_bandwidth(const heed_device_info_t *device)
{
    switch (device->compute_major) {
    case 8:
        return device->compute_minor == 0 ? 2000 : device->compute_minor == 9 ? 900 : 800;
    case 9:
        return device->memory_bytes > 100e9 ? 4800 : 3350;
    case 10:
        return 8000;
    default:
        return 1700;
    }
}

/* Keys that a unit visits on average: those of its heads' lists, taken to have none in common. */
static inline double decode_keys(const heed_attention_desc_t *desc, const decode_params_t *p)
{
    double band = p->high - p->low;
    const heed_tile_list_t *tiles = desc->tiles;
    if (!tiles || tiles->batches * tiles->heads * tiles->rows == 0)
        return band;
    int64_t rows = tiles->batches * tiles->heads * tiles->rows;
    double entries = (double)tiles->row_start[rows] / (double)rows;
    return fmin(band, entries * tiles->tile_k * (tiles->heads > 1 ? (double)p->a.group : 1));
}

/* Launches, and what is read over a guess of the bandwidth that so many blocks reach: nothing was
 * measured. */
static inline double decode_estimate(const heed_attention_desc_t *desc,
                                     const heed_device_info_t *device, int64_t slots)
{
    decode_params_t p = decode_plan(desc, NULL, slots);
    double keys = (double)p.units * decode_keys(desc, &p);
    double bytes = 2 * keys * (p.a.d + p.a.dv) + 2 * (double)decode_workspace(&p);
    double filled = 2 * (double)p.units * p.splits / (double)slots;
    double reached = 0.85 * decode_bandwidth(device) * (filled < 1 ? filled : 1);
    return 3000 + (p.splits > 1 ? 1500 : 0) + (bytes > 0 ? bytes / reached : 0);
}

#endif
