/* Heed: cutting tensors and models into parts for several ranks. Plain functions: nothing is
 * allocated, nothing is kept, every result lies in the caller's memory; any thread may call them.
 *
 *     heed_range_t rows[4];
 *     heed_split(10, 3, HEED_SPLIT_CEIL, 1, rows);            4, 4, 2
 *     heed_view_t view;
 *     heed_split_view(&tensor, 0, rows[1], &view);            view.tensor: rows 4 .. 7, no copy
 *
 * Tensor parallelism follows Shoeybi et al., Megatron-LM (2019), and, with sequence_parallel,
 * Korthikanti et al., Reducing Activation Recomputation (2022). Weights are [out, in], y = W x + b.
 *
 * Errors of all: NULL; VALUE where a number is out of its range or does not divide. */
#ifndef HEED_SPLIT_H
#define HEED_SPLIT_H

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- ranges ---------------------------------------------------------------------------------- */

/* first, first + 1, ..., first + count - 1. */
typedef struct heed_range {
    int64_t first, count;
} heed_range_t;

typedef enum heed_split_policy {
    HEED_SPLIT_EQUAL = 0,    /* n / parts each; an error where that is no whole number */
    HEED_SPLIT_CEIL = 1,     /* ceil(n / parts) each as long as there are: 10 in 3 is 4, 4, 2, and
                                10 in 6 is 2, 2, 2, 2, 2, 0 */
    HEED_SPLIT_BALANCED = 2, /* they differ by at most one, larger ones first: 10 in 3 is 4, 3, 3 */
    HEED_SPLIT_ALIGNED = 3   /* balanced in blocks of `align`; an error unless align divides n */
} heed_split_policy_t;

/* Writes the `parts` ranges that 0 .. n-1 is cut into, in order and without gaps. With any policy
 * but ALIGNED, align is 1. Errors: VALUE, for more parts than there is to share out too. */
HEED_API HEED_MUST_USE heed_status_t heed_split(int64_t n, int32_t parts,
                                                heed_split_policy_t policy, int64_t align,
                                                heed_range_t *ranges);

/* The same for one part alone. */
HEED_API HEED_MUST_USE heed_status_t heed_split_part(int64_t n, int32_t parts,
                                                     heed_split_policy_t policy, int64_t align,
                                                     int32_t part, heed_range_t *range);

/* ---- tensors --------------------------------------------------------------------------------- */

/* A part of a tensor with its axes in place: tensor.shape and tensor.strides point into the struct,
 * which therefore stays where it is while the tensor is in use. */
typedef struct heed_view {
    heed_tensor_t tensor;
    int64_t shape[HEED_MAX_NDIM], strides[HEED_MAX_NDIM];
} heed_view_t;

/* The part of a tensor, on any device, whose index along `axis` is in range; data is not touched
 * and may be NULL. Errors: NULL, VALUE (axis, range), and those of a bad tensor. */
HEED_API HEED_MUST_USE heed_status_t heed_split_view(const heed_tensor_t *tensor, int32_t axis,
                                                     heed_range_t range, heed_view_t *view);

/* Copies parts[0], parts[1], ... side by side along `axis` into whole: the way back. All lie on the
 * CPU, have one dtype, and shapes that differ along the axis only, where they add up to whole's.
 * Memory of whole and of the parts must not overlap. Errors: NULL, VALUE, SHAPE, STRIDE, DTYPE. */
HEED_API HEED_MUST_USE heed_status_t heed_split_gather(const heed_tensor_t *parts, int32_t count,
                                                       int32_t axis, const heed_tensor_t *whole);

/* ---- what ranks exchange --------------------------------------------------------------------- */

typedef enum heed_collective {
    HEED_COLLECTIVE_NONE = 0,
    HEED_COLLECTIVE_ALL_REDUCE = 1,
    HEED_COLLECTIVE_ALL_GATHER = 2,
    HEED_COLLECTIVE_REDUCE_SCATTER = 3,
    HEED_COLLECTIVE_ALL_TO_ALL = 4
} heed_collective_t;

/* "all-reduce", ...; "none"; "?" for no heed_collective_t. Static. */
HEED_API const char *heed_collective_name(heed_collective_t collective);

/* Bytes that each of `ranks` sends with the algorithms that send least: 2 (t-1)/t of `bytes` for an
 * all-reduce, (t-1)/t for the others. `bytes`: of the whole tensor that is reduced, gathered to or
 * scattered; for an all-to-all, of what one rank holds. 0 for one rank, or a number below that. */
HEED_API double heed_collective_bytes(heed_collective_t collective, int32_t ranks, double bytes);

/* ---- tensor parallel: one rank's part of a weight -------------------------------------------- */

typedef enum heed_linear_kind {
    HEED_LINEAR_COLUMN = 0, /* output features are split: y_r = W[r, :] x + b[r] */
    HEED_LINEAR_ROW = 1     /* input features are split: y = sum_r W[:, r] x_r, + b once */
} heed_linear_kind_t;

/* The collectives of both directions, in the order in which they happen: forward on x before and on
 * y after the product, backward on dy before and on dx after it.
 *
 *     column                    before  none        after  none         dx  all-reduce
 *     row                       before  none        after  all-reduce   dx  none
 *     column, sequence_parallel x  all-gather       after  none         dx  reduce-scatter
 *     row,    sequence_parallel before  none        y  reduce-scatter   dy  all-gather
 *
 * With sequence_parallel, x of a column and y of a row are split by tokens between the two. */
typedef struct heed_linear_slice {
    heed_range_t out, in;     /* rows and columns of W that the rank has */
    heed_range_t bias;        /* of b: added to y ... */
    int32_t bias_after;       /* ... 1: after the collective, by every rank that then has y */
    heed_collective_t x, y;   /* forward */
    heed_collective_t dy, dx; /* backward */
} heed_linear_slice_t;

HEED_API HEED_MUST_USE heed_status_t heed_linear_slice(heed_linear_kind_t kind, int64_t out,
                                                       int64_t in, int32_t ranks, int32_t rank,
                                                       heed_split_policy_t policy, int64_t align,
                                                       int32_t sequence_parallel,
                                                       heed_linear_slice_t *slice);

/* How matrices that are one weight lie in its rows. */
typedef enum heed_fused_layout {
    HEED_FUSED_CONCATENATED = 0, /* q of all heads, k of all, v of all; all gates, all ups */
    HEED_FUSED_INTERLEAVED = 1   /* for each key head its q, k, v (Megatron); gate 0, up 0, ... */
} heed_fused_layout_t;

/* A fused query, key and value projection of H heads on Hk key heads. */
typedef struct heed_qkv {
    int64_t heads, kv_heads; /* H a multiple of Hk */
    int64_t dim, dim_v;      /* rows of a head in q and k, and in v */
    heed_fused_layout_t layout;
    heed_split_policy_t policy; /* EQUAL: every rank has as many heads, an error otherwise.
                                   BALANCED: any number of ranks up to H */
} heed_qkv_t;

/* With ranks <= Hk a rank has whole groups, key heads with all their query heads. With more ranks,
 * each key head is shared by neighbouring ranks, which have copies of its k and v and a part of its
 * query heads each. */
typedef struct heed_qkv_slice {
    heed_range_t q_heads, kv_heads;
    heed_range_t rows[3]; /* of the fused weight, in the order of the rank's own weight */
    int32_t row_count;    /* 3, or 1 where they follow each other */
    int32_t copies, copy; /* ranks that have the same key heads, and which of them this is: after a
                             step their gradients of k and v are summed */
} heed_qkv_slice_t;

HEED_API HEED_MUST_USE heed_status_t heed_qkv_slice(const heed_qkv_t *qkv, int32_t ranks,
                                                    int32_t rank, heed_qkv_slice_t *slice);

/* The gate and up projections of an MLP with `hidden` features as one weight of 2 hidden rows.
 * Writes one or two ranges of its rows, those of the gate first, and how many. */
HEED_API HEED_MUST_USE heed_status_t heed_gated_slice(int64_t hidden, heed_fused_layout_t layout,
                                                      int32_t ranks, int32_t rank,
                                                      heed_split_policy_t policy, int64_t align,
                                                      heed_range_t rows[2], int32_t *row_count);

/* An embedding or head, split by tokens of the vocabulary. The vocabulary is padded to a multiple
 * of multiple * ranks (Megatron: 128), so that all parts are equal. After a look-up, zeros where
 * a rank has no such token, comes an all-reduce (reduce-scatter with sequence_parallel); logits
 * stay split, and a loss takes all-reduces of a maximum, a sum and a target for each token. */
typedef struct heed_vocab_slice {
    int64_t padded;      /* rows of the whole weight */
    heed_range_t tokens; /* rows that the rank has */
    int64_t real;        /* how many of them, from the first, are no padding */
} heed_vocab_slice_t;

HEED_API HEED_MUST_USE heed_status_t heed_vocab_slice(int64_t tokens, int64_t multiple,
                                                      int32_t ranks, int32_t rank,
                                                      heed_vocab_slice_t *slice);

/* The row of the rank's weight that is this token's, -1 where it has no such. */
static inline int64_t heed_vocab_row(const heed_vocab_slice_t *slice, int64_t token)
{
    int64_t row = token - slice->tokens.first;
    return row >= 0 && row < slice->real ? row : -1;
}

/* ---- tensor parallel: a layer ---------------------------------------------------------------- */

typedef struct heed_layer_desc {
    uint32_t struct_size;
    int32_t ranks;
    int64_t batch, sequence; /* their product is the tokens */
    int64_t hidden;          /* features between layers */
    int64_t heads, kv_heads, dim;
    int64_t ffn;               /* features within the MLP */
    int32_t gated;             /* 1: gate and up, else up alone */
    int32_t bias;              /* 1: every projection has one */
    int32_t sequence_parallel; /* 1: tokens are split outside of attention and MLP */
    heed_dtype_t dtype;        /* of activations and weights; 0: bf16 */
    heed_fused_layout_t layout;
    heed_split_policy_t policy; /* of heads and features: EQUAL or BALANCED */
} heed_layer_desc_t;

static inline heed_layer_desc_t heed_layer_desc(void)
{
#ifdef __cplusplus
    heed_layer_desc_t desc = {};
#else
    heed_layer_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.ranks = 1;
    return desc;
}

enum { HEED_LAYER_STEPS = 7 };

/* A step of the layer on one rank. The weight is [rows, columns]: rows are the ranges of the whole
 * weight's rows, columns the one of its columns. Norms have rows alone, attention no weight. */
typedef struct heed_layer_step {
    const char *name; /* "norm", "qkv", "attention", "out", "norm", "up" or "gate_up", "down" */
    heed_range_t rows[3];
    int32_t row_count;
    heed_range_t columns;
    int64_t parameters;     /* with the bias; of this rank */
    heed_collective_t x, y; /* forward, as in heed_linear_slice_t */
    heed_collective_t dy, dx;
    double forward_bytes, backward_bytes; /* that this rank sends in them */
    int32_t gradient_ranks; /* ranks that sum gradients of (some of) this weight after a step: they
                               have the same key heads, or other tokens; 1: none */
    double gradient_bytes;  /* that this rank sends for that, in the weight's dtype */
    double flops;           /* forward, of this rank; attention without a mask */
} heed_layer_step_t;

typedef struct heed_layer_plan {
    heed_layer_step_t steps[HEED_LAYER_STEPS];
    heed_qkv_slice_t qkv;
    int64_t parameters;
    double forward_bytes, backward_bytes, gradient_bytes, flops;
} heed_layer_plan_t;

/* What `rank` has and does of a transformer layer: norm, qkv (column), attention, out (row), norm,
 * up (column), down (row). Two all-reduces forward and two backward, each 2 (t-1)/t * tokens *
 * hidden elements that a rank sends; with sequence_parallel each is a reduce-scatter and an
 * all-gather of together as many. Errors: NULL, STRUCT_SIZE, VALUE, DTYPE. */
HEED_API HEED_MUST_USE heed_status_t heed_layer_plan(const heed_layer_desc_t *desc, int32_t rank,
                                                     heed_layer_plan_t *plan);

/* ---- data parallel --------------------------------------------------------------------------- */

typedef struct heed_batch_slice {
    heed_range_t samples;
    int64_t microbatches; /* ceil(samples / microbatch) */
    int64_t last;         /* samples of the last one; the others have `microbatch` */
    double weight;        /* samples / batch: what a mean over this rank's samples counts for in the
                             mean over all */
} heed_batch_slice_t;

/* The rank's samples of a batch, and how many microbatches of at most `microbatch` they make. */
HEED_API HEED_MUST_USE heed_status_t heed_batch_slice(int64_t batch, int32_t ranks, int32_t rank,
                                                      heed_split_policy_t policy,
                                                      int64_t microbatch,
                                                      heed_batch_slice_t *slice);

/* ---- meshes ---------------------------------------------------------------------------------- */

enum { HEED_MESH_MAX_AXES = 8 };

/* Ranks as points of a grid, "2x4x8": the last axis is the fastest, so rank 1 is (0, 0, 1). Axes
 * mean what the caller wants, such as data, pipeline and tensor parallel. */
typedef struct heed_mesh {
    int32_t axes;
    int32_t size[HEED_MESH_MAX_AXES];
    int32_t ranks; /* the product */
} heed_mesh_t;

/* Errors: NULL; SYNTAX for text that is no mesh; VALUE unless it has `ranks` ranks (0: any). */
HEED_API HEED_MUST_USE heed_status_t heed_mesh_parse(const char *text, int32_t ranks,
                                                     heed_mesh_t *mesh);

/* The point of a rank, [axes], and the rank of a point. */
HEED_API HEED_MUST_USE heed_status_t heed_mesh_point(const heed_mesh_t *mesh, int32_t rank,
                                                     int32_t *point);
HEED_API HEED_MUST_USE heed_status_t heed_mesh_rank(const heed_mesh_t *mesh, const int32_t *point,
                                                    int32_t *rank);

/* The ranks whose points differ from `rank`'s along the axes in `along` alone (bit 0 is axis 0), in
 * rising order: those that a collective along these axes joins. Writes how many they are, their
 * numbers (NULL: not wanted; else there is room for so many) and which of them `rank` is. */
HEED_API HEED_MUST_USE heed_status_t heed_mesh_group(const heed_mesh_t *mesh, int32_t rank,
                                                     uint32_t along, int32_t *count,
                                                     int32_t *members, int32_t *place);

#ifdef __cplusplus
}
#endif
#endif
