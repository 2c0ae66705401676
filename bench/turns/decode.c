/* Decoding on a machine that others use too: what heed bench cannot measure there, because it reads
 * the wall's clock. One thread, its own processor time; each sample is one head of keys and values
 * of a set of `mib` MiB, which no cache holds, and the implementations and the read loops of heed
 * bench take turns on it. Printed is the sample that 5 % are better than, as GB/s of keys and
 * values, and against the better read loop.
 *
 *     cc -O2 -Iinclude -Ibench bench/turns/decode.c bench/limits_kernels.c -o turns \
 *         build/release/libheed.so -Wl,-rpath,build/release
 *     turns 400 5 cpu:decode_avx2,cpu:flash_avx2 'attention dtype=bf16 sq=1 sk=16384 hq=4 hk=1
 * d=128'
 *
 * The problem has one sequence and one key head, and no operand beside q, k, v and out. */
#define _GNU_SOURCE
#include "bench_limits.h"

#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MOST_CONTENDERS = 8, MOST_SAMPLES = 100000, READERS = 2 };

typedef struct contender {
    char name[64];
    bench_kernel_t read; /* NULL: a plan */
    heed_plan_t *plan;
    void *workspace;
    size_t bytes;
    double *samples;
} contender_t;

static void must(int good)
{
    if (good)
        return;
    fprintf(stderr, "turns: %s\n", heed_last_error());
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t bytes_of(const heed_tensor_t *tensor)
{
    size_t bytes = heed_dtype_size(tensor->dtype);
    for (int a = 0; a < tensor->ndim; a++)
        bytes *= (size_t)tensor->shape[a];
    return bytes;
}

/* Numbers of size about 1: of four bytes the upper halves, of one, codes below NaN. Integers come
 * without a scale: larger ones would leave one key with all the weight, and sums that underflow. */
static void fill(char *at, size_t bytes, heed_dtype_t dtype)
{
    uint32_t random = 1;
    size_t size = heed_dtype_size(dtype);
    for (size_t i = 0; i + size <= bytes; i += size) {
        random = random * 1664525u + 1013904223u;
        float value = (float)(random >> 8) / 8388608.0f - 1;
        uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        uint16_t half =
            dtype == HEED_F16 ? (uint16_t)(0x3000 | random >> 22) : (uint16_t)(bits >> 16);
        uint8_t code = (uint8_t)(dtype == HEED_I8 ? (random >> 29) - 4 : random >> 20 & 0xb7);
        memcpy(at + i, size == 4 ? (void *)&bits : size == 2 ? (void *)&half : (void *)&code, size);
    }
}

static char *map(size_t bytes)
{
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        exit(1);
    (void)madvise(at, bytes, MADV_HUGEPAGE);
    return at;
}

static void enter(contender_t *contender, const char *name, const char *text)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *context;
    heed_problem_t *problem;
    void *desc;
    size_t alignment;
    config.threads = 1;
    config.impl = name;
    snprintf(contender->name, sizeof(contender->name), "%s", name);
    must(heed_context_create(&config, &context) == HEED_OK);
    must(heed_problem_parse(text, &problem) == HEED_OK);
    must(heed_problem_desc(problem, &desc) == HEED_OK);
    must(heed_plan_create(context, "attention", desc, &contender->plan) == HEED_OK);
    must(heed_plan_workspace(contender->plan, &contender->bytes, &alignment) == HEED_OK);
    contender->workspace = aligned_alloc(4096, (contender->bytes / 4096 + 1) * 4096);
}

static double sample(const contender_t *contender, void *const *buffers, size_t k, size_t v)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    if (contender->read) {
        contender->read(buffers[HEED_ATTENTION_K], k / 512 * 512);
        contender->read(buffers[HEED_ATTENTION_V], v / 512 * 512);
    } else {
        must(heed_plan_execute(contender->plan, buffers, HEED_ATTENTION_OPERANDS,
                               contender->workspace, contender->bytes, NULL) == HEED_OK);
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

/* Keys and values of `count` sets, queries and out of one. */
typedef struct data {
    char *keys, *values;
    size_t k_bytes, v_bytes, count, at;
    void *buffers[HEED_ATTENTION_OPERANDS];
} data_t;

static void make_data(data_t *data, const char *text, size_t mib)
{
    heed_problem_t *problem;
    void *desc;
    must(heed_problem_parse(text, &problem) == HEED_OK);
    must(heed_problem_desc(problem, &desc) == HEED_OK);
    const heed_tensor_t *q = heed_problem_tensor(problem, HEED_ATTENTION_Q);
    const heed_tensor_t *k = heed_problem_tensor(problem, HEED_ATTENTION_K);
    const heed_tensor_t *v = heed_problem_tensor(problem, HEED_ATTENTION_V);
    data->k_bytes = bytes_of(k);
    data->v_bytes = bytes_of(v);
    data->count = (mib << 20) / (data->k_bytes + data->v_bytes);
    data->count += data->count == 0;
    data->keys = map(data->count * data->k_bytes);
    data->values = map(data->count * data->v_bytes);
    fill(data->keys, data->count * data->k_bytes, k->dtype);
    fill(data->values, data->count * data->v_bytes, v->dtype);
    data->buffers[HEED_ATTENTION_Q] = map(bytes_of(q));
    data->buffers[HEED_ATTENTION_OUT] =
        map(bytes_of(heed_problem_tensor(problem, HEED_ATTENTION_OUT)));
    fill(data->buffers[HEED_ATTENTION_Q], bytes_of(q), q->dtype);
    heed_problem_destroy(problem);
}

static void next_set(data_t *data)
{
    data->at = (data->at + 1) % data->count;
    data->buffers[HEED_ATTENTION_K] = data->keys + data->at * data->k_bytes;
    data->buffers[HEED_ATTENTION_V] = data->values + data->at * data->v_bytes;
}

static void report(contender_t *contenders, int count, int turns, double bytes)
{
    double limit = 0;
    for (int i = 0; i < count; i++) {
        qsort(contenders[i].samples, (size_t)turns, sizeof(double), ascending);
        double rate = bytes / contenders[i].samples[turns / 20] / 1e9;
        limit = contenders[i].read && rate > limit ? rate : limit;
        printf("  %-24s %6.1f GB/s  %3.0f %%\n", contenders[i].name, rate, 100 * rate / limit);
    }
}

static bench_kernels_t read_loops(void)
{
    heed_context_t *context;
    heed_device_info_t info = {.struct_size = sizeof(info)};
    must(heed_context_create(NULL, &context) == HEED_OK);
    must(heed_device_info(context, 0, &info) == HEED_OK);
    heed_context_destroy(context);
    return bench_kernels(info.isa);
}

int main(int argc, char **argv)
{
    static contender_t contenders[READERS + MOST_CONTENDERS];
    static data_t data;
    int count = READERS, turns = 0;
    if (argc != 5) {
        fprintf(stderr, "usage: turns MIB SECONDS IMPL[,IMPL...] PROBLEM\n");
        return 2;
    }
    bench_kernels_t loops = read_loops();
    contenders[0] = (contender_t){.name = "read", .read = loops.read};
    contenders[1] = (contender_t){.name = "read, prefetched", .read = loops.read_prefetch};
    for (char *name = strtok(argv[3], ","); name && count < READERS + MOST_CONTENDERS;
         name = strtok(NULL, ","))
        enter(&contenders[count++], name, argv[4]);
    for (int i = 0; i < count; i++)
        contenders[i].samples = malloc(MOST_SAMPLES * sizeof(double));
    make_data(&data, argv[4], (size_t)atol(argv[1]));

    double end = seconds(CLOCK_MONOTONIC) + atof(argv[2]);
    for (; turns < MOST_SAMPLES && seconds(CLOCK_MONOTONIC) < end; turns++)
        for (int i = 0; i < count; i++) {
            next_set(&data);
            contenders[i].samples[turns] =
                sample(&contenders[i], data.buffers, data.k_bytes, data.v_bytes);
        }
    printf("%s: %zu sets, %d turns\n", argv[4], data.count, turns);
    report(contenders, count, turns, (double)(data.k_bytes + data.v_bytes));
    return 0;
}
