/* From the tensors of a file to a problem: their axes and dtypes are the operation's words. */
#include "run.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

/* Where an axis word got its value, for the sentence about a conflict. */
typedef struct axis_fact {
    const char *word;
    const char *operand;
    int64_t value;
} axis_fact_t;

enum { MAX_FACTS = RUN_MAX_OPERANDS * HEED_MAX_NDIM };

int run_split_axes(const char *shape, char axes[HEED_MAX_NDIM][RUN_NAME_SIZE])
{
    int ndim = 0;
    while (*shape && ndim < HEED_MAX_NDIM) {
        size_t length = strcspn(shape, ",");
        snprintf(axes[ndim++], RUN_NAME_SIZE, "%.*s", (int)length, shape);
        shape += length + (shape[length] == ',');
    }
    return ndim;
}

/* ---- which tensor is which operand ----------------------------------------------------------- */

static void find_operands(run_t *run)
{
    heed_op_operand_t info;
    for (int i = 0; i < RUN_MAX_OPERANDS && heed_op_operand(run->op, i, &info); i++) {
        run_operand_t *operand = &run->operands[run->count++];
        operand->info = info;
        operand->ndim = run_split_axes(info.shape, operand->axes);
        operand->input = st_find(run->input, info.name);
    }
}

static int missing_input(const run_t *run, const char *name)
{
    char takes[256] = "";
    for (int i = 0; i < run->count; i++)
        if (!run->operands[i].info.output)
            snprintf(takes + strlen(takes), sizeof takes - strlen(takes), "%s%s",
                     *takes ? ", " : "", run->operands[i].info.name);
    return tool_fail("%s: has no tensor %s; %s takes %s", st_path(run->input), name, run->op,
                     takes);
}

static bool is_operand(const run_t *run, const char *name)
{
    for (int i = 0; i < run->count; i++)
        if (strcmp(run->operands[i].info.name, name) == 0)
            return true;
    return false;
}

static int check_names(const run_t *run)
{
    const st_tensor_t *tensor;
    for (int i = 0; i < run->count; i++) {
        const run_operand_t *operand = &run->operands[i];
        if (!operand->input && !operand->info.output && !operand->info.optional)
            return missing_input(run, operand->info.name);
    }
    for (int i = 0; !run->ignore_extra && (tensor = st_at(run->input, i)); i++)
        if (!is_operand(run, tensor->name))
            return tool_fail("%s: tensor %.64s is no operand of %s (--ignore-extra leaves it out)",
                             st_path(run->input), tensor->name, run->op);
    return TOOL_OK;
}

/* ---- words that the tensors tell ------------------------------------------------------------- */

static int set_from_file(const run_t *run, heed_problem_t *problem, const char *operand,
                         const char *word, const char *value)
{
    if (heed_problem_set(problem, word, value))
        return tool_fail("%s: %s: %s", st_path(run->input), operand, heed_last_error());
    return TOOL_OK;
}

static int set_dtype(const run_t *run, const run_operand_t *operand, heed_problem_t *problem)
{
    heed_op_word_t word;
    const st_dtype_t *dtype = operand->input->dtype;
    const char *name = operand->info.name, *value = heed_dtype_name(dtype->heed);
    if (!dtype->heed)
        return tool_fail("%s: %s is %s, which no operation takes", st_path(run->input), name,
                         dtype->name);
    if (run_find_word(run->op, operand->info.dtype, &word)) {
        for (int i = 0; i < run->count; i++) {
            const run_operand_t *before = &run->operands[i];
            if (before == operand)
                return set_from_file(run, problem, name, word.name, value);
            if (before->input && !before->info.output && before->input->dtype != dtype &&
                strcmp(before->info.dtype, word.name) == 0)
                return tool_fail("%s: %s is %s, but %s says %s=%s", st_path(run->input), name,
                                 dtype->name, before->info.name, word.name,
                                 heed_dtype_name(before->input->dtype->heed));
        }
    }
    if (strcmp(operand->info.dtype, value) != 0)
        return tool_fail("%s: %s is %s, but %s takes %s there", st_path(run->input), name,
                         dtype->name, run->op, operand->info.dtype);
    return TOOL_OK;
}

/* A problem with the flags, dtypes and optional operands of this run; axes are still the defaults.
 * Every optional output is asked for. */
static int new_problem(const run_t *run, heed_problem_t **problem)
{
    heed_status_t status = heed_problem_parse(run->op, problem);
    if (!status)
        status = run_words_apply(run->words, *problem);
    if (status)
        return tool_fail_status(status);
    for (int i = 0; i < run->count; i++) {
        const run_operand_t *operand = &run->operands[i];
        int code = TOOL_OK;
        if (operand->info.optional == 1 && (operand->info.output || operand->input))
            code = set_from_file(run, *problem, operand->info.name, operand->info.name, "1");
        if (code == TOOL_OK && operand->input && !operand->info.output &&
            strcmp(operand->info.dtype, operand->info.name) != 0)
            code = set_dtype(run, operand, *problem);
        if (code != TOOL_OK)
            return code;
    }
    return TOOL_OK;
}

/* ---- order of axes --------------------------------------------------------------------------- */

/* Axes of a dense tensor in memory stand by falling stride. */
static void order_axes(run_operand_t *operand, const heed_tensor_t *tensor)
{
    for (int i = 0; i < operand->ndim; i++) {
        int at = i;
        for (; at > 0 && tensor->strides[operand->order[at - 1]] < tensor->strides[i]; at--)
            operand->order[at] = operand->order[at - 1];
        operand->order[at] = i;
    }
}

/* Asks the operation itself how it lays out its operands: a problem whose axes are all longer than
 * 1 has strides that tell the order. */
static int probe_orders(run_t *run, heed_problem_t *problem)
{
    void *desc;
    for (int i = 0; i < run->count; i++)
        for (int axis = 0; axis < run->operands[i].ndim; axis++)
            if (heed_problem_set(problem, run->operands[i].axes[axis], "4"))
                return tool_fail("%s", heed_last_error());
    heed_status_t status = heed_problem_desc(problem, &desc);
    if (status)
        return tool_fail_status(status);
    for (int i = 0; i < run->count; i++) {
        const heed_tensor_t *tensor = heed_problem_tensor(problem, i);
        if (tensor && tensor->ndim == run->operands[i].ndim && tensor->strides)
            order_axes(&run->operands[i], tensor);
    }
    return TOOL_OK;
}

static int find_orders(run_t *run)
{
    heed_problem_t *problem = NULL;
    for (int i = 0; i < run->count; i++)
        for (int axis = 0; axis < HEED_MAX_NDIM; axis++)
            run->operands[i].order[axis] = axis;
    int code = new_problem(run, &problem);
    if (code == TOOL_OK)
        code = probe_orders(run, problem);
    heed_problem_destroy(problem);
    return code;
}

/* ---- lengths of axes ------------------------------------------------------------------------- */

static int set_axis(run_t *run, const run_operand_t *operand, int file_axis, int64_t value,
                    axis_fact_t *facts, int *count)
{
    char text[32];
    const char *word = operand->axes[operand->order[file_axis]];
    for (int i = 0; i < *count; i++) {
        if (strcmp(facts[i].word, word) != 0)
            continue;
        if (facts[i].value != value)
            return tool_fail("%s: %s.shape[%d] is %lld, but %s says %s=%lld", st_path(run->input),
                             operand->info.name, file_axis, (long long)value, facts[i].operand,
                             word, (long long)facts[i].value);
        return TOOL_OK;
    }
    facts[(*count)++] = (axis_fact_t){word, operand->info.name, value};
    snprintf(text, sizeof text, "%lld", (long long)value);
    return set_from_file(run, run->problem, operand->info.name, word, text);
}

static int wrong_rank(const run_t *run, const run_operand_t *operand)
{
    char axes[HEED_MAX_NDIM * RUN_NAME_SIZE] = "";
    for (int i = 0; i < operand->ndim; i++)
        snprintf(axes + strlen(axes), sizeof axes - strlen(axes), "%s%s", i ? "," : "",
                 operand->axes[operand->order[i]]);
    return tool_fail("%s: %s has %d axes, but %s takes %d there: %s", st_path(run->input),
                     operand->info.name, operand->input->ndim, run->op, operand->ndim, axes);
}

static int set_axes(run_t *run)
{
    axis_fact_t facts[MAX_FACTS];
    int count = 0, code = TOOL_OK;
    for (int i = 0; i < run->count; i++) {
        const run_operand_t *operand = &run->operands[i];
        if (!operand->input || operand->info.output)
            continue;
        if (operand->ndim == 1) /* any tensor is one row of elements */
            code = set_axis(run, operand, 0, operand->input->elements, facts, &count);
        else if (operand->input->ndim != operand->ndim)
            code = wrong_rank(run, operand);
        else
            for (int axis = 0; axis < operand->ndim && code == TOOL_OK; axis++)
                code = set_axis(run, operand, axis, operand->input->shape[axis], facts, &count);
        if (code != TOOL_OK)
            return code;
    }
    return TOOL_OK;
}

/* ---- tensors of the problem ------------------------------------------------------------------ */

/* A file holds dense tensors only; an operation may know layouts that are not. */
static int check_dense(const run_operand_t *operand, const heed_tensor_t *tensor)
{
    int64_t expected = 1;
    for (int i = operand->ndim - 1; i >= 0; i--) {
        int axis = operand->order[i];
        if (tensor->shape[axis] > 1 && tensor->strides && tensor->strides[axis] != expected)
            return tool_fail("these words give %s strides, but tensors in a file are dense",
                             operand->info.name);
        expected *= tensor->shape[axis] > 1 ? tensor->shape[axis] : 1;
    }
    return TOOL_OK;
}

/* An output along the one axis of a flattened input takes that input's shape. */
static const st_tensor_t *flattened_like(const run_t *run, const run_operand_t *operand)
{
    for (int i = 0; operand->ndim == 1 && i < run->count; i++) {
        const run_operand_t *other = &run->operands[i];
        if (other->input && !other->info.output && other->ndim == 1 &&
            strcmp(other->axes[0], operand->axes[0]) == 0)
            return other->input;
    }
    return NULL;
}

int run_place_output(const run_t *run, run_operand_t *operand, const heed_tensor_t *tensor)
{
    st_error_t error;
    const st_tensor_t *like = flattened_like(run, operand);
    for (int i = 0; i < operand->ndim; i++)
        operand->shape[i] = tensor->shape[operand->order[i]];
    operand->file.name = operand->info.name;
    operand->file.dtype = st_dtype_of(tensor->dtype);
    operand->file.ndim = like ? like->ndim : operand->ndim;
    operand->file.shape = like ? like->shape : operand->shape;
    if (!operand->file.dtype)
        return tool_fail("%s is %s, which safetensors files cannot hold", operand->info.name,
                         heed_dtype_name(tensor->dtype));
    return st_measure(&operand->file, &error) ? TOOL_OK : tool_fail("%s", error.text);
}

/* An output that the input file holds is the state that the operation starts from; anything else
 * of that name does not belong there. */
int run_check_state(const run_t *run, run_operand_t *operand)
{
    char has[128], wants[128];
    const st_tensor_t *state = operand->input, *file = &operand->file;
    if (!state || (state->dtype == file->dtype && state->ndim == file->ndim &&
                   memcmp(state->shape, file->shape, (size_t)file->ndim * sizeof(int64_t)) == 0))
        return TOOL_OK;
    operand->input = NULL;
    if (run->ignore_extra)
        return TOOL_OK;
    return tool_fail("%s: %s is %s %s, but the output is %s %s (--ignore-extra leaves it out)",
                     st_path(run->input), operand->info.name, state->dtype->name,
                     st_shape_text(state, has, sizeof has), file->dtype->name,
                     st_shape_text(file, wants, sizeof wants));
}

static int bind_tensors(run_t *run)
{
    heed_status_t status = heed_problem_desc(run->problem, &run->desc);
    if (status)
        return tool_fail_status(status);
    for (int i = 0; i < run->count; i++) {
        run_operand_t *operand = &run->operands[i];
        const heed_tensor_t *tensor = heed_problem_tensor(run->problem, i);
        if (!tensor || tensor->ndim == 0)
            continue;
        int code = check_dense(operand, tensor);
        if (code == TOOL_OK && operand->info.output)
            code = run_place_output(run, operand, tensor);
        if (code == TOOL_OK && operand->info.output)
            code = run_check_state(run, operand);
        if (code != TOOL_OK)
            return code;
    }
    return TOOL_OK;
}

int run_bind(run_t *run)
{
    find_operands(run);
    int code = check_names(run);
    if (code == TOOL_OK)
        code = find_orders(run);
    if (code == TOOL_OK)
        code = new_problem(run, &run->problem);
    if (code == TOOL_OK && run_is_direct(run))
        return run_bind_direct(run);
    if (code == TOOL_OK)
        code = set_axes(run);
    return code == TOOL_OK ? bind_tensors(run) : code;
}
