/* A unit of decoding: its queries, the blocks of keys it is at, and what it has summed up. */
#ifndef HD_DECODE_TASK_H
#define HD_DECODE_TASK_H

#include "decode_sizes.h"
#include "modify.h"

/* What rows have summed up: out and sum are relative to 2^reference. */
typedef struct decode_state {
    float *out;       /* [row][z.dv] */
    float *sum;       /* [row][VEC_LANES] */
    float *reference; /* [row], -inf before the first score */
} decode_state_t;

/* Keys of one step. */
typedef struct decode_block {
    int64_t key;
    int count;           /* 0: none */
    bool full;           /* all rows see all of its keys */
    float *weights;      /* [row][DECODE_KEYS], scores before */
    decode_bits_t *seen; /* [row] bits of the keys that it sees */
    const char *keys[DECODE_KEYS], *values[DECODE_KEYS];
} decode_block_t;

/* Operands of the matrix unit, where z.matrix. */
typedef struct decode_operands {
    uint16_t *q, *keys, *weights;
    char *values;
    float factor; /* of its products to scores */
} decode_operands_t;

typedef struct decode_task {
    const hd_attention_t *a;
    const decode_sizes_t *z;
    int64_t b, key_head, first; /* of the queries */
    int rows;                   /* row r is query first + r / group of head r % group */
    hd_visibility_t visible;    /* of sequence b */
    bool modified;
    bool k_scaled, v_scaled; /* key by key */
    float v_factor;          /* of what is summed up to what is meant */
    decode_state_t state;
    float *q, *parts, *k_stage, *v_stage, *row;
    decode_operands_t unit;
    decode_block_t blocks[2];
    const char *next_keys[DECODE_KEYS];
    heed_dtype_t k_dtype, v_dtype; /* as the tiles read them */
} decode_task_t;

static decode_state_t decode_state(const decode_sizes_t *z, char *at)
{
    decode_state_t state = {.out = (float *)(void *)at};
    state.sum = state.out + (int64_t)z->tile_rows * z->dv;
    state.reference = state.sum + (int64_t)z->tile_rows * VEC_LANES;
    return state;
}

static int64_t decode_head(const decode_task_t *task, int row)
{
    return task->key_head * task->a->group + row % task->a->group;
}

static int64_t decode_query(const decode_task_t *task, int row)
{
    return task->first + row / task->a->group;
}

/* Whether a scale is the same for all rows of a head. */
static bool decode_is_common(const hd_view_t *scale)
{
    return !scale->data || (!scale->index && scale->row == 0);
}

static float decode_common(const hd_view_t *scale, const decode_task_t *task)
{
    return decode_is_common(scale) ? hd_scale(scale, task->b, 0, task->key_head) : 1;
}

static void decode_clear(const decode_task_t *task)
{
    const decode_sizes_t *z = task->z;
    for (int r = 0; r < task->rows; r++)
        task->state.reference[r] = -INFINITY;
    memset(task->state.sum, 0, (size_t)task->rows * VEC_LANES * sizeof(float));
    memset(task->state.out, 0, (size_t)task->rows * (size_t)z->dv * sizeof(float));
}

/* The queries of a unit as f32, scaled, where loads of rows of K have them. */
static void decode_pack(decode_task_t *task)
{
    const hd_attention_t *a = task->a;
    const decode_sizes_t *z = task->z;
    float factor =
        a->scale * MODIFY_LOG2E * decode_unit(task->k_dtype) * decode_common(&a->k_scale, task);
    for (int r = 0; r < task->rows; r++) {
        float *q = task->q + r * z->d;
        memset(q, 0, (size_t)z->d * sizeof(*q));
        row_to_f32(&a->q, hd_view_row(&a->q, task->b, decode_query(task, r), decode_head(task, r)),
                   a->d, task->row);
        decode_arrange(task->k_dtype, a->d, false, task->row, factor, q);
    }
}

/* Where the rows of keys or values key .. key+count-1 are. */
static void decode_find(const hd_view_t *view, const decode_task_t *task, int64_t key, int count,
                        const char **rows)
{
    const int64_t stride = view->row;
    for (int j = 0, run; j < count; j += run) {
        const char *first = hd_view_row(view, task->b, key + j, task->key_head);
        run = (int)hd_view_run(view, key + j, count - j);
        for (int i = 0; i < run; i++)
            rows[j + i] = first + i * stride;
    }
}

/* Rows that cannot be read where they lie are copied, as f32. stage NULL: they can. */
static void decode_stage(const hd_view_t *view, const char **rows, int count, int size,
                         float *stage, int stage_row)
{
    for (int j = 0; stage && j < count; j++) {
        row_to_f32(view, rows[j], size, stage + j * stage_row);
        rows[j] = (const char *)(stage + j * stage_row);
    }
}

#endif
