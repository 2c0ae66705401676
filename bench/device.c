/* Timing on a card: events around one call on a stream of the benchmark's own. Before each call a
 * buffer larger than the card's last cache is overwritten, so that every call finds its operands in
 * memory; meanwhile the call is enqueued, and starting it costs nothing that is measured. */
#include "bench.h"

#include "kit.h"

#include <math.h>

static const size_t most_copy_bytes = (size_t)512 << 20;
static const size_t least_flush_bytes = (size_t)32 << 20;

bool bench_on_host(const bench_run_t *run)
{
    return run->device.type != HEED_DEVICE_CUDA;
}

static bool find_card(bench_run_t *run)
{
    for (int i = 0; i < heed_device_count(run->context); i++) {
        heed_device_info_t info = {.struct_size = sizeof(info)};
        if (heed_device_info(run->context, i, &info) != HEED_OK ||
            info.device.type != run->device.type || info.device.id != run->device.id)
            continue;
        run->card = info;
        return true;
    }
    const char *why = heed_device_missing(run->context, run->device.type);
    bench_complain("there is no cuda:%d: %s", (int)run->device.id,
                   why ? why : "`heed info` lists those that are there");
    return false;
}

bool bench_device_begin(bench_run_t *run)
{
    heed_context_t *context = run->context;

    if (bench_on_host(run))
        return true;
    if (!find_card(run))
        return false;
    size_t cache = run->card.cache_count ? (size_t)run->card.caches[0].bytes : 0;
    run->flush_bytes = 2 * cache > least_flush_bytes ? 2 * cache : least_flush_bytes;
    if (heed_stream_create(context, run->device, &run->stream) == HEED_OK &&
        heed_event_create(context, run->device, &run->start) == HEED_OK &&
        heed_event_create(context, run->device, &run->end) == HEED_OK &&
        heed_memory_alloc(context, run->device, run->flush_bytes, &run->flush) == HEED_OK)
        return true;
    bench_complain("%s", heed_last_error());
    return false;
}

void bench_device_end(bench_run_t *run)
{
    if (!run->context || bench_on_host(run))
        return;
    heed_event_destroy(run->start);
    heed_event_destroy(run->end);
    (void)heed_memory_free(run->context, run->device, run->flush);
    if (run->stream.native)
        (void)heed_stream_destroy(run->context, &run->stream);
}

double bench_device_sample(const bench_run_t *run, const heed_plan_t *plan, void *const *buffers,
                           int count, void *workspace, size_t workspace_bytes)
{
    double ns;

    if (heed_memory_set(run->context, run->flush, run->device, 0, run->flush_bytes, &run->stream) ==
            HEED_OK &&
        heed_event_record(run->start, &run->stream) == HEED_OK &&
        heed_plan_execute(plan, buffers, count, workspace, workspace_bytes, &run->stream) ==
            HEED_OK &&
        heed_event_record(run->end, &run->stream) == HEED_OK &&
        heed_event_elapsed(run->start, run->end, &ns) == HEED_OK)
        return ns;
    return NAN;
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* Bytes a second of the best of a few copies within the card, read and written ones counted. */
static double copy_rate(const bench_run_t *run)
{
    enum { COPIES = 10 };
    heed_context_t *context = run->context;
    size_t bytes = (size_t)run->card.memory_bytes / 8;
    void *from = NULL, *to = NULL;
    double best = 0, ns;

    bytes = bytes > most_copy_bytes ? most_copy_bytes : bytes;
    bool good = heed_memory_alloc(context, run->device, bytes, &from) == HEED_OK &&
                heed_memory_alloc(context, run->device, bytes, &to) == HEED_OK &&
                heed_memory_set(context, from, run->device, 1, bytes, NULL) == HEED_OK;
    for (int i = 0; i < COPIES && good; i++) {
        good = heed_event_record(run->start, &run->stream) == HEED_OK &&
               heed_memory_copy(context, to, run->device, from, run->device, bytes, &run->stream) ==
                   HEED_OK &&
               heed_event_record(run->end, &run->stream) == HEED_OK &&
               heed_event_elapsed(run->start, run->end, &ns) == HEED_OK;
        if (good && ns > 0)
            best = fmax(best, 2e9 * (double)bytes / ns);
    }
    (void)heed_memory_free(context, run->device, from);
    (void)heed_memory_free(context, run->device, to);
    if (!good)
        bench_complain("note: copies could not be timed: %s", heed_last_error());
    return best;
}

static double product_rate(const bench_run_t *run, heed_dtype_t dtype)
{
    double rate = 0;

    if (heed_device_matmul_rate(run->context, run->device, dtype, &rate) == HEED_OK)
        return rate;
    bench_progress("%s", heed_last_error());
    return 0;
}

bench_limits_t bench_device_limits(const bench_run_t *run)
{
    bench_limits_t limits = {0};

    limits.copy = copy_rate(run);
    limits.matmul_f32 = product_rate(run, HEED_F32);
    limits.matmul_bf16 = product_rate(run, HEED_BF16);
    limits.matmul_f16 = product_rate(run, HEED_F16);
    return limits;
}
