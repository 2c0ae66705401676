/* Decoding on a machine that others use too: what heed bench cannot measure there, because it reads
 * the wall's clock. One thread, its own processor time; each sample is one head of keys and values
 * of a set of `mib` MiB, which no cache holds, and the implementations and the read loops of heed
 * bench take turns on it. Printed is the sample that 5 % are better than, as GB/s of keys and
 * values, and against the better read loop.
 *
 *     cc -O2 -Iinclude -Ibench bench/turns/decode.c bench/limits_kernels.c -o turns \
 *         build/release/libheed.so -Wl,-rpath,build/release
 *     ./turns 400 5 cpu:decode_avx2,cpu:flash_avx2 \
 *         'attention dtype=bf16 sq=1 sk=16384 hq=4 hk=1 d=128'
 *
 * The problem has one sequence and one key head, and no operand beside q, k, v and out. */
#define _GNU_SOURCE
#include "turns.h"

enum { MOST_CONTENDERS = 8, READERS = 2 };

typedef struct contender {
    char name[64];
    bench_kernel_t read; /* NULL: a plan */
    turns_plan_t plan;
    double *samples;
} contender_t;

static size_t bytes_of(const heed_tensor_t *tensor)
{
    size_t bytes = heed_dtype_size(tensor->dtype);
    for (int a = 0; a < tensor->ndim; a++)
        bytes *= (size_t)tensor->shape[a];
    return bytes;
}

static void enter(contender_t *contender, const char *name, const char *text)
{
    snprintf(contender->name, sizeof(contender->name), "%s", name);
    heed_problem_destroy(plan_problem(&contender->plan, name, text));
}

static double sample(const contender_t *contender, void *const *buffers, size_t k, size_t v)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    if (contender->read) {
        contender->read(buffers[HEED_ATTENTION_K], k / 512 * 512);
        contender->read(buffers[HEED_ATTENTION_V], v / 512 * 512);
    } else {
        run_plan(&contender->plan, buffers);
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

int main(int argc, char **argv)
{
    static contender_t contenders[READERS + MOST_CONTENDERS];
    static data_t data;
    int count = READERS, turns = 0;
    if (argc != 5) {
        fprintf(stderr, "usage: turns MIB SECONDS IMPL[,IMPL...] PROBLEM\n");
        return 2;
    }
    bench_kernels_t loops = limit_loops();
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
