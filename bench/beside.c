/* heed bench sparse, heed bench ring: attention by other means beside plain attention, in turns on
 * the same operands. sparse: under a tile list, and the making of the list. ring: in a stream of
 * chunks, and around rings of threads. */
#define _GNU_SOURCE

#include "beside.h"

#include "kit.h"

#include <heed/ring.h>
#include <heed/tiles.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RACERS = 4, MOST_SAMPLES = 200 };

static const double sample_ns = 1e6;
static const size_t chunk_bytes = 16 << 20; /* as heed run ring reads them */

typedef struct racer {
    const struct field *field;
    heed_status_t (*call)(const struct racer *racer);
    char name[BENCH_NAME];
    heed_problem_t *problem;
    heed_plan_t *plan; /* NULL: not a plan's */
    heed_plan_info_t info;
    void *workspace;
    size_t workspace_bytes;
    int ranks;
    int64_t repeats;
    double *samples;
    int sample_count;
    double max_err; /* to the first, NaN: not known */
} racer_t;

typedef struct field {
    bench_run_t *run;
    const bench_problem_t *item;
    heed_context_t *context;
    kit_buffers_t buffers;
    racer_t racers[MOST_RACERS];
    int count;
    heed_tiles_grid_t grid; /* of the list */
    char text[BENCH_TEXT];
    int64_t chunk; /* of the stream */
    double *first; /* out of the first racer, and */
    double first_ns;
} field_t;

/* ---- calls ----------------------------------------------------------------------------------- */

static heed_status_t call_plan(const racer_t *racer)
{
    const kit_buffers_t *buffers = &racer->field->buffers;
    return heed_plan_execute(racer->plan, buffers->at, buffers->count, racer->workspace,
                             racer->workspace_bytes, NULL);
}

static heed_status_t call_list(const racer_t *racer)
{
    heed_tile_list_t *tiles;
    heed_status_t status = heed_tiles_from_text(racer->field->context, &racer->field->grid,
                                                racer->field->text, &tiles);
    heed_tiles_free(racer->field->context, tiles);
    return status;
}

/* The operand as the problem describes it, with its data. */
static heed_tensor_t operand_of(const racer_t *racer, int operand)
{
    heed_tensor_t tensor = *heed_problem_tensor(racer->problem, operand);
    tensor.data = racer->field->buffers.at[operand];
    return tensor;
}

/* Keys first .. first+count-1 of k or v; *shape is theirs. */
static heed_tensor_t chunk_of(const racer_t *racer, int operand, int64_t first, int64_t count,
                              int64_t shape[4])
{
    heed_tensor_t tensor = operand_of(racer, operand);
    memcpy(shape, tensor.shape, 4 * sizeof(*shape));
    shape[1] = count;
    tensor.shape = shape;
    tensor.data =
        (char *)tensor.data + (size_t)(first * tensor.strides[1]) * heed_dtype_size(tensor.dtype);
    return tensor;
}

static heed_status_t begin_stream(const racer_t *racer, heed_attention_stream_t **stream)
{
    heed_stream_desc_t desc = heed_stream_desc();
    void *at;
    heed_status_t status = heed_problem_desc(racer->problem, &at);
    const heed_attention_desc_t *attention = at;
    if (status != HEED_OK)
        return status;
    desc.causal = attention->causal;
    desc.scale = attention->scale;
    desc.window_left = attention->window_left;
    desc.window_right = attention->window_right;
    desc.keys = attention->k.shape[1];
    desc.q = operand_of(racer, HEED_ATTENTION_Q);
    desc.out = operand_of(racer, HEED_ATTENTION_OUT);
    return heed_stream_begin(racer->field->context, &desc, stream);
}

static heed_status_t call_stream(const racer_t *racer)
{
    heed_attention_stream_t *stream;
    int64_t keys = heed_problem_tensor(racer->problem, HEED_ATTENTION_K)->shape[1], shape[2][4];
    heed_status_t status = begin_stream(racer, &stream);
    if (status != HEED_OK)
        return status;
    for (int64_t at = 0; at < keys && status == HEED_OK; at += racer->field->chunk) {
        int64_t count = at + racer->field->chunk < keys ? racer->field->chunk : keys - at;
        heed_tensor_t k = chunk_of(racer, HEED_ATTENTION_K, at, count, shape[0]);
        heed_tensor_t v = chunk_of(racer, HEED_ATTENTION_V, at, count, shape[1]);
        status = heed_stream_push(stream, &k, &v);
    }
    if (status == HEED_OK)
        return heed_stream_end(stream);
    heed_stream_cancel(stream);
    return status;
}

static heed_status_t call_ring(const racer_t *racer)
{
    heed_ring_desc_t desc = heed_ring_desc();
    void *at;
    heed_status_t status = heed_problem_desc(racer->problem, &at);
    const heed_attention_desc_t *attention = at;
    if (status != HEED_OK)
        return status;
    desc.layout = HEED_RING_ZIGZAG;
    desc.causal = attention->causal;
    desc.scale = attention->scale;
    desc.window_left = attention->window_left;
    desc.window_right = attention->window_right;
    desc.tokens = attention->k.shape[1];
    desc.whole = 1;
    desc.q = operand_of(racer, HEED_ATTENTION_Q);
    desc.k = operand_of(racer, HEED_ATTENTION_K);
    desc.v = operand_of(racer, HEED_ATTENTION_V);
    desc.out = operand_of(racer, HEED_ATTENTION_OUT);
    return heed_ring_virtual(racer->field->context, racer->ranks, &desc);
}

/* ---- who takes part -------------------------------------------------------------------------- */

static bool fail(field_t *field, const char *name)
{
    bench_miss(field->run, field->item->text, name, true, heed_last_error());
    return false;
}

static racer_t *add_racer(field_t *field, const char *name, heed_status_t (*call)(const racer_t *))
{
    racer_t *racer = &field->racers[field->count++];
    *racer = (racer_t){.field = field, .call = call, .max_err = NAN};
    snprintf(racer->name, sizeof(racer->name), "%s", name);
    racer->info.struct_size = sizeof(racer->info);
    return racer;
}

/* A plan of the problem; without its tile list where `dense`. */
static bool add_plan(field_t *field, bool dense)
{
    racer_t *racer = add_racer(field, "", call_plan);
    size_t alignment;
    void *desc;
    if (heed_problem_parse(field->item->text, &racer->problem) != HEED_OK ||
        (dense && heed_problem_set(racer->problem, "tiles", "") != HEED_OK) ||
        heed_problem_desc(racer->problem, &desc) != HEED_OK ||
        heed_plan_create(field->context, "attention", desc, &racer->plan) != HEED_OK ||
        heed_plan_info(racer->plan, &racer->info) != HEED_OK ||
        heed_plan_workspace(racer->plan, &racer->workspace_bytes, &alignment) != HEED_OK) {
        bench_miss(field->run, field->item->text, dense ? "dense" : "sparse", false,
                   heed_last_error());
        return false;
    }
    racer->workspace = aligned_alloc(64, (racer->workspace_bytes / 64 + 1) * 64);
    memcpy(racer->name, racer->info.impl, sizeof(racer->name));
    return racer->workspace != NULL;
}

/* Whatever is not a plan does the first one's work. */
static racer_t *add_schedule(field_t *field, const char *name,
                             heed_status_t (*call)(const racer_t *))
{
    racer_t *racer = add_racer(field, name, call);
    racer->info = field->racers[0].info;
    racer->info.estimate_ns = NAN;
    return heed_problem_parse(field->item->text, &racer->problem) == HEED_OK ? racer : NULL;
}

static bool enter_sparse(field_t *field)
{
    const char *word = strstr(field->item->text, " tiles=text"), *colon;
    if (!word || !(colon = strchr(word, ':'))) {
        bench_miss(field->run, field->item->text, "sparse", false, "has no tiles=text:VISIBILITY");
        return false;
    }
    if (!add_plan(field, true) || !add_plan(field, false))
        return false;
    heed_problem_t *problem = field->racers[0].problem;
    field->grid = heed_tiles_grid(heed_problem_tensor(problem, HEED_ATTENTION_Q)->shape[1],
                                  heed_problem_tensor(problem, HEED_ATTENTION_K)->shape[1]);
    field->grid.tile_q = field->grid.tile_k = strncmp(word + 7, "text128", 7) == 0 ? 128 : 64;
    snprintf(field->text, sizeof(field->text), "%.*s", (int)strcspn(colon + 1, " "), colon + 1);
    add_racer(field, "list", call_list);
    return true;
}

static bool enter_ring(field_t *field)
{
    heed_attention_stream_t *stream;
    char name[BENCH_NAME];
    if (!add_plan(field, true))
        return false;
    racer_t *racer = add_schedule(field, "stream", call_stream);
    if (!racer || begin_stream(racer, &stream) != HEED_OK)
        return fail(field, "stream");
    heed_tensor_t k = operand_of(racer, HEED_ATTENTION_K), v = operand_of(racer, HEED_ATTENTION_V);
    heed_status_t status = heed_stream_chunk(stream, &k, &v, chunk_bytes, &field->chunk);
    heed_stream_cancel(stream);
    if (status != HEED_OK)
        return fail(field, "stream");
    snprintf(racer->name, sizeof(racer->name), "stream of %lld", (long long)field->chunk);
    bool square = k.shape[1] == heed_problem_tensor(racer->problem, HEED_ATTENTION_Q)->shape[1];
    for (int ranks = 2; square && ranks <= 4; ranks += 2) {
        snprintf(name, sizeof(name), "ring of %d, zigzag", ranks);
        racer = add_schedule(field, name, call_ring);
        if (!racer)
            return fail(field, name);
        racer->ranks = ranks;
    }
    return true;
}

/* ---- the race -------------------------------------------------------------------------------- */

/* The largest difference of out from the first racer's; NaN where something was not written. */
static void compare(field_t *field, racer_t *racer)
{
    const heed_tensor_t *out = heed_problem_tensor(field->racers[0].problem, HEED_ATTENTION_OUT);
    double *got = kit_gather(out, field->buffers.data[HEED_ATTENTION_OUT]);
    int64_t count = kit_elements(out);
    if (racer == field->racers) {
        field->first = got;
        return;
    }
    racer->max_err = got && field->first ? 0 : NAN;
    for (int64_t i = 0; got && field->first && i < count; i++) {
        double error = fabs(got[i] - field->first[i]);
        if (!(error <= racer->max_err))
            racer->max_err = error;
    }
    free(got);
}

static bool sample(field_t *field, racer_t *racer, double *ns)
{
    double start = bench_now_ns();
    for (int64_t i = 0; i < racer->repeats; i++)
        if (racer->call(racer) != HEED_OK)
            return fail(field, racer->name);
    *ns = (bench_now_ns() - start) / (double)racer->repeats;
    return true;
}

static bool warm_up(field_t *field, bool same)
{
    double ns;
    for (int i = 0; i < field->count; i++) {
        racer_t *racer = &field->racers[i];
        racer->repeats = 1;
        bench_progress("%s %s %s: warming up", field->run->place, racer->name, field->item->text);
        if (!sample(field, racer, &ns))
            return false;
        if (same && field->run->options->check)
            compare(field, racer);
        racer->repeats = (int64_t)ceil(sample_ns / fmax(ns, 1));
        racer->samples = bench_realloc(NULL, MOST_SAMPLES * sizeof(*racer->samples));
    }
    return true;
}

static bool race(field_t *field)
{
    const bench_options_t *options = field->run->options;
    double end = bench_now_ns() + 1e9 * options->seconds;
    bench_progress("%s %s: timing", field->run->place, field->item->text);
    for (int turn = 0; turn < MOST_SAMPLES; turn++) {
        if (turn >= options->samples && bench_now_ns() >= end)
            break;
        for (int i = 0; i < field->count; i++) {
            racer_t *racer = &field->racers[i];
            if (!sample(field, racer, &racer->samples[turn]))
                return false;
            racer->sample_count = turn + 1;
        }
    }
    return true;
}

/* ---- results --------------------------------------------------------------------------------- */

static void add_result(field_t *field, racer_t *racer, const char *beside)
{
    bench_run_t *run = field->run;
    char text[BENCH_TEXT];
    heed_problem_text(racer->problem, text, sizeof(text));
    run->results =
        bench_realloc(run->results, (size_t)(run->result_count + 1) * sizeof(*run->results));
    bench_result_t *result = &run->results[run->result_count++];
    *result = (bench_result_t){
        .prob = bench_strdup(text),
        .label = bench_strdup(field->item->label),
        .device = "cpu",
        .threads = racer->info.threads,
        .samples = racer->samples,
        .sample_count = racer->sample_count,
        .stats = bench_stats(racer->samples, racer->sample_count),
        .flops = racer->info.flops,
        .bytes = racer->info.bytes,
        .estimate_ns = racer->info.estimate_ns,
        .max_err = racer->max_err,
        .fraction_of_limit = NAN,
        .beside = beside,
        .beside_predicted = racer->info.estimate_ns / field->racers[0].info.estimate_ns,
        .density = racer->info.flops / field->racers[0].info.flops,
        .list_ns = NAN,
    };
    result->of_beside = result->stats.median / field->first_ns;
    snprintf(result->impl, sizeof(result->impl), "%s", racer->name);
    snprintf(result->dtype, sizeof(result->dtype), "%s",
             heed_dtype_name(heed_problem_tensor(racer->problem, 0)->dtype));
    racer->samples = NULL;
}

static void add_results(field_t *field, bool sparse)
{
    const racer_t *first = &field->racers[0], *list = &field->racers[2];
    field->first_ns = bench_stats(first->samples, first->sample_count).median;
    for (int i = 0; i < field->count; i++)
        if (!sparse || &field->racers[i] != list)
            add_result(field, &field->racers[i], i == 0 ? NULL : sparse ? "dense" : "single pass");
    if (sparse)
        field->run->results[field->run->result_count - 1].list_ns =
            bench_stats(list->samples, list->sample_count).median;
}

static void leave(field_t *field)
{
    for (int i = 0; i < field->count; i++) {
        heed_plan_destroy(field->racers[i].plan);
        heed_problem_destroy(field->racers[i].problem);
        free(field->racers[i].workspace);
        free(field->racers[i].samples);
    }
    kit_buffers_free(&field->buffers);
    free(field->first);
}

static bool fill(field_t *field)
{
    kit_random_t random = {.state = 1};
    heed_problem_t *problem = NULL;
    void *desc;
    bool good = heed_problem_parse(field->item->text, &problem) == HEED_OK &&
                heed_problem_desc(problem, &desc) == HEED_OK;
    if (!good)
        fail(field, "");
    else if ((good = kit_buffers_new(problem, 0, &field->buffers)))
        kit_op_find("attention")->fill(&random, KIT_VALUES_PLAIN, problem, &field->buffers);
    else
        bench_miss(field->run, field->item->text, "", true, "no memory for the tensors");
    heed_problem_destroy(problem);
    return good;
}

/* The tile list is checked against the reference as every problem is. */
static bool check(field_t *field)
{
    char why[BENCH_TEXT * 2], *checked = NULL;
    racer_t *racer = &field->racers[1];
    heed_context_t *context;
    if (!field->run->options->check)
        return true;
    bench_progress("%s %s: checking", field->run->place, field->item->text);
    if (bench_context(field->run->options, racer->info.impl, &context) != HEED_OK)
        return fail(field, racer->name);
    bool good = bench_check(context, field->run->device, field->item->text, &checked,
                            &racer->max_err, why, sizeof(why));
    if (!good)
        bench_miss(field->run, field->item->text, racer->name, true, why);
    heed_context_destroy(context);
    free(checked);
    return good;
}

void bench_beside(bench_run_t *run, const bench_problem_t *item)
{
    bool sparse = !strcmp(run->options->beside, "sparse");
    for (int c = 0; c < run->contender_count; c++) {
        field_t field = {.run = run, .item = item, .context = run->contenders[c].context};
        if (fill(&field) && (sparse ? enter_sparse(&field) && check(&field) : enter_ring(&field)) &&
            warm_up(&field, !sparse) && race(&field))
            add_results(&field, sparse);
        leave(&field);
    }
}

/* ---- the report ------------------------------------------------------------------------------ */

void bench_beside_report(const bench_run_t *run, FILE *to)
{
    char problem[BENCH_TEXT];
    bool any = false;
    for (int r = 0; r < run->result_count; r++) {
        const bench_result_t *result = &run->results[r];
        if (!result->beside)
            continue;
        if (!any)
            fprintf(to,
                    "\n| problem | implementation | beside | density | of its time | speed-up | "
                    "predicted | list, of the attention |\n|---|---|---|---:|---:|---:|---:|---:|"
                    "\n");
        any = true;
        bench_short_problem(result->prob, problem, sizeof(problem));
        fprintf(to, "| %s | %s | %s | %.4f | %.4f | %.2f | ", problem, result->impl, result->beside,
                result->density, result->of_beside, 1 / result->of_beside);
        if (isnan(result->beside_predicted))
            fprintf(to, "- | ");
        else
            fprintf(to, "%.2f | ", 1 / result->beside_predicted);
        if (isnan(result->list_ns))
            fprintf(to, "- |\n");
        else
            fprintf(to, "%.2f %% |\n", 100 * result->list_ns / result->stats.median);
    }
}
