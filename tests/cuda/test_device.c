/* Whole plans through the real host side of the CUDA backend: the plugin that libheed loads here
 * has a fake runtime below it and a fake kernel above. Device memory cannot be touched from the
 * test. Nothing here says what a GPU does. */
#define _GNU_SOURCE
#include "expect.h"
#include "fake_runtime.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static fake_machine_t *machine; /* the plugin's */
static void (*reset_machine)(void);
static heed_context_t *context;

static const heed_device_t host = {HEED_DEVICE_CPU, 0};
static const heed_device_t card = {HEED_DEVICE_CUDA, 0}, other_card = {HEED_DEVICE_CUDA, 1};

static int begin(void **state)
{
    (void)state;
    reset_machine();
    machine->cards = 2;
    context = NULL;
    return heed_context_create(NULL, &context) != HEED_OK;
}

static int end(void **state)
{
    (void)state;
    machine->sticky = cudaSuccess;
    machine->failing = NULL;
    heed_context_destroy(context);
    if (machine->allocations)
        print_error("%d allocations were not given back\n", machine->allocations);
    return machine->allocations != 0;
}

static void expect(heed_status_t got, heed_status_t want, const char *part)
{
    if (got != want || (part && !strstr(heed_last_error(), part)))
        print_error("%s: '%s', not %s with '%s'\n", heed_status_name(got), heed_last_error(),
                    heed_status_name(want), part ? part : "");
    assert_int_equal(got, want);
    if (part)
        assert_non_null(strstr(heed_last_error(), part));
}

/* ---- the small problem on a card ------------------------------------------------------------- */

typedef struct placed {
    small_t small, reference;
    void *at[5];
    void *workspace;
    size_t workspace_bytes;
    heed_plan_t *plan;
} placed_t;

static heed_tensor_t *tensor(small_t *small, int i)
{
    heed_tensor_t *const tensors[] = {&small->desc.q, &small->desc.k, &small->desc.v,
                                      &small->desc.out, &small->desc.lse};
    return tensors[i];
}

static size_t bytes_of(const heed_tensor_t *t)
{
    size_t bytes = sizeof(float);
    for (int i = 0; i < t->ndim; i++)
        bytes *= (size_t)t->shape[i];
    return bytes;
}

/* Operands on the device, inputs copied there. */
static void place(placed_t *p, heed_device_t device)
{
    memset(p, 0, sizeof(*p));
    small_init(&p->small);
    small_init(&p->reference);
    for (int i = 0; i < 5; i++) {
        heed_tensor_t *t = tensor(&p->small, i);
        expect(heed_memory_alloc(context, device, bytes_of(t), &p->at[i]), HEED_OK, NULL);
        expect(heed_memory_copy(context, p->at[i], device, t->data, host, bytes_of(t), NULL),
               HEED_OK, NULL);
        t->data = p->at[i];
        t->device = device;
    }
}

static void plan(placed_t *p)
{
    size_t align;
    expect(heed_attention_plan(context, &p->small.desc, &p->plan), HEED_OK, NULL);
    expect(heed_plan_workspace(p->plan, &p->workspace_bytes, &align), HEED_OK, NULL);
    assert_true(p->workspace_bytes > 0);
    expect(heed_memory_alloc(context, card, p->workspace_bytes, &p->workspace), HEED_OK, NULL);
}

static heed_status_t execute(placed_t *p, const heed_stream_t *stream)
{
    return heed_plan_execute(p->plan, p->at, 5, p->workspace, p->workspace_bytes, stream);
}

/* Whether out and lse on the card are those that the CPU computes. */
static void expect_result(placed_t *p)
{
    static float got[4096];
    expect(heed_attention(context, &p->reference.desc), HEED_OK, NULL);
    for (int i = HEED_ATTENTION_OUT; i <= HEED_ATTENTION_LSE; i++) {
        size_t bytes = bytes_of(tensor(&p->small, i));
        const float *want = tensor(&p->reference, i)->data;
        assert_true(bytes <= sizeof(got));
        expect(heed_memory_copy(context, got, host, p->at[i], card, bytes, NULL), HEED_OK, NULL);
        for (size_t j = 0; j < bytes / sizeof(float); j++)
            if (got[j] != want[j] && !(fabsf(got[j] - want[j]) < 1e-5f))
                fail_msg("operand %d, %zu: %g, not %g", i, j, (double)got[j], (double)want[j]);
    }
}

static void unplace(placed_t *p, heed_device_t device)
{
    heed_plan_destroy(p->plan);
    heed_memory_free(context, card, p->workspace);
    for (int i = 0; i < 5; i++)
        heed_memory_free(context, device, p->at[i]);
}

/* Two tiles of keys, the second masked bit by bit; there is one tile of queries. */
static const heed_tile_list_t *some_tiles(void)
{
    static const int64_t row_start[] = {0, 1};
    static const int32_t column[] = {0}, mask[] = {0};
    static uint64_t bits[64];
    static heed_tile_list_t tiles = {sizeof(tiles), 64,     64,   1,    1, 1,
                                     row_start,     column, mask, bits, 1};
    for (int j = 0; j < 64; j++)
        bits[j] = UINT64_C(0xfffffffffffffff5) << (j % 3);
    return &tiles;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void round_trip(heed_device_t device)
{
    char text[] = "abcdefghijklmnop", back[sizeof(text)] = "";
    void *first, *second;
    heed_stream_t stream;
    expect(heed_memory_alloc(context, device, sizeof(text), &first), HEED_OK, NULL);
    expect(heed_memory_alloc(context, device, sizeof(text), &second), HEED_OK, NULL);
    assert_int_equal((uintptr_t)first % 256, 0);
    expect(heed_stream_create(context, device, &stream), HEED_OK, NULL);
    expect(heed_memory_copy(context, first, device, text, host, sizeof(text), &stream), HEED_OK,
           NULL);
    expect(heed_memory_set(context, first, device, 'x', 3, &stream), HEED_OK, NULL);
    expect(heed_memory_copy(context, second, device, first, device, sizeof(text), &stream), HEED_OK,
           NULL);
    expect(heed_memory_copy(context, back, host, second, device, sizeof(text), &stream), HEED_OK,
           NULL);
    expect(heed_stream_synchronize(context, &stream), HEED_OK, NULL);
    assert_string_equal(back, "xxxdefghijklmnop");
    expect(heed_stream_destroy(context, &stream), HEED_OK, NULL);
    memset(back, 0, sizeof(back));
    expect(heed_memory_copy(context, back, host, first, device, sizeof(text), NULL), HEED_OK, NULL);
    assert_string_equal(back, "xxxdefghijklmnop");
    heed_memory_free(context, device, first);
    heed_memory_free(context, device, second);
}

static void memory_goes_there_and_back(void **state)
{
    (void)state;
    round_trip(host);
    round_trip(card);
    round_trip(other_card);
    assert_int_equal(machine->current, 0);
}

static void events_tell_time(void **state)
{
    const heed_device_t devices[] = {host, card};
    (void)state;
    for (int i = 0; i < 2; i++) {
        heed_event_t *first, *last;
        double ns = -1;
        expect(heed_event_create(context, devices[i], &first), HEED_OK, NULL);
        expect(heed_event_create(context, devices[i], &last), HEED_OK, NULL);
        expect(heed_event_record(first, NULL), HEED_OK, NULL);
        expect(heed_event_elapsed(first, last, &ns), HEED_ERROR_VALUE, "last was not recorded");
        expect(heed_event_record(last, NULL), HEED_OK, NULL);
        expect(heed_event_elapsed(first, last, &ns), HEED_OK, NULL);
        assert_true(ns >= 0 && ns < 1e9);
        heed_event_destroy(first);
        heed_event_destroy(last);
    }
}

static void wrong_use_of_memory(void **state)
{
    char text[4] = "";
    void *memory;
    heed_event_t *event;
    heed_stream_t stream;
    (void)state;
    expect(heed_memory_alloc(context, (heed_device_t){HEED_DEVICE_CUDA, 7}, 1, &memory),
           HEED_ERROR_NO_DEVICE, "device is 2:7: there is none with that number");
    expect(heed_memory_alloc(NULL, card, 1, &memory), HEED_ERROR_NULL, "context");
    expect(heed_memory_alloc(context, card, (size_t)1 << 40, &memory), HEED_ERROR_OUT_OF_MEMORY,
           "cuda:0 is out of memory");
    assert_null(memory);
    expect(heed_memory_alloc(context, card, 4, &memory), HEED_OK, NULL);
    expect(heed_memory_copy(context, memory, card, NULL, host, 4, NULL), HEED_ERROR_NULL, "from");
    expect(heed_memory_set(context, memory, card, 256, 4, NULL), HEED_ERROR_VALUE, "value=256");
    expect(heed_stream_create(context, other_card, &stream), HEED_OK, NULL);
    expect(heed_memory_copy(context, memory, card, text, host, 4, &stream), HEED_ERROR_VALUE,
           "stream.device is 2:1, but the memory lies on 2:0");
    expect(heed_memory_set(context, text, host, 0, 4, &stream), HEED_ERROR_VALUE,
           "which has no streams");
    expect(heed_event_create(context, card, &event), HEED_OK, NULL);
    expect(heed_event_record(event, &stream), HEED_ERROR_VALUE, "stream.device is 2:1");
    heed_event_destroy(event);
    heed_stream_destroy(context, &stream);
    heed_memory_free(context, card, memory);
}

/* ---- plans ----------------------------------------------------------------------------------- */

static void a_plan_runs_on_the_card(void **state)
{
    placed_t p;
    heed_stream_t stream;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    (void)state;
    place(&p, card);
    plan(&p);
    expect(heed_plan_info(p.plan, &info), HEED_OK, NULL);
    assert_int_equal(info.device.type, HEED_DEVICE_CUDA);
    assert_int_equal(info.device_bytes, 0);
    expect(heed_stream_create(context, card, &stream), HEED_OK, NULL);
    int waits = machine->waits, allocations = machine->allocations;
    expect(execute(&p, &stream), HEED_OK, NULL);
    assert_int_equal(machine->waits, waits);
    assert_int_equal(machine->allocations, allocations);
    assert_int_equal(machine->launches, 1);
    expect(heed_stream_synchronize(context, &stream), HEED_OK, NULL);
    expect_result(&p);
    heed_stream_destroy(context, &stream);
    unplace(&p, card);
}

/* The kernel reads the plan's copy: the caller's list is spoiled after the plan was made. */
static void tile_lists_are_placed(void **state)
{
    placed_t p;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    heed_tile_list_t tiles = *some_tiles();
    int32_t column[] = {0};
    (void)state;
    place(&p, card);
    tiles.column = column;
    p.small.desc.tiles = &tiles;
    p.reference.desc.tiles = some_tiles();
    int before = machine->allocations;
    plan(&p);
    expect(heed_plan_info(p.plan, &info), HEED_OK, NULL);
    assert_true(info.device_bytes >= sizeof(tiles) + 64 * 8);
    assert_int_equal(machine->allocations, before + 2);
    column[0] = 1000;
    expect(execute(&p, NULL), HEED_OK, NULL);
    expect_result(&p);
    heed_plan_destroy(p.plan);
    p.plan = NULL;
    assert_int_equal(machine->allocations, before + 1);
    unplace(&p, card);
}

static void one_call_waits_for_nothing(void **state)
{
    placed_t p;
    (void)state;
    for (int pools = 0; pools < 2; pools++) {
        machine->no_pools = !pools;
        place(&p, card);
        int waits = machine->waits, allocations = machine->allocations;
        expect(heed_attention(context, &p.small.desc), HEED_OK, NULL);
        assert_int_equal(machine->waits, waits + !pools);
        assert_int_equal(machine->allocations, allocations);
        expect_result(&p);
        p.small.desc.tiles = p.reference.desc.tiles = some_tiles();
        expect(heed_attention(context, &p.small.desc), HEED_OK, NULL);
        assert_int_equal(machine->allocations, allocations);
        expect_result(&p);
        unplace(&p, card);
    }
}

/* Both as one call and as a plan: the workspace is device memory, whoever brings it. */
static void casts_have_a_workspace(void **state)
{
    enum { COUNT = 300 };
    _Alignas(64) float values[COUNT];
    uint16_t got[COUNT], want[COUNT];
    void *at[2], *room;
    size_t bytes, align;
    heed_plan_t *made;
    heed_cast_desc_t desc = heed_cast_desc();
    (void)state;
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)i * 1.2345f - 100;
    desc.src = HEED_TENSOR(values, HEED_F32, COUNT);
    desc.dst = HEED_TENSOR(want, HEED_BF16, COUNT);
    expect(heed_cast(context, &desc), HEED_OK, NULL);
    expect(heed_memory_alloc(context, card, sizeof(values), &at[0]), HEED_OK, NULL);
    expect(heed_memory_alloc(context, card, sizeof(got), &at[1]), HEED_OK, NULL);
    expect(heed_memory_copy(context, at[0], card, values, host, sizeof(values), NULL), HEED_OK,
           NULL);
    desc.src.data = at[0];
    desc.dst.data = at[1];
    desc.src.device = desc.dst.device = card;
    for (int planned = 0; planned < 2; planned++) {
        expect(heed_memory_set(context, at[1], card, 0, sizeof(got), NULL), HEED_OK, NULL);
        int launches = machine->launches, allocations = machine->allocations;
        if (planned) {
            expect(heed_cast_plan(context, &desc, &made), HEED_OK, NULL);
            expect(heed_plan_workspace(made, &bytes, &align), HEED_OK, NULL);
            assert_int_equal(bytes, sizeof(values));
            expect(heed_memory_alloc(context, card, bytes, &room), HEED_OK, NULL);
            expect(heed_plan_execute(made, at, 2, room, bytes, NULL), HEED_OK, NULL);
            expect(heed_plan_execute(made, at, 2, values, bytes, NULL), HEED_ERROR_VALUE,
                   "workspace at 0x");
            heed_memory_free(context, card, room);
            heed_plan_destroy(made);
        } else {
            expect(heed_cast(context, &desc), HEED_OK, NULL);
        }
        assert_int_equal(machine->launches, launches + 1);
        assert_int_equal(machine->allocations, allocations);
        expect(heed_memory_copy(context, got, host, at[1], card, sizeof(got), NULL), HEED_OK, NULL);
        assert_memory_equal(got, want, sizeof(want));
    }
    desc.dst.device = host;
    expect(heed_cast(context, &desc), HEED_ERROR_VALUE, "dst is on device 1:0, but src on 2:0");
    desc.dst.device = card;
    machine->failing = "cudaMallocAsync";
    machine->failure = cudaErrorMemoryAllocation;
    expect(heed_cast(context, &desc), HEED_ERROR_OUT_OF_MEMORY, "cuda:0 is out of memory");
    machine->failing = NULL;
    heed_memory_free(context, card, at[0]);
    heed_memory_free(context, card, at[1]);
}

/* ---- a caller's allocator -------------------------------------------------------------------- */

typedef struct hook {
    int allocs, frees, ordered;
    bool refuses;
} hook_t;

static void *hook_alloc(void *user, heed_device_t device, size_t bytes, size_t align,
                        const heed_stream_t *stream)
{
    hook_t *hook = user;
    void *memory = NULL;
    assert_int_equal(device.type, HEED_DEVICE_CUDA);
    assert_int_equal(align, 256);
    hook->ordered += stream != NULL;
    if (hook->refuses || heed_memory_alloc(context, device, bytes, &memory) != HEED_OK)
        return NULL;
    hook->allocs++;
    return memory;
}

static void hook_free(void *user, heed_device_t device, void *memory, const heed_stream_t *stream)
{
    hook_t *hook = user;
    hook->ordered -= stream != NULL;
    hook->frees++;
    heed_memory_free(context, device, memory);
}

static void the_callers_allocator_is_used(void **state)
{
    placed_t p;
    hook_t hook = {0};
    heed_context_t *own;
    heed_context_config_t config = heed_context_config();
    (void)state;
    config.device_allocator.alloc = hook_alloc;
    expect(heed_context_create(&config, &own), HEED_ERROR_VALUE, "config.device_allocator.free");
    config.device_allocator.free = hook_free;
    config.device_allocator.user = &hook;
    expect(heed_context_create(&config, &own), HEED_OK, NULL);
    place(&p, card);
    expect(heed_attention(own, &p.small.desc), HEED_OK, NULL);
    assert_int_equal(hook.allocs, 1);
    p.small.desc.tiles = some_tiles();
    expect(heed_attention(own, &p.small.desc), HEED_OK, NULL);
    assert_int_equal(hook.allocs, 3);
    assert_int_equal(hook.frees, 3);
    assert_int_equal(hook.ordered, 0);
    hook.refuses = true;
    expect(heed_attention(own, &p.small.desc), HEED_ERROR_OUT_OF_MEMORY, "on device 2:0");
    unplace(&p, card);
    heed_context_destroy(own);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void wrong_addresses(void **state)
{
    placed_t p;
    void *elsewhere, *at;
    static _Alignas(64) char room[4096];
    (void)state;
    place(&p, card);
    plan(&p);
    at = p.at[1];
    p.at[1] = p.reference.k;
    expect(execute(&p, NULL), HEED_ERROR_VALUE, "is host memory, but cuda:0 is to use it");
    expect(execute(&p, NULL), HEED_ERROR_VALUE, "k at 0x");
    expect(heed_memory_alloc(context, other_card, 4096, &elsewhere), HEED_OK, NULL);
    p.at[1] = elsewhere;
    expect(execute(&p, NULL), HEED_ERROR_VALUE, "lies on cuda:1, but cuda:0 is to use it");
    p.at[1] = (char *)at + 2;
    expect(execute(&p, NULL), HEED_ERROR_ALIGNMENT, "k at 0x");
    p.at[1] = at;
    void *workspace = p.workspace;
    p.workspace = room;
    expect(execute(&p, NULL), HEED_ERROR_VALUE, "workspace at 0x");
    p.workspace = workspace;
    assert_int_equal(machine->launches, 0);
    expect(execute(&p, NULL), HEED_OK, NULL);
    heed_memory_free(context, other_card, elsewhere);
    unplace(&p, card);
}

static void mixed_devices(void **state)
{
    placed_t p;
    (void)state;
    place(&p, card);
    p.small.desc.v.device = other_card;
    expect(heed_attention_plan(context, &p.small.desc, &p.plan), HEED_ERROR_VALUE,
           "v is on device 2:1, but q on 2:0");
    p.small.desc.v.device = host;
    expect(heed_attention_plan(context, &p.small.desc, &p.plan), HEED_ERROR_VALUE,
           "v is on device 1:0, but q on 2:0");
    unplace(&p, card);
}

static void out_of_memory(void **state)
{
    static const char *const calls[] = {"cudaMallocAsync", "cudaMalloc"};
    placed_t p;
    (void)state;
    place(&p, card);
    p.small.desc.tiles = some_tiles();
    machine->failure = cudaErrorMemoryAllocation;
    for (int i = 0; i < 2; i++) {
        machine->failing = calls[i];
        expect(heed_attention(context, &p.small.desc), HEED_ERROR_OUT_OF_MEMORY,
               "cuda:0 is out of memory");
    }
    machine->failing = NULL;
    expect(heed_attention(context, &p.small.desc), HEED_OK, NULL);
    unplace(&p, card);
}

static void failures_have_sentences(void **state)
{
    static const char *const calls[] = {"cudaLaunchKernel", "cudaPointerGetAttributes",
                                        "cudaStreamIsCapturing"};
    placed_t p;
    (void)state;
    place(&p, card);
    plan(&p);
    machine->failure = cudaErrorInvalidConfiguration;
    for (int i = 0; i < 3; i++) {
        machine->failing = calls[i];
        expect(execute(&p, NULL), HEED_ERROR_DEVICE, "failed on cuda:0: words of the runtime");
        machine->failing = NULL;
        expect(execute(&p, NULL), HEED_OK, NULL);
    }
    machine->failing = "cudaMemcpyAsync";
    p.small.desc.tiles = some_tiles();
    heed_plan_t *none;
    expect(heed_attention_plan(context, &p.small.desc, &none), HEED_ERROR_DEVICE, "a copy failed");
    assert_null(none);
    machine->failing = NULL;
    unplace(&p, card);
}

/* After a kernel has failed each call says so, and the CPU goes on working. */
static void a_card_that_has_failed(void **state)
{
    static const char sentence[] = "cuda:0 has failed, and this process can use it no more";
    placed_t p;
    void *memory;
    (void)state;
    place(&p, card);
    plan(&p);
    machine->sticky = cudaErrorIllegalAddress;
    expect(execute(&p, NULL), HEED_ERROR_DEVICE, sentence);
    expect(execute(&p, NULL), HEED_ERROR_DEVICE, sentence);
    expect(heed_memory_alloc(context, card, 8, &memory), HEED_ERROR_DEVICE, sentence);
    expect(heed_stream_synchronize(context, &(heed_stream_t){card, NULL}), HEED_ERROR_DEVICE,
           sentence);
    expect(heed_attention(context, &p.small.desc), HEED_ERROR_DEVICE, sentence);
    expect(heed_attention(context, &p.reference.desc), HEED_OK, NULL);
    machine->sticky = cudaSuccess;
    unplace(&p, card);
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static void execution_can_be_captured(void **state)
{
    placed_t p;
    heed_stream_t stream;
    (void)state;
    place(&p, card);
    p.small.desc.tiles = p.reference.desc.tiles = some_tiles();
    plan(&p);
    expect(heed_stream_create(context, card, &stream), HEED_OK, NULL);
    machine->captured = stream.native;
    expect(execute(&p, &stream), HEED_OK, NULL);
    if (machine->not_captured)
        fail_msg("%s is called while the stream is captured", machine->not_captured);
    expect(execute(&p, NULL), HEED_ERROR_VALUE, "default one, which cannot be used while another");
    machine->captured = NULL;
    expect_result(&p);
    heed_stream_destroy(context, &stream);
    unplace(&p, card);
}

/* ---- host tensors where a card was asked for ------------------------------------------------- */

static char line[1024];
static int lines;

static void keep_line(void *user, heed_log_level_t level, const char *text)
{
    (void)user;
    lines += level == HEED_LOG_WARN;
    snprintf(line, sizeof(line), "%s", text);
}

static heed_status_t plan_where(const char *device, heed_fallback_t fallback,
                                const heed_attention_desc_t *desc, heed_plan_info_t *info)
{
    heed_context_t *own;
    heed_plan_t *made;
    heed_context_config_t config = heed_context_config();
    config.device = device;
    config.fallback = fallback;
    config.log = keep_line;
    *info = (heed_plan_info_t){.struct_size = sizeof(*info)};
    lines = 0;
    expect(heed_context_create(&config, &own), HEED_OK, NULL);
    heed_status_t status = heed_attention_plan(own, desc, &made);
    if (status == HEED_OK)
        expect(heed_plan_info(made, info), HEED_OK, NULL);
    heed_plan_destroy(made);
    heed_context_destroy(own);
    return status;
}

static void another_device_is_never_silent(void **state)
{
    placed_t p;
    heed_plan_info_t info;
    (void)state;
    place(&p, card);
    const heed_attention_desc_t *there = &p.small.desc, *here = &p.reference.desc;
    expect(plan_where("cuda", HEED_FALLBACK_DENY, here, &info), HEED_ERROR_FALLBACK,
           "the tensors lie elsewhere");
    expect(plan_where("cuda", HEED_FALLBACK_WARN, here, &info), HEED_OK, NULL);
    assert_int_equal(info.fallback, 1);
    assert_string_equal(info.fallback_why, "the tensors lie elsewhere");
    assert_int_equal(lines, 1);
    assert_non_null(strstr(line, "heed v1 fallback op=attention from=cuda to=cpu:"));
    expect(plan_where("cuda", HEED_FALLBACK_ALLOW, here, &info), HEED_OK, NULL);
    assert_int_equal(info.fallback, 1);
    assert_int_equal(lines, 0);
    const char *const fitting[] = {"auto", "cuda", "cuda:0"};
    for (int i = 0; i < 3; i++) {
        expect(plan_where(fitting[i], HEED_FALLBACK_DENY, there, &info), HEED_OK, NULL);
        assert_int_equal(info.fallback, 0);
    }
    const char *const others[] = {"cpu", "cuda:1"};
    for (int i = 0; i < 2; i++) {
        expect(plan_where(others[i], HEED_FALLBACK_DENY, there, &info), HEED_ERROR_FALLBACK,
               "the tensors lie elsewhere");
        expect(plan_where(others[i], HEED_FALLBACK_WARN, there, &info), HEED_OK, NULL);
        assert_int_equal(info.fallback, 1);
        assert_int_equal(lines, 1);
    }
    unplace(&p, card);
}

static void a_card_that_is_not_there(void **state)
{
    placed_t p;
    heed_context_t *own;
    (void)state;
    place(&p, card);
    machine->cards = 1;
    machine->major[0] = 7;
    expect(heed_context_create(NULL, &own), HEED_OK, NULL);
    expect(heed_attention_plan(own, &p.small.desc, &p.plan), HEED_ERROR_NO_DEVICE,
           "Card 0, has compute capability 7.0: Heed needs 8.0");
    heed_context_destroy(own);
    machine->count_error = cudaErrorInsufficientDriver;
    machine->driver = 11080;
    expect(heed_context_create(NULL, &own), HEED_OK, NULL);
    expect(heed_attention_plan(own, &p.small.desc, &p.plan), HEED_ERROR_NO_DEVICE,
           "the NVIDIA driver is too old: it is for CUDA 11.8");
    heed_context_destroy(own);
    unplace(&p, card);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(memory_goes_there_and_back, begin, end),
        cmocka_unit_test_setup_teardown(events_tell_time, begin, end),
        cmocka_unit_test_setup_teardown(wrong_use_of_memory, begin, end),
        cmocka_unit_test_setup_teardown(a_plan_runs_on_the_card, begin, end),
        cmocka_unit_test_setup_teardown(tile_lists_are_placed, begin, end),
        cmocka_unit_test_setup_teardown(one_call_waits_for_nothing, begin, end),
        cmocka_unit_test_setup_teardown(casts_have_a_workspace, begin, end),
        cmocka_unit_test_setup_teardown(the_callers_allocator_is_used, begin, end),
        cmocka_unit_test_setup_teardown(wrong_addresses, begin, end),
        cmocka_unit_test_setup_teardown(mixed_devices, begin, end),
        cmocka_unit_test_setup_teardown(out_of_memory, begin, end),
        cmocka_unit_test_setup_teardown(failures_have_sentences, begin, end),
        cmocka_unit_test_setup_teardown(a_card_that_has_failed, begin, end),
        cmocka_unit_test_setup_teardown(execution_can_be_captured, begin, end),
        cmocka_unit_test_setup_teardown(another_device_is_never_silent, begin, end),
        cmocka_unit_test_setup_teardown(a_card_that_is_not_there, begin, end),
    };
    setenv("HEED_PLUGIN_PATH", HEED_FAKE_CUDA, 1);
    void *plugin = dlopen(HEED_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    machine = dlsym(plugin, "fake");
    *(void **)&reset_machine = dlsym(plugin, "fake_reset");
    return machine && reset_machine ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
