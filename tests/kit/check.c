#include "kit.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One of the two that run a problem. The plan's problem is kept apart from the one that is filled
 * and judged, for a plan reads its descriptor's tile list until it is destroyed. */
typedef struct side {
    heed_context_t *context;
    heed_device_t device;
    heed_problem_t *planned, *problem;
    heed_plan_t *plan;
    kit_buffers_t buffers;
} side_t;

__attribute__((format(printf, 2, 3))) static kit_outcome_t failed(kit_verdict_t *verdict,
                                                                  const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(verdict->sentence, sizeof(verdict->sentence), format, args);
    va_end(args);
    verdict->max_err = verdict->worst_ratio = INFINITY;
    return KIT_FAILED;
}

/* ---- making a side --------------------------------------------------------------------------- */

static bool set_words(heed_problem_t *problem, const char *words)
{
    char word[64];
    while (*words) {
        size_t length = strcspn(words, " ");
        const char *equals = memchr(words, '=', length);
        if (!equals || length >= sizeof(word))
            return false;
        memcpy(word, words, length);
        word[length] = 0;
        word[equals - words] = 0;
        if (heed_problem_set(problem, word, word + (equals - words) + 1) != HEED_OK)
            return false;
        words += length + (words[length] == ' ');
    }
    return true;
}

static bool parse(const char *text, const char *words, side_t *side)
{
    return heed_problem_parse(text, &side->planned) == HEED_OK &&
           heed_problem_parse(text, &side->problem) == HEED_OK && set_words(side->planned, words) &&
           set_words(side->problem, words);
}

static heed_status_t make_plan(side_t *side)
{
    void *desc;
    heed_status_t status = kit_problem_desc(side->planned, side->device, &desc);
    if (status != HEED_OK)
        return status;
    return heed_plan_create(side->context, heed_problem_op(side->planned), desc, &side->plan);
}

static size_t largest_element(heed_problem_t *problem)
{
    const heed_tensor_t *tensor;
    size_t largest = 1;
    void *desc;
    if (heed_problem_desc(problem, &desc) != HEED_OK)
        return largest;
    for (int i = 0; (tensor = heed_problem_tensor(problem, i)); i++)
        if (tensor->ndim > 0 && heed_dtype_size(tensor->dtype) > largest)
            largest = heed_dtype_size(tensor->dtype);
    return largest;
}

/* In half of the problems no multiple of a vector, so that a kernel that counts on more than an
 * element's alignment is found, or says so with HEED_ERROR_ALIGNMENT: then it is filled again,
 * aligned. In the other half aligned, for a kernel may leave the former to another one. */
static bool fill(const kit_op_t *op, uint64_t seed, kit_values_t values, bool aligned, side_t *side)
{
    enum { GUARD = 256, LINE = 64 };
    kit_random_t random = {seed};
    /* Every other time operands are aligned for vectors of 16 bytes all the same. */
    size_t step = aligned ? LINE : kit_random_int(&random, 0, 1) ? 4 : 16;
    size_t guard = GUARD + step * (size_t)kit_random_int(&random, 0, 15);
    guard -= guard % largest_element(side->problem);
    kit_buffers_free(&side->buffers);
    if (!kit_buffers_new(side->problem, guard, &side->buffers))
        return false;
    op->fill(&random, values, side->problem, &side->buffers);
    return kit_buffers_place(&side->buffers, side->context, side->device) == HEED_OK;
}

static void end_side(side_t *side)
{
    heed_plan_destroy(side->plan);
    heed_problem_destroy(side->planned);
    heed_problem_destroy(side->problem);
    kit_buffers_free(&side->buffers);
}

/* ---- running --------------------------------------------------------------------------------- */

/* A sum over all inputs that any changed bit changes. */
static uint64_t sum_of_inputs(const kit_buffers_t *buffers)
{
    uint64_t sum = 0;
    for (int i = 0; i < buffers->count; i++) {
        const unsigned char *bytes = buffers->data[i];
        if (!bytes || buffers->before[i])
            continue;
        for (size_t at = 0; at < buffers->bytes[i]; at += sizeof(uint64_t)) {
            uint64_t word = 0;
            size_t left = buffers->bytes[i] - at;
            memcpy(&word, bytes + at, left < sizeof(word) ? left : sizeof(word));
            sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
            sum ^= sum >> 32;
        }
    }
    return sum;
}

static bool is_filled(const unsigned char *from, size_t bytes, int with)
{
    for (size_t i = 0; i < bytes; i++)
        if (from[i] != with)
            return false;
    return true;
}

/* Operands and workspace go to the device and come back. */
static heed_status_t execute_there(const side_t *side, const kit_block_t *block, size_t pad,
                                   size_t bytes)
{
    void *workspace = bytes ? (char *)block->there + pad : NULL;
    heed_status_t status = kit_block_upload(block);
    if (status == HEED_OK)
        status = kit_buffers_upload(&side->buffers);
    if (status == HEED_OK)
        status = heed_plan_execute(side->plan, side->buffers.at, side->buffers.count, workspace,
                                   bytes, NULL);
    if (status == HEED_OK)
        status = kit_buffers_download(&side->buffers);
    return status == HEED_OK ? kit_block_download(block) : status;
}

/* Executes with a workspace of exactly the size that was asked for, full of `junk`, between two
 * canaries. */
static kit_outcome_t execute(const side_t *side, int junk, kit_verdict_t *verdict)
{
    enum { CANARY = 0x5a, PAD = 4096 };
    size_t bytes, align;
    kit_block_t there = {0};
    if (heed_plan_workspace(side->plan, &bytes, &align) != HEED_OK)
        return failed(verdict, "workspace: %s", heed_last_error());
    if (align == 0 || align & (align - 1) || align > PAD)
        return failed(verdict, "workspace: alignment %zu", align);
    size_t whole = (bytes + 2 * PAD + align - 1) / align * align;
    unsigned char *block = aligned_alloc(align, whole), *workspace = block + PAD;
    if (!block)
        return failed(verdict, "no memory for a workspace of %zu bytes", bytes);
    memset(block, CANARY, whole);
    memset(workspace, junk, bytes);
    heed_status_t status = kit_block_new(side->context, side->device, block, whole, &there);
    if (status == HEED_OK)
        status = execute_there(side, &there, PAD, bytes);
    bool intact =
        is_filled(block, PAD, CANARY) && is_filled(workspace + bytes, whole - PAD - bytes, CANARY);
    kit_block_free(&there);
    free(block);
    if (status != HEED_OK)
        return failed(verdict, "execute: %s: %s", heed_status_name(status), heed_last_error());
    if (!intact)
        return failed(verdict, "wrote outside its workspace of %zu bytes", bytes);
    return KIT_PASSED;
}

static kit_outcome_t run(const side_t *side, int junk, kit_verdict_t *verdict)
{
    uint64_t sum = sum_of_inputs(&side->buffers);
    kit_outcome_t outcome = execute(side, junk, verdict);
    if (outcome != KIT_PASSED)
        return outcome;
    if (sum_of_inputs(&side->buffers) != sum)
        return failed(verdict, "wrote to an input");
    const char *damaged = kit_buffers_damage(side->problem, &side->buffers);
    if (damaged)
        return failed(verdict, "wrote outside the elements of %s", damaged);
    return KIT_PASSED;
}

/* Runs again over a workspace of zeros: the same bits must come out, whatever it held before. */
static kit_outcome_t run_again(const side_t *side, kit_verdict_t *verdict)
{
    const kit_buffers_t *buffers = &side->buffers;
    void *first[16] = {NULL};
    kit_outcome_t outcome = KIT_PASSED;
    for (int i = 0; i < buffers->count; i++) {
        if (!buffers->before[i])
            continue;
        first[i] = malloc(buffers->bytes[i] + 1);
        if (!first[i])
            outcome = failed(verdict, "no memory for a second run");
        else
            memcpy(first[i], buffers->data[i], buffers->bytes[i]);
    }
    kit_buffers_restore(buffers);
    if (outcome == KIT_PASSED)
        outcome = run(side, 0, verdict);
    for (int i = 0; i < buffers->count; i++) {
        if (outcome == KIT_PASSED && first[i] &&
            memcmp(first[i], buffers->data[i], buffers->bytes[i]) != 0)
            outcome = failed(verdict, "a second run gave other bits in operand %d", i);
        free(first[i]);
    }
    return outcome;
}

/* Those of a GPU, in the emulator too, but for the plain one. */
static bool on_tensor_cores(const char *name)
{
    return strstr(name, "cuda") && !strstr(name, "simt");
}

/* What the checker has to know of an implementation beside its features. */
static uint64_t arithmetic_of(const char *name)
{
    return (on_tensor_cores(name) ? KIT_TENSOR_CORES : 0) |
           (strstr(name, "split") ? KIT_SPLIT_WEIGHTS : 0);
}

/* The feature bits of the implementation that the plan chose. */
static uint64_t features_of(const heed_context_t *context, const heed_plan_t *plan)
{
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    const heed_impl_t *impl;
    if (heed_plan_info(plan, &info) != HEED_OK)
        return 0;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++)
        if (strcmp(impl->op, info.op) == 0 && strcmp(impl->name, info.impl) == 0)
            return impl->features | arithmetic_of(impl->name);
    return 0;
}

/* ---- the check ------------------------------------------------------------------------------- */

static kit_outcome_t check(const kit_op_t *op, uint64_t features, side_t *tested, side_t *reference,
                           uint64_t seed, kit_values_t values, kit_verdict_t *verdict)
{
    kit_outcome_t outcome = KIT_FAILED;
    for (int aligned = 0; aligned < 2 && outcome == KIT_FAILED; aligned++) {
        if (!fill(op, seed, values, aligned, tested) || !fill(op, seed, values, aligned, reference))
            return failed(verdict, "no memory for the operands: %s", heed_last_error());
        outcome = run(tested, 0xff, verdict);
        if (!strstr(verdict->sentence, heed_status_name(HEED_ERROR_ALIGNMENT)))
            break;
    }
    if (outcome != KIT_PASSED)
        return outcome;
    kit_verdict_t other;
    if (run(reference, 0xff, &other) != KIT_PASSED)
        return failed(verdict, "the reference: %.230s", other.sentence);
    op->judge(features, tested->problem, &tested->buffers, reference->problem, &reference->buffers,
              verdict);
    if (verdict->sentence[0])
        return KIT_FAILED;
    return run_again(tested, verdict);
}

kit_outcome_t kit_check(heed_context_t *context, heed_device_t device, heed_context_t *reference,
                        const char *problem, uint64_t seed, kit_values_t values,
                        kit_verdict_t *verdict)
{
    side_t tested = {.context = context, .device = device};
    side_t other = {.context = reference, .device = {HEED_DEVICE_CPU, 0}};
    kit_outcome_t outcome = KIT_FAILED;
    *verdict = (kit_verdict_t){0};
    if (!parse(problem, "", &tested)) {
        failed(verdict, "%s", heed_last_error());
        end_side(&tested);
        return KIT_FAILED;
    }
    const kit_op_t *op = kit_op_find(heed_problem_op(tested.problem));
    heed_status_t status = HEED_OK;
    if (!op)
        failed(verdict, "the kit does not know the operation");
    else if ((status = make_plan(&tested)) == HEED_ERROR_UNSUPPORTED)
        outcome = KIT_REFUSED;
    else if (status == HEED_OK && parse(problem, op->reference_words, &other) &&
             make_plan(&other) == HEED_OK)
        outcome =
            check(op, features_of(context, tested.plan), &tested, &other, seed, values, verdict);
    else
        failed(verdict, "%s: %s", status != HEED_OK ? "plan" : "the reference's plan",
               heed_last_error());
    if (outcome == KIT_REFUSED)
        snprintf(verdict->sentence, sizeof(verdict->sentence), "%s", heed_last_error());
    end_side(&tested);
    end_side(&other);
    return outcome;
}
