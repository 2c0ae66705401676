/* Linear layers over ranks on devices: the real host side of the CUDA backend on the runtime of
 * fake_runtime.c and the cuBLAS of fake_cublas.c. Ranks are threads with a card each; their
 * messages lie in device memory, and one of them runs at a time, for the runtime is one thread's.
 * Nothing here says what a GPU, cuBLAS or NCCL does.
 *     test_cuda_linear [missing]      missing: without the tests' cuBLAS */
#define _GNU_SOURCE
#include "cublas.h"
#include "element.h"
#include "expect.h"
#include "fake_cublas.h"
#include "fake_runtime.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static fake_machine_t *machine; /* the plugin's */
static void (*reset_machine)(void);
static cudaError_t (*launch_there)(void (*kernel)(void *), void *params);
static fake_cublas_t *library; /* NULL: missing */
static heed_context_t *context;

static const heed_device_t host = {HEED_DEVICE_CPU, 0};

/* For the tests' cuBLAS, which looks for it here. */
FAKE_EXPORT cudaError_t fake_launch(void (*kernel)(void *params), void *params)
{
    return launch_there(kernel, params);
}

static int begin(void **state)
{
    (void)state;
    reset_machine();
    machine->cards = 4;
    context = NULL;
    return heed_context_create(NULL, &context) != HEED_OK;
}

static int end(void **state)
{
    (void)state;
    machine->failing = NULL;
    heed_context_destroy(context);
    if (machine->allocations)
        print_error("%d allocations were not given back\n", machine->allocations);
    return machine->allocations != 0;
}

/* ---- a communicator of device memory --------------------------------------------------------- */

enum { MOST = 3, MESSAGES = 16 };

typedef struct message {
    int32_t other;
    bool receives;
    void *at;
    size_t bytes;
    char *copy;
} message_t;

typedef struct member {
    heed_comm_t under, comm; /* messages travel as the host's, under the device's */
    heed_stream_t stream;
    message_t messages[MESSAGES];
    int count;
    void (*work)(struct member *member);
    pthread_t thread;
    int variant;
    heed_status_t status;
    char sentence[512];
    char wrong[256]; /* "": all is well */
} member_t;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER; /* whoever has it uses the machine */
static member_t members[MOST];

static heed_status_t get(const member_t *m, void *to, const void *from, size_t bytes)
{
    heed_status_t status =
        heed_memory_copy(context, to, host, from, m->comm.device, bytes, &m->stream);
    return status ? status : heed_stream_synchronize(context, &m->stream);
}

static heed_status_t put(const member_t *m, void *to, const void *from, size_t bytes)
{
    return heed_memory_copy(context, to, m->comm.device, from, host, bytes, &m->stream);
}

static heed_status_t keep(member_t *m, message_t message)
{
    message.copy = malloc(message.bytes);
    m->messages[m->count++] = message;
    return message.receives ? HEED_OK : get(m, message.copy, message.at, message.bytes);
}

static heed_status_t send(void *user, int32_t to, const void *data, size_t bytes)
{
    return keep(user, (message_t){to, false, (void *)(uintptr_t)data, bytes, NULL});
}

static heed_status_t recv(void *user, int32_t from, void *data, size_t bytes)
{
    return keep(user, (message_t){from, true, data, bytes, NULL});
}

static heed_status_t wait_all(void *user)
{
    member_t *m = user;
    heed_status_t status = HEED_OK;
    pthread_mutex_unlock(&turn);
    for (int i = 0; i < m->count && !status; i++) {
        const message_t *at = &m->messages[i];
        status = at->receives ? m->under.recv(m->under.user, at->other, at->copy, at->bytes)
                              : m->under.send(m->under.user, at->other, at->copy, at->bytes);
    }
    if (!status)
        status = m->under.wait(m->under.user);
    pthread_mutex_lock(&turn);
    for (int i = 0; i < m->count; i++) {
        const message_t *at = &m->messages[i];
        if (!status && at->receives)
            status = put(m, at->at, at->copy, at->bytes);
        free(at->copy);
    }
    m->count = 0;
    return status;
}

static heed_status_t all_gather(void *user, const void *own, size_t bytes, void *all)
{
    member_t *m = user;
    size_t size = (size_t)m->comm.size;
    char *copy = malloc(bytes * size), *place = copy + (size_t)m->comm.rank * bytes;
    heed_status_t status = get(m, place, own, bytes);
    pthread_mutex_unlock(&turn);
    status = status ? status : heed_comm_all_gather(&m->under, place, bytes, copy);
    pthread_mutex_lock(&turn);
    status = status ? status : put(m, all, copy, bytes * size);
    free(copy);
    return status;
}

static heed_status_t reduce(member_t *m, heed_dtype_t dtype, heed_reduce_t how, size_t parts,
                            size_t count, const void *from, void *to)
{
    size_t bytes = count * (size_t)hd_dtype_bytes(dtype);
    char *copy = malloc(bytes * parts), *own = malloc(bytes);
    heed_status_t status = get(m, copy, from, bytes * parts);
    pthread_mutex_unlock(&turn);
    if (!status && parts > 1)
        status = heed_comm_reduce_scatter(context, &m->under, dtype, how, count, copy, own);
    else if (!status)
        status = heed_comm_all_reduce(context, &m->under, dtype, how, count, copy);
    pthread_mutex_lock(&turn);
    status = status ? status : put(m, to, parts > 1 ? own : copy, bytes);
    free(copy);
    free(own);
    return status;
}

static heed_status_t all_reduce(void *user, heed_dtype_t dtype, heed_reduce_t how, size_t count,
                                void *data)
{
    return reduce(user, dtype, how, 1, count, data, data);
}

static heed_status_t reduce_scatter(void *user, heed_dtype_t dtype, heed_reduce_t how, size_t count,
                                    const void *parts, void *own)
{
    member_t *m = user;
    return reduce(m, dtype, how, (size_t)m->comm.size, count, parts, own);
}

static void *run(void *at)
{
    member_t *m = at;
    pthread_mutex_lock(&turn);
    m->work(m);
    snprintf(m->sentence, sizeof(m->sentence), "%s", heed_last_error());
    pthread_mutex_unlock(&turn);
    heed_comm_threads_free(&m->under);
    return NULL;
}

static void run_all(int size, void (*work)(member_t *), int variant)
{
    heed_comm_t comms[MOST];
    expect_ok(heed_comm_threads(context, size, 60000, comms));
    for (int r = 0; r < size; r++) {
        member_t *m = &members[r];
        *m = (member_t){.under = comms[r], .work = work, .variant = variant};
        m->comm = (heed_comm_t){.struct_size = sizeof(heed_comm_t),
                                .rank = r,
                                .size = size,
                                .send = send,
                                .recv = recv,
                                .wait = wait_all,
                                .user = m,
                                .all_gather = all_gather,
                                .all_reduce = all_reduce,
                                .reduce_scatter = reduce_scatter,
                                .unchecked = 1,
                                .device = {HEED_DEVICE_CUDA, r}};
        expect_ok(heed_stream_create(context, m->comm.device, &m->stream));
        m->comm.stream = m->stream.native;
    }
    for (int r = 0; r < size; r++)
        assert_int_equal(pthread_create(&members[r].thread, NULL, run, &members[r]), 0);
    for (int r = 0; r < size; r++)
        pthread_join(members[r].thread, NULL);
    for (int r = 0; r < size; r++)
        expect_ok(heed_stream_destroy(context, &members[r].stream));
}

static void expect_rank(int rank, heed_status_t status, const char *words)
{
    const member_t *m = &members[rank];
    if (m->status != status || (words && !strstr(m->sentence, words)))
        fail_msg("rank %d: %s '%s', not %s with '%s'", rank, heed_status_name(m->status),
                 m->sentence, heed_status_name(status), words ? words : "");
}

/* ---- a layer --------------------------------------------------------------------------------- */

/* 12, 24 and 36 are multiples of 1, 2 and 3 ranks. Numbers are small and whole, so that products
 * and sums are exact in every dtype. ROOM numbers are the largest tensor. */
enum { M = 12, K = 24, N = 36, GAP = 5, ROOM = N * K };

static float x[M * K], w[N * K], bias[N], wanted[2][M * N]; /* without and with bias */

static void fill(void)
{
    unsigned seed = 1;
    float *const all[] = {x, w, bias};
    const int counts[] = {M * K, N * K, N};
    for (int n = 0; n < 3; n++)
        for (int i = 0; i < counts[n]; i++) {
            seed = seed * 1664525u + 1013904223u;
            all[n][i] = (float)(seed >> 24) / 64 - 2;
            all[n][i] = (float)(int)all[n][i];
        }
    for (int i = 0; i < M * N; i++) {
        float sum = 0;
        for (int p = 0; p < K; p++)
            sum += x[i / N * K + p] * w[i % N * K + p];
        wanted[0][i] = sum;
        wanted[1][i] = sum + bias[i % N];
    }
}

enum { COLUMN, GATHERED, ROW, SCATTERED, KINDS };

/* A layer on this rank's card: x, w, bias, out. */
typedef struct layer {
    heed_linear_desc_t desc;
    int64_t shapes[4][2], strides[4][2];
    void *at[4];
    heed_dtype_t out;
    int64_t rows, columns, stride; /* of out */
} layer_t;

/* Numbers of whole memory, `first` the tensor's own. */
static heed_tensor_t place(const member_t *m, layer_t *layer, int i, heed_dtype_t dtype,
                           const float *numbers, int count, int64_t first)
{
    char copy[4 * ROOM];
    int64_t size = hd_dtype_bytes(dtype);
    for (int n = 0; n < count; n++)
        hd_element_store(dtype, copy + n * size, numbers ? numbers[n] : 77);
    expect_ok(heed_memory_alloc(context, m->comm.device, (size_t)(count * size), &layer->at[i]));
    expect_ok(put(m, layer->at[i], copy, (size_t)(count * size)));
    heed_tensor_t tensor = heed_tensor((char *)layer->at[i] + first * size, dtype, i == 2 ? 1 : 2,
                                       layer->shapes[i], layer->strides[i]);
    tensor.device = m->comm.device;
    return tensor;
}

static void make(const member_t *m, layer_t *layer, int kind, heed_dtype_t dtype, heed_dtype_t out,
                 bool biased)
{
    const int64_t size = m->comm.size, rank = m->comm.rank, n = N / size, k = K / size;
    bool columns = kind == COLUMN || kind == GATHERED;
    memset(layer, 0, sizeof(*layer));
    layer->desc = heed_linear_desc();
    layer->desc.split = columns ? HEED_LINEAR_COLUMN : HEED_LINEAR_ROW;
    layer->desc.gather = kind == GATHERED;
    layer->desc.scatter = kind == SCATTERED;
    layer->out = out;
    layer->rows = kind == SCATTERED ? M / size : M;
    layer->columns = kind == COLUMN ? n : N;
    layer->stride = columns ? layer->columns + GAP : N;
    const int64_t shapes[4][2] = {{M, columns ? K : k},
                                  {columns ? n : N, columns ? K : k},
                                  {columns ? n : N},
                                  {layer->rows, layer->columns}};
    const int64_t strides[4][2] = {{K, 1}, {K, 1}, {1}, {layer->stride, 1}};
    memcpy(layer->shapes, shapes, sizeof(shapes));
    memcpy(layer->strides, strides, sizeof(strides));
    layer->desc.x = place(m, layer, 0, dtype, x, M * K, columns ? 0 : rank * k);
    layer->desc.w = place(m, layer, 1, dtype, w, N * K, columns ? rank * n * K : rank * k);
    if (biased)
        layer->desc.bias = place(m, layer, 2, out, bias, N, columns ? rank * n : 0);
    layer->desc.out = place(m, layer, 3, out, NULL, (int)(layer->rows * layer->stride), 0);
}

static void discard(const member_t *m, layer_t *layer)
{
    for (int i = 0; i < 4; i++)
        expect_ok(heed_memory_free(context, m->comm.device, layer->at[i]));
}

/* What is on the card against plain sums; nothing between rows has been touched. */
static void compare(member_t *m, const layer_t *layer, int kind, bool biased)
{
    char got[4 * ROOM];
    int64_t size = hd_dtype_bytes(layer->out), rank = m->comm.rank;
    m->status = get(m, got, layer->at[3], (size_t)(layer->rows * layer->stride * size));
    for (int64_t i = 0; i < layer->rows; i++)
        for (int64_t j = 0; j < layer->stride; j++) {
            int64_t row = kind == SCATTERED ? rank * layer->rows + i : i;
            int64_t column = kind == COLUMN ? rank * layer->columns + j : j;
            float is = hd_element_load(layer->out, got + (i * layer->stride + j) * size);
            float should = j < layer->columns ? wanted[biased][row * N + column] : 77;
            if (is != should && !m->wrong[0])
                snprintf(m->wrong, sizeof(m->wrong), "out[%d,%d] is %g, not %g", (int)i, (int)j,
                         (double)is, (double)should);
        }
}

static heed_status_t run_layer(const member_t *m, const layer_t *layer)
{
    return heed_parallel_linear(context, &m->comm, &layer->desc);
}

static const heed_dtype_t dtypes[4][2] = {
    {HEED_F32, HEED_F32}, {HEED_BF16, HEED_BF16}, {HEED_F16, HEED_F16}, {HEED_BF16, HEED_F32}};

static void one(member_t *m)
{
    int kind = m->variant % KINDS;
    bool biased = m->variant / KINDS % 2;
    const heed_dtype_t *dtype = dtypes[m->variant / KINDS / 2];
    layer_t layer;
    make(m, &layer, kind, dtype[0], dtype[1], biased);
    m->status = run_layer(m, &layer);
    if (!m->status)
        compare(m, &layer, kind, biased);
    discard(m, &layer);
}

static void layers_are_plain_sums(void **state)
{
    (void)state;
    for (int size = 1; size <= MOST; size++)
        for (int variant = 0; variant < KINDS * 2 * 4; variant++) {
            run_all(size, one, variant);
            for (int r = 0; r < size; r++) {
                expect_rank(r, HEED_OK, NULL);
                if (members[r].wrong[0])
                    fail_msg("variant %d, rank %d of %d: %s", variant, r, size, members[r].wrong);
            }
        }
    assert_int_equal(machine->current, 0);
}

static void on_a_card_without_pools(void **state)
{
    (void)state;
    machine->no_pools = 1;
    run_all(2, one, SCATTERED + KINDS);
    for (int r = 0; r < 2; r++) {
        expect_rank(r, HEED_OK, NULL);
        assert_string_equal(members[r].wrong, "");
    }
}

/* A layer whose ranks need not speak is enqueued on the communicator's stream, and that is all. */
static void enqueue(member_t *m)
{
    layer_t layer;
    make(m, &layer, COLUMN, HEED_BF16, HEED_BF16, true);
    layer.desc.unchecked = 1;
    int waits = machine->waits, gemms = library->gemms;
    m->status = run_layer(m, &layer);
    if (machine->waits != waits || library->gemms != gemms + 1 ||
        library->stream != m->stream.native || library->workspace_bytes != HD_PRODUCT_WORKSPACE)
        snprintf(m->wrong, sizeof(m->wrong), "%d waits, %d products", machine->waits - waits,
                 library->gemms - gemms);
    if (!m->status)
        compare(m, &layer, COLUMN, true);
    discard(m, &layer);
}

static void nothing_is_waited_for(void **state)
{
    (void)state;
    run_all(2, enqueue, 0);
    for (int r = 0; r < 2; r++) {
        expect_rank(r, HEED_OK, NULL);
        assert_string_equal(members[r].wrong, "");
    }
}

/* ---- what is wrong --------------------------------------------------------------------------- */

typedef struct wrong {
    const char *words;
    heed_status_t status;
} wrong_t;

static const wrong_t wrongs[] = {
    {"x.device is 2:2, but comm carries memory of 2:1", HEED_ERROR_UNSUPPORTED},
    {"w.device is 1:0, but comm carries memory of 2:1", HEED_ERROR_UNSUPPORTED},
    {"is host memory, but cuda:1 is to use it", HEED_ERROR_VALUE},
    {"lies on cuda:2, but cuda:1 is to use it", HEED_ERROR_VALUE},
    {"w is f32, but x is bf16", HEED_ERROR_DTYPE},
    {"x is e4m3: linear layers take f32, bf16, f16", HEED_ERROR_DTYPE},
    {"out is f16: it is f32 or as x bf16", HEED_ERROR_DTYPE},
    {"bias is f32, but out is bf16", HEED_ERROR_DTYPE},
    {"out.data is null", HEED_ERROR_NULL},
    {"unchecked=2", HEED_ERROR_VALUE},
};

static float on_host[K * N];

static void spoil(member_t *m, layer_t *layer, void *elsewhere)
{
    heed_linear_desc_t *desc = &layer->desc;
    switch (m->variant) {
    case 0:
        desc->x.device.id = 2;
        break;
    case 1:
        desc->w.device = host;
        break;
    case 2:
        desc->bias.data = on_host;
        break;
    case 3:
        desc->w.data = elsewhere;
        break;
    case 4:
        desc->w.dtype = HEED_F32;
        break;
    case 5:
        desc->x.dtype = HEED_E4M3;
        break;
    case 6:
        desc->out.dtype = HEED_F16;
        break;
    case 7:
        desc->bias.dtype = HEED_F32;
        break;
    case 8:
        desc->out.data = NULL;
        break;
    default:
        desc->unchecked = 2;
    }
}

/* Rank 1 is wrong; nobody multiplies. */
static void refuse(member_t *m)
{
    layer_t layer;
    void *elsewhere;
    int gemms = library->gemms;
    make(m, &layer, ROW, HEED_BF16, HEED_BF16, true);
    expect_ok(
        heed_memory_alloc(context, (heed_device_t){HEED_DEVICE_CUDA, 2}, 1 << 16, &elsewhere));
    if (m->comm.rank == 1)
        spoil(m, &layer, elsewhere);
    m->status = run_layer(m, &layer);
    if (library->gemms != gemms)
        snprintf(m->wrong, sizeof(m->wrong), "something was multiplied");
    discard(m, &layer);
    expect_ok(heed_memory_free(context, (heed_device_t){HEED_DEVICE_CUDA, 2}, elsewhere));
}

static void a_wrong_rank_is_told_to_all(void **state)
{
    (void)state;
    for (int i = 0; i < (int)(sizeof(wrongs) / sizeof(wrongs[0])); i++) {
        run_all(3, refuse, i);
        expect_rank(0, HEED_ERROR_COMM, "rank 1 cannot take part");
        expect_rank(1, wrongs[i].status, wrongs[i].words);
        expect_rank(2, HEED_ERROR_COMM, "rank 1 cannot take part");
        for (int r = 0; r < 3; r++)
            assert_string_equal(members[r].wrong, "");
    }
}

/* Variant 0: fewer rows on the last rank; 1: results of another dtype there. */
static void disagree(member_t *m)
{
    layer_t layer;
    bool last = m->comm.rank + 1 == m->comm.size;
    make(m, &layer, ROW, HEED_BF16, last && m->variant == 1 ? HEED_F32 : HEED_BF16, false);
    if (last && m->variant == 0)
        layer.shapes[0][0] = layer.shapes[3][0] = M - 1;
    m->status = run_layer(m, &layer);
    discard(m, &layer);
}

static void ranks_that_differ(void **state)
{
    static const char *const words[] = {"rows of x is", "dtype of out is"};
    (void)state;
    for (int variant = 0; variant < 2; variant++) {
        run_all(3, disagree, variant);
        for (int r = 0; r < 3; r++)
            expect_rank(r, HEED_ERROR_COMM, words[variant]);
    }
}

/* Variant 0: no memory for a product; 1: none at all; 2: a copy fails. */
static void fail_inside(member_t *m)
{
    static const char *const failing[] = {NULL, "cudaMallocAsync", "cudaMemcpy2DAsync"};
    layer_t layer;
    make(m, &layer, COLUMN, HEED_F32, HEED_F32, true);
    layer.desc.unchecked = m->variant > 1;
    machine->failing = failing[m->variant];
    machine->failure = m->variant == 1 ? cudaErrorMemoryAllocation : cudaErrorInvalidValue;
    machine->memory = m->variant ? machine->memory : 1 << 20;
    m->status = run_layer(m, &layer);
    machine->failing = NULL;
    discard(m, &layer);
}

static void failures_have_sentences(void **state)
{
    (void)state;
    run_all(2, fail_inside, 0);
    expect_rank(0, HEED_ERROR_OUT_OF_MEMORY, "memory: cuda:0 is out of memory");
    expect_rank(1, HEED_ERROR_OUT_OF_MEMORY, "memory: cuda:1 is out of memory");
    reset_machine();
    machine->cards = 4;
    run_all(1, fail_inside, 1);
    expect_rank(0, HEED_ERROR_OUT_OF_MEMORY, "cuda:0 is out of memory");
    run_all(1, fail_inside, 2);
    expect_rank(0, HEED_ERROR_DEVICE, "a copy of rows failed on cuda:0");
}

/* A transport of device memory that brings no sum: there is nothing to build it from. */
static void no_sum(member_t *m)
{
    layer_t layer;
    make(m, &layer, ROW, HEED_F32, HEED_F32, false);
    m->comm.all_reduce = NULL;
    m->status = run_layer(m, &layer);
    discard(m, &layer);
}

static void no_barrier(member_t *m)
{
    m->status = heed_comm_barrier(&m->comm);
}

static void a_transport_without_sums(void **state)
{
    (void)state;
    run_all(2, no_sum, 0);
    expect_rank(0, HEED_ERROR_UNSUPPORTED, "comm brings no collective of this kind");
    expect_rank(1, HEED_ERROR_UNSUPPORTED, "comm brings no collective of this kind");
    run_all(1, no_barrier, 0);
    expect_rank(0, HEED_ERROR_UNSUPPORTED, "comm brings no barrier for its device");
}

/* Variant 0: the host's communicator; 1: a card that is not there; 2: one where cuBLAS fails. */
static void misplaced(member_t *m)
{
    layer_t layer;
    if (m->variant == 2)
        m->comm.device.id = m->stream.device.id = 3;
    m->comm.stream = m->stream.native = NULL;
    make(m, &layer, COLUMN, HEED_F32, HEED_F32, false);
    heed_device_t there = m->comm.device;
    if (m->variant == 1)
        m->comm.device.id = 9;
    m->status =
        m->variant ? run_layer(m, &layer) : heed_parallel_linear(context, &m->under, &layer.desc);
    m->comm.device = there;
    discard(m, &layer);
}

static void cards_that_cannot(void **state)
{
    (void)state;
    run_all(1, misplaced, 0);
    expect_rank(0, HEED_ERROR_UNSUPPORTED, "x.device is 2:0, but comm carries memory of 1:0");
    run_all(1, misplaced, 1);
    expect_rank(0, HEED_ERROR_NO_DEVICE, "comm.device is 2:9: there is none with that number");
    library->create_status = 3;
    run_all(1, misplaced, 2);
    library->create_status = 0;
    expect_rank(0, HEED_ERROR_UNSUPPORTED,
                "a product of matrices needs cuBLAS, which cannot start on cuda:3 (status 3)");
}

/* Whether the machine has none or one that finds no driver. */
static void without_cublas(void **state)
{
    (void)state;
    run_all(2, one, COLUMN);
    for (int r = 0; r < 2; r++)
        expect_rank(r, HEED_ERROR_UNSUPPORTED, "a product of matrices needs cuBLAS");
}

static bool open_plugin(void)
{
    setenv("HEED_PLUGIN_PATH", HEED_FAKE_CUDA, 1);
    void *plugin = dlopen(HEED_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
    if (!plugin)
        return false;
    machine = dlsym(plugin, "fake");
    *(void **)&reset_machine = dlsym(plugin, "fake_reset");
    *(void **)&launch_there = dlsym(plugin, "fake_launch");
    return machine && reset_machine && launch_there;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(layers_are_plain_sums, begin, end),
        cmocka_unit_test_setup_teardown(on_a_card_without_pools, begin, end),
        cmocka_unit_test_setup_teardown(nothing_is_waited_for, begin, end),
        cmocka_unit_test_setup_teardown(a_wrong_rank_is_told_to_all, begin, end),
        cmocka_unit_test_setup_teardown(ranks_that_differ, begin, end),
        cmocka_unit_test_setup_teardown(failures_have_sentences, begin, end),
        cmocka_unit_test_setup_teardown(a_transport_without_sums, begin, end),
        cmocka_unit_test_setup_teardown(cards_that_cannot, begin, end),
    };
    const struct CMUnitTest missing[] = {
        cmocka_unit_test_setup_teardown(without_cublas, begin, end)};
    fill();
    if (!open_plugin())
        return 1;
    if (argc > 1 && strcmp(argv[1], "missing") == 0)
        return cmocka_run_group_tests(missing, NULL, NULL);
    void *file = dlopen(HEED_FAKE_CUBLAS, RTLD_NOW | RTLD_LOCAL);
    library = file ? dlsym(file, "fake_cublas") : NULL;
    return library ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
