/* Tensors of a file bound as they are, where words do not tell their shapes. */
#include "run.h"
#include "text.h"

#include <string.h>

/* Whether the problem's words leave out an optional input that the file has. */
bool run_is_direct(const run_t *run)
{
    void *desc;
    if (heed_problem_desc(run->problem, &desc) != HEED_OK)
        return false;
    for (int i = 0; i < run->count; i++) {
        const run_operand_t *operand = &run->operands[i];
        const heed_tensor_t *tensor = heed_problem_tensor(run->problem, i);
        if (operand->input && !operand->info.output && operand->info.optional == 2 && tensor &&
            tensor->ndim == 0)
            return true;
    }
    return false;
}

/* Axes in their logical order, with the strides that they have in the file. A tensor that lacks the
 * axis of the batch gets one of length 1. */
static int bind_input(run_t *run, run_operand_t *operand, heed_tensor_t *tensor)
{
    const st_tensor_t *input = operand->input;
    int ndim = operand->ndim ? operand->ndim : input->ndim, lacks = ndim - input->ndim;
    int64_t stride = 1;
    if (input->ndim > HEED_MAX_NDIM || lacks < 0 || lacks > 1 ||
        (lacks == 1 && operand->order[0] != 0))
        return tool_fail("%s: %s has %d axes, but %s takes %d there", st_path(run->input),
                         operand->info.name, input->ndim, run->op, ndim);
    run->packed = run->packed || (lacks == 1 && operand == &run->operands[0]);
    for (int i = ndim - 1; i >= 0; i--) {
        int64_t length = i < lacks ? 1 : input->shape[i - lacks];
        int axis = operand->ndim ? operand->order[i] : i;
        operand->axis[axis] = length;
        operand->strides[axis] = stride;
        stride *= length > 0 ? length : 1;
    }
    *tensor = heed_tensor(NULL, input->dtype->heed, ndim, operand->axis, operand->strides);
    return TOOL_OK;
}

/* The length of an axis that some input has, the first of them. */
static int64_t length_of(const run_t *run, const char *word)
{
    for (int i = 0; i < run->count; i++) {
        const run_operand_t *operand = &run->operands[i];
        for (int a = 0; operand->input && !operand->info.output && a < operand->ndim; a++)
            if (strcmp(operand->axes[a], word) == 0)
                return operand->axis[a];
    }
    return 0;
}

static int bind_output(run_t *run, run_operand_t *operand, heed_tensor_t *tensor)
{
    int64_t stride = 1;
    for (int i = operand->ndim - 1; i >= 0; i--) {
        int axis = operand->order[i];
        operand->axis[axis] = length_of(run, operand->axes[axis]);
        operand->strides[axis] = stride;
        stride *= operand->axis[axis] > 0 ? operand->axis[axis] : 1;
    }
    tensor->shape = operand->axis;
    tensor->strides = operand->strides;
    int code = run_place_output(run, operand, tensor);
    if (code == TOOL_OK && run->packed && operand->file.ndim > 1 && operand->order[0] == 0) {
        operand->file.ndim--;
        operand->file.shape++;
    }
    return code == TOOL_OK ? run_check_state(run, operand) : code;
}

int run_bind_direct(run_t *run)
{
    int code = TOOL_OK;
    heed_status_t status = heed_problem_desc(run->problem, &run->desc);
    if (status)
        return tool_fail_status(status);
    for (int output = 0; output < 2; output++)
        for (int i = 0; i < run->count && code == TOOL_OK; i++) {
            run_operand_t *operand = &run->operands[i];
            heed_tensor_t *tensor = heed_problem_tensor(run->problem, i);
            if (operand->info.output != output || (output && tensor->ndim == 0))
                continue;
            if (output)
                code = bind_output(run, operand, tensor);
            else if (operand->input)
                code = bind_input(run, operand, tensor);
            else
                tensor->ndim = 0;
        }
    return code;
}
