/* Ring attention over a communicator. In step t a rank has the keys and values of the rank that is
 * t places behind it; while it computes on them they go on to the next, and those of the one before
 * arrive in a second buffer. */
#include "internal.h"
#include "steps.h"

#include <heed/ring.h>

#include <math.h>
#include <string.h>

typedef struct ring {
    heed_context_t *context;
    const heed_comm_t *comm;
    heed_ring_desc_t desc;
    heed_tensor_t q, k, v, out, lse; /* complete */
    hd_axes_t axes[5];
    heed_ring_run_t runs[2];
    int run_count;
    int64_t own, largest; /* tokens of this rank, and of any */
    hd_state_t state;
    hd_steps_t steps;
    int64_t *step_end; /* [size]: steps of ring step t end there */
    char *memory, *part[2], *workspace;
} ring_t;

/* ---- who has what ---------------------------------------------------------------------------- */

/* Part `number` of `parts` of the tokens: the first ones are one larger. */
static heed_ring_run_t part_of(int64_t tokens, int64_t parts, int64_t number)
{
    int64_t each = tokens / parts, more = tokens % parts;
    return (heed_ring_run_t){number * each + hd_min(number, more), 1, each + (number < more)};
}

int heed_ring_runs(heed_ring_layout_t layout, int32_t rank, int32_t size, int64_t tokens,
                   heed_ring_run_t runs[2])
{
    if (!runs || size < 1 || rank < 0 || rank >= size || tokens < 0 || tokens > HD_MOST_TOKENS)
        return 0;
    memset(runs, 0, 2 * sizeof(*runs));
    if (layout == HEED_RING_CONTIGUOUS) {
        runs[0] = part_of(tokens, size, rank);
    } else if (layout == HEED_RING_STRIPED) {
        runs[0] = (heed_ring_run_t){rank, size, tokens / size + (rank < tokens % size)};
    } else if (layout == HEED_RING_ZIGZAG) {
        runs[0] = part_of(tokens, 2 * (int64_t)size, rank);
        runs[1] = part_of(tokens, 2 * (int64_t)size, 2 * (int64_t)size - 1 - rank);
        return 2;
    } else {
        return 0;
    }
    return 1;
}

static int64_t tokens_of(const ring_t *ring, int32_t rank)
{
    heed_ring_run_t runs[2];
    heed_ring_runs(ring->desc.layout, rank, ring->comm->size, ring->desc.tokens, runs);
    return runs[0].count + runs[1].count;
}

/* The rank whose keys and values this one has in step t. */
static int32_t source(const ring_t *ring, int32_t t)
{
    return (ring->comm->rank + ring->comm->size - t) % ring->comm->size;
}

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t check_comm(const heed_comm_t *comm)
{
    if (comm->struct_size != sizeof(*comm))
        return hd_fail(HEED_ERROR_STRUCT_SIZE, "comm.struct_size=%u, known is %zu",
                       comm->struct_size, sizeof(*comm));
    if (!comm->send || !comm->recv || !comm->wait)
        return hd_fail(HEED_ERROR_NULL, "comm.%s is null",
                       !comm->send   ? "send"
                       : !comm->recv ? "recv"
                                     : "wait");
    if (comm->size < 1 || comm->rank < 0 || comm->rank >= comm->size)
        return hd_fail(HEED_ERROR_VALUE, "comm.rank=%d is not below size=%d, or one is negative",
                       comm->rank, comm->size);
    return HEED_OK;
}

static heed_status_t check_parameters(const heed_ring_desc_t *desc)
{
    if ((int)desc->layout < 0 || desc->layout > HEED_RING_STRIPED)
        return hd_fail(HEED_ERROR_VALUE, "desc.layout=%d is no heed_ring_layout_t",
                       (int)desc->layout);
    if (desc->causal < 0 || desc->causal > 1 || desc->whole < 0 || desc->whole > 1)
        return hd_fail(HEED_ERROR_VALUE, "desc.causal=%d, whole=%d: each is 0 or 1", desc->causal,
                       desc->whole);
    if (desc->window_left < -1 || desc->window_right < -1)
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.window_left=%lld, window_right=%lld: -1 is open, 0 and up",
                       (long long)desc->window_left, (long long)desc->window_right);
    if (!isfinite(desc->scale))
        return hd_fail(HEED_ERROR_VALUE, "desc.scale=%g is not finite", (double)desc->scale);
    if (desc->tokens < 0 || desc->tokens > HD_MOST_TOKENS)
        return hd_fail(HEED_ERROR_VALUE, "desc.tokens=%lld is not 0 to 2^40",
                       (long long)desc->tokens);
    return HEED_OK;
}

static heed_status_t check_tensor(ring_t *ring, int number, const char *name,
                                  const heed_tensor_t *from, heed_tensor_t *to)
{
    int64_t rows = ring->desc.whole ? ring->desc.tokens : ring->own;
    int axis = number == HEED_ATTENTION_LSE ? 2 : 1, ndim = number == HEED_ATTENTION_LSE ? 3 : 4;
    HD_TRY(hd_tensor_complete(name, from, number >= HEED_ATTENTION_OUT, to, &ring->axes[number]));
    if (to->ndim != ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not %d", name, to->ndim, ndim);
    if (to->shape[axis] != rows)
        return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld: rank %d of %d has %lld of %lld tokens",
                       name, axis, (long long)to->shape[axis], ring->comm->rank, ring->comm->size,
                       (long long)rows, (long long)ring->desc.tokens);
    if (!from->data && hd_tensor_elements(to))
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    return HEED_OK;
}

static heed_status_t check_tensors(ring_t *ring)
{
    const heed_ring_desc_t *desc = &ring->desc;
    HD_TRY(check_tensor(ring, HEED_ATTENTION_Q, "q", &desc->q, &ring->q));
    HD_TRY(check_tensor(ring, HEED_ATTENTION_K, "k", &desc->k, &ring->k));
    HD_TRY(check_tensor(ring, HEED_ATTENTION_V, "v", &desc->v, &ring->v));
    HD_TRY(check_tensor(ring, HEED_ATTENTION_OUT, "out", &desc->out, &ring->out));
    if (desc->lse.ndim)
        HD_TRY(check_tensor(ring, HEED_ATTENTION_LSE, "lse", &desc->lse, &ring->lse));
    const int64_t *q = ring->q.shape, *k = ring->k.shape, *v = ring->v.shape;
    if (k[0] != q[0] || v[0] != q[0] || k[3] != q[3] || v[2] != k[2] || k[2] < 1 || q[2] % k[2])
        return hd_fail(
            HEED_ERROR_SHAPE, "q is [%lld,.,%lld,%lld], k [%lld,.,%lld,%lld], v [%lld,.,%lld,%lld]",
            (long long)q[0], (long long)q[2], (long long)q[3], (long long)k[0], (long long)k[2],
            (long long)k[3], (long long)v[0], (long long)v[2], (long long)v[3]);
    if (ring->q.dtype != HEED_F32 && ring->q.dtype != HEED_BF16 && ring->q.dtype != HEED_F16)
        return hd_fail(HEED_ERROR_DTYPE, "q is %s: a ring takes f32, bf16, f16",
                       heed_dtype_name(ring->q.dtype));
    if (ring->k.dtype != ring->q.dtype || ring->v.dtype != ring->q.dtype)
        return hd_fail(HEED_ERROR_DTYPE, "k is %s and v is %s, but q is %s",
                       heed_dtype_name(ring->k.dtype), heed_dtype_name(ring->v.dtype),
                       heed_dtype_name(ring->q.dtype));
    return HEED_OK;
}

/* What all ranks must agree on. */
typedef struct greeting {
    int64_t numbers[12];
    float scale;
    int32_t bad; /* the rank cannot take part, and says why itself */
} greeting_t;

static greeting_t greet(const ring_t *ring, heed_status_t status)
{
    const heed_ring_desc_t *desc = &ring->desc;
    greeting_t greeting;
    memset(&greeting, 0, sizeof(greeting));
    greeting.bad = status != HEED_OK;
    if (greeting.bad)
        return greeting;
    const int64_t numbers[12] = {desc->layout,       desc->causal,     desc->window_left,
                                 desc->window_right, desc->tokens,     ring->comm->size,
                                 ring->q.shape[0],   ring->q.shape[2], ring->k.shape[2],
                                 ring->q.shape[3],   ring->v.shape[3], (int64_t)ring->q.dtype};
    memcpy(greeting.numbers, numbers, sizeof(numbers));
    greeting.scale = desc->scale;
    return greeting;
}

static heed_status_t compare(const greeting_t *own, const greeting_t *other, int32_t rank)
{
    static const char *const names[12] = {
        "layout", "causal",     "window_left", "window_right",   "tokens",         "size of comm",
        "batch",  "heads of q", "heads of k",  "head size of q", "head size of v", "dtype"};
    if (other->bad)
        return hd_fail(HEED_ERROR_COMM, "rank %d cannot take part", rank);
    for (int i = 0; i < 12; i++)
        if (own->numbers[i] != other->numbers[i])
            return hd_fail(HEED_ERROR_COMM, "%s is %lld here, but %lld on rank %d", names[i],
                           (long long)own->numbers[i], (long long)other->numbers[i], rank);
    if (memcmp(&own->scale, &other->scale, sizeof(float)) != 0)
        return hd_fail(HEED_ERROR_COMM, "scale is %g here, but %g on rank %d", (double)own->scale,
                       (double)other->scale, rank);
    return HEED_OK;
}

/* Every rank's greeting goes all around, so that all of them see what does not fit. */
static heed_status_t agree(const ring_t *ring, heed_status_t status)
{
    const heed_comm_t *comm = ring->comm;
    greeting_t own = greet(ring, status), now = own, next;
    heed_status_t seen = HEED_OK;
    for (int32_t t = 1; t < comm->size; t++) {
        HD_TRY(comm->send(comm->user, (comm->rank + 1) % comm->size, &now, sizeof(now)));
        HD_TRY(comm->recv(comm->user, source(ring, 1), &next, sizeof(next)));
        HD_TRY(comm->wait(comm->user));
        now = next;
        if (status == HEED_OK && seen == HEED_OK)
            seen = compare(&own, &now, source(ring, t));
    }
    return seen;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* The band between a run of queries and a run of keys, whose distances are equal. */
static int64_t side(int64_t window, int sign, const heed_ring_run_t *q, const heed_ring_run_t *k)
{
    int64_t apart = q->first - k->first, distance = q->distance;
    if (window < 0)
        return sign * 4 * HD_MOST_TOKENS;
    return sign > 0 ? floor_div(apart + window, distance) : -floor_div(window - apart, distance);
}

/* First row of run `number` among this rank's own. */
static int64_t row_of(const heed_ring_run_t *runs, int number)
{
    return number ? runs[0].count : 0;
}

/* What is packed: [B,n,Hk,D], then [B,n,Hk,Dv] of n tokens. */
static heed_tensor_t packed(const heed_tensor_t *from, int64_t tokens, hd_axes_t *axes)
{
    memcpy(axes->shape, from->shape, 4 * sizeof(int64_t));
    axes->shape[1] = tokens;
    hd_dense_strides(4, axes->shape, axes->strides);
    return heed_tensor(NULL, from->dtype, 4, axes->shape, axes->strides);
}

static size_t bytes_of(const heed_tensor_t *tensor, int64_t tokens)
{
    return (size_t)(tensor->shape[0] * tokens * tensor->shape[2] * tensor->shape[3]) *
           heed_dtype_size(tensor->dtype);
}

static size_t packed_bytes(const ring_t *ring, int64_t tokens)
{
    return bytes_of(&ring->k, tokens) + bytes_of(&ring->v, tokens);
}

static heed_status_t add_pair(ring_t *ring, int number, const heed_ring_run_t *keys, int64_t first,
                              int64_t tokens)
{
    const heed_ring_desc_t *desc = &ring->desc;
    const heed_ring_run_t *queries = &ring->runs[number];
    hd_axes_t axes[2];
    heed_tensor_t k = packed(&ring->k, tokens, &axes[0]), v = packed(&ring->v, tokens, &axes[1]);
    hd_step_t part = {.desc = heed_attention_desc()};
    part.desc.scale = desc->scale;
    int64_t row = row_of(ring->runs, number), count = queries->count;
    hd_step_rows(&part, HEED_ATTENTION_Q, &ring->q, 1, desc->whole ? queries->first : row,
                 desc->whole ? queries->distance : 1, count);
    hd_step_rows(&part, HEED_ATTENTION_OUT, &ring->state.out, 1, row, 1, count);
    hd_step_rows(&part, HEED_ATTENTION_LSE, &ring->state.lse, 2, row, 1, count);
    hd_step_rows(&part, HEED_ATTENTION_K, &k, 1, first, 1, keys->count);
    hd_step_rows(&part, HEED_ATTENTION_V, &v, 1, first, 1, keys->count);
    return hd_steps_band(ring->context, &ring->steps, &part,
                         side(desc->window_left, -1, queries, keys),
                         side(desc->causal ? 0 : desc->window_right, 1, queries, keys));
}

static heed_status_t add_steps(ring_t *ring)
{
    for (int32_t t = 0; t < ring->comm->size; t++) {
        heed_ring_run_t runs[2];
        int32_t from = source(ring, t);
        int count =
            heed_ring_runs(ring->desc.layout, from, ring->comm->size, ring->desc.tokens, runs);
        for (int a = 0; a < ring->run_count; a++)
            for (int b = 0; b < count; b++)
                HD_TRY(add_pair(ring, a, &runs[b], row_of(runs, b), tokens_of(ring, from)));
        ring->step_end[t] = ring->steps.count;
    }
    return HEED_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

/* This rank's rows of k or v, densely. */
static char *pack(const ring_t *ring, const heed_tensor_t *tensor, const char *data, char *to)
{
    const int64_t *shape = tensor->shape, *strides = tensor->strides;
    int64_t size = (int64_t)heed_dtype_size(tensor->dtype);
    for (int64_t b = 0; b < shape[0]; b++) {
        for (int64_t row = 0; row < ring->own; row++) {
            int number = row >= ring->runs[0].count;
            const heed_ring_run_t *run = &ring->runs[number];
            int64_t inside = row - row_of(ring->runs, number);
            int64_t at = ring->desc.whole ? run->first + inside * run->distance : row;
            const char *from = data + (b * strides[0] + at * strides[1]) * size;
            for (int64_t h = 0; h < shape[2]; h++) {
                for (int64_t c = 0; c < shape[3]; c++, to += size)
                    memcpy(to, from + (h * strides[2] + c * strides[3]) * size, (size_t)size);
            }
        }
    }
    return to;
}

/* Starts the exchange for step t+1: what is in `now` goes on, the next arrives in `later`. */
static heed_status_t pass_on(const ring_t *ring, int32_t t, const char *now, char *later)
{
    const heed_comm_t *comm = ring->comm;
    int32_t next = (comm->rank + 1) % comm->size;
    HD_TRY(comm->send(comm->user, next, now, packed_bytes(ring, tokens_of(ring, source(ring, t)))));
    return comm->recv(comm->user, source(ring, 1), later,
                      packed_bytes(ring, tokens_of(ring, source(ring, t + 1))));
}

static heed_status_t go_around(ring_t *ring, char **buffers)
{
    const heed_comm_t *comm = ring->comm;
    char *end = pack(ring, &ring->k, hd_tensor_data(&ring->desc.k), ring->part[0]);
    pack(ring, &ring->v, hd_tensor_data(&ring->desc.v), end);
    for (int32_t t = 0; t < comm->size; t++) {
        char *now = ring->part[t % 2], *later = ring->part[(t + 1) % 2];
        heed_status_t passed = HEED_OK;
        if (t + 1 < comm->size)
            HD_TRY(pass_on(ring, t, now, later));
        buffers[HEED_ATTENTION_K] = now;
        buffers[HEED_ATTENTION_V] = now + bytes_of(&ring->k, tokens_of(ring, source(ring, t)));
        heed_status_t computed = hd_steps_run(&ring->steps, t ? ring->step_end[t - 1] : 0,
                                              ring->step_end[t], buffers, ring->workspace);
        if (t + 1 < comm->size)
            passed = comm->wait(comm->user);
        HD_TRY(computed);
        HD_TRY(passed);
    }
    return HEED_OK;
}

static heed_status_t allocate(ring_t *ring)
{
    size_t state = ring->state.out_bytes + ring->state.lse_bytes;
    size_t part = hd_round_up(packed_bytes(ring, ring->largest), 64);
    size_t bytes = state + 2 * part + ring->steps.workspace;
    ring->memory = hd_alloc_aligned(ring->context, bytes + 1, 64);
    if (!ring->memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a ring's %zu bytes", bytes);
    ring->part[0] = ring->memory + state;
    ring->part[1] = ring->part[0] + part;
    ring->workspace = ring->part[1] + part;
    return HEED_OK;
}

/* All that a rank can find out by itself. */
static heed_status_t prepare(ring_t *ring)
{
    const heed_comm_t *comm = ring->comm;
    HD_TRY(check_parameters(&ring->desc));
    ring->run_count =
        heed_ring_runs(ring->desc.layout, comm->rank, comm->size, ring->desc.tokens, ring->runs);
    ring->own = tokens_of(ring, comm->rank);
    for (int32_t rank = 0; rank < comm->size; rank++)
        ring->largest = hd_max(ring->largest, tokens_of(ring, rank));
    HD_TRY(check_tensors(ring));
    hd_state_describe(&ring->out, &ring->lse, true, ring->desc.whole ? ring->own : -1,
                      &ring->state);
    ring->step_end = hd_alloc(ring->context, (size_t)ring->comm->size * sizeof(int64_t));
    if (!ring->step_end)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %d steps", ring->comm->size);
    HD_TRY(add_steps(ring));
    return allocate(ring);
}

static void store(const ring_t *ring, char *const *buffers, int threads)
{
    for (int i = 0; i < (ring->desc.whole ? ring->run_count : 1); i++) {
        const heed_ring_run_t *run = &ring->runs[i];
        hd_rows_t rows = {0, ring->own, 0, 1};
        if (ring->desc.whole)
            rows = (hd_rows_t){row_of(ring->runs, i), run->count, run->first, run->distance};
        hd_state_store(&ring->state, buffers, &rows, &ring->out, hd_tensor_data(&ring->desc.out),
                       &ring->lse, hd_tensor_data(&ring->desc.lse), threads);
    }
}

static heed_status_t attend(ring_t *ring)
{
    char *buffers[HD_STEP_OPERANDS] = {hd_tensor_data(&ring->desc.q)};
    int threads = ring->context->devices[0].threads;
    hd_state_buffers(&ring->state, hd_tensor_data(&ring->desc.out), hd_tensor_data(&ring->desc.lse),
                     ring->memory, &buffers[HEED_ATTENTION_OUT], &buffers[HEED_ATTENTION_LSE]);
    hd_state_clear(&ring->state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE], threads);
    HD_TRY(go_around(ring, buffers));
    store(ring, buffers, threads);
    return HEED_OK;
}

heed_status_t heed_ring_attention(heed_context_t *context, const heed_comm_t *comm,
                                  const heed_ring_desc_t *desc)
{
    ring_t ring = {.context = context, .comm = comm};
    if (!context || !comm)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "comm" : "context");
    HD_TRY(hd_struct_copy(&ring.desc, sizeof(ring.desc), desc, sizeof(ring.desc), "desc"));
    HD_TRY(check_comm(comm));
    heed_status_t status = prepare(&ring);
    char sentence[512]; /* of prepare: agreeing may fail too */
    hd_text_t text = hd_text(sentence, sizeof(sentence));
    hd_text_add(&text, "%s", heed_last_error());
    heed_status_t agreed = agree(&ring, status);
    if (status != HEED_OK)
        hd_fail(status, "%s", sentence);
    else if (agreed == HEED_OK)
        agreed = attend(&ring);
    hd_steps_free(context, &ring.steps);
    hd_free(context, ring.step_end);
    hd_free(context, ring.memory);
    return status != HEED_OK ? status : agreed;
}
