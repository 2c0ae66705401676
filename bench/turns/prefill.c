/* Arithmetic on a machine that others use too: what heed bench cannot measure there, because it
 * reads the wall's clock and its limits are minutes away. One thread, its own processor time;
 * problems and the loops behind the limits of heed bench take turns. Printed is the sample that 5 %
 * are better than and the median, as useful GFLOP/s and as a part of each loop at the same rank.
 *
 *     cc -O2 -Iinclude -Ibench bench/turns/prefill.c bench/limits_kernels.c -o turns \
 *         build/release/libheed.so -Wl,-rpath,build/release
 *     ./turns 5 auto 'attention sq=512 d=64 layout=bhsd' 'attention sq=512 d=64 layout=fused'
 *
 * Operands are q, k, v and out. With `ask` in place of the seconds it takes the samples that
 * bench/turns/builds wants. */
#define _GNU_SOURCE
#include "turns.h"

enum { MOST_CONTENDERS = 16, LOOPS = 2, OPERANDS = HEED_ATTENTION_OUT + 1 };

typedef struct contender {
    const char *name;
    bench_kernel_t loop; /* NULL: a plan */
    turns_plan_t plan;
    heed_plan_info_t info;
    void *buffers[HEED_ATTENTION_OPERANDS];
    double flops, *samples;
} contender_t;

/* From the first element to the last, whatever the strides are. */
static void *operand(const heed_tensor_t *tensor)
{
    size_t size = heed_dtype_size(tensor->dtype), count = 1;
    for (int a = 0; a < tensor->ndim; a++)
        count += (size_t)((tensor->shape[a] - 1) * tensor->strides[a]);
    char *at = map(count * size);
    fill(at, count * size, tensor->dtype);
    return at;
}

static void enter(contender_t *contender, const char *impl, const char *text)
{
    if (strcmp(impl, "auto") == 0)
        impl = NULL;
    heed_problem_t *problem = plan_problem(&contender->plan, impl, text);
    contender->name = text;
    contender->info.struct_size = sizeof(contender->info);
    must(heed_plan_info(contender->plan.plan, &contender->info) == HEED_OK);
    contender->flops = contender->info.flops;
    for (int i = 0; i < OPERANDS; i++)
        contender->buffers[i] = operand(heed_problem_tensor(problem, i));
    heed_problem_destroy(problem);
}

static void run(contender_t *contender)
{
    if (contender->loop)
        contender->flops = contender->loop(NULL, 0);
    else
        run_plan(&contender->plan, contender->buffers);
}

/* The second of two runs: operands are where the first has left them. */
static double sample(contender_t *contender)
{
    run(contender);
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    run(contender);
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double rate(const contender_t *contender, int turns, int percent)
{
    return contender->flops / contender->samples[turns * percent / 100] * 1e-9;
}

static void report(contender_t *contenders, int count, int turns)
{
    for (int i = 0; i < count; i++)
        qsort(contenders[i].samples, (size_t)turns, sizeof(double), ascending);
    printf("%d turns\n", turns);
    for (int i = 0; i < count; i++)
        for (int percent = 5; percent <= 50; percent += 45) {
            double each = rate(&contenders[i], turns, percent);
            printf(percent == 5 ? "  %8.1f" : "  median %8.1f GFLOP/s", each);
            for (int l = 0; i >= LOOPS && l < LOOPS; l++)
                if (contenders[l].loop)
                    printf(" %5.1f %%", 100 * each / rate(&contenders[l], turns, percent));
            if (percent == 50)
                printf("  %s%s%s\n", contenders[i].info.impl, i < LOOPS ? "" : "  ",
                       contenders[i].name);
        }
}

/* The samples that another program asks for, by number of a problem, in nanoseconds. */
static int answer(contender_t *contenders, int count)
{
    int wanted;
    for (int i = 0; i < count; i++)
        printf("%s:%.0f ", contenders[i].info.impl, contenders[i].flops);
    printf("\n");
    fflush(stdout);
    while (scanf("%d", &wanted) == 1 && wanted >= 0 && wanted < count) {
        printf("%.0f\n", 1e9 * sample(&contenders[wanted]));
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static contender_t contenders[LOOPS + MOST_CONTENDERS];
    int count = LOOPS, turns = 0;
    if (argc < 4 || argc - 3 > MOST_CONTENDERS) {
        fprintf(stderr, "usage: turns SECONDS|ask IMPL PROBLEM...\n");
        return 2;
    }
    bench_kernels_t loops = limit_loops();
    contenders[0] = (contender_t){.name = "f32 multiply-adds", .loop = loops.fma_f32};
    contenders[1] = (contender_t){.name = "bf16 tiles", .loop = loops.tile_bf16};
    for (int i = 3; i < argc; i++)
        enter(&contenders[count++], argv[2], argv[i]);
    if (strcmp(argv[1], "ask") == 0)
        return answer(contenders + LOOPS, count - LOOPS);
    for (int i = 0; i < count; i++)
        contenders[i].samples = calloc(MOST_SAMPLES, sizeof(double));

    double end = seconds(CLOCK_MONOTONIC) + atof(argv[1]);
    for (; turns < MOST_SAMPLES && seconds(CLOCK_MONOTONIC) < end; turns++)
        for (int i = 0; i < count; i++)
            if (contenders[i].loop || contenders[i].plan.plan)
                contenders[i].samples[turns] = sample(&contenders[i]);
    report(contenders, count, turns);
    return 0;
}
