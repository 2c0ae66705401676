#include "run.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The elements of a tensor as numbers: f32 and f64 in place, others through a cast. */
typedef struct numbers {
    const float *f32;
    const double *f64;
    float *cast; /* owned */
} numbers_t;

static double number(const numbers_t *numbers, int64_t index)
{
    return numbers->f64 ? numbers->f64[index] : (double)numbers->f32[index];
}

/* A context of its own: what the user asks of the operation is not asked of this cast. */
static heed_status_t cast_to_f32(const st_tensor_t *tensor, float *to)
{
    heed_context_t *context;
    heed_context_config_t config = heed_context_config();
    heed_cast_desc_t desc = heed_cast_desc();
    int64_t shape = tensor->elements;
    desc.src = heed_tensor((void *)tensor->data, tensor->dtype->heed, 1, &shape, NULL);
    desc.dst = heed_tensor(to, HEED_F32, 1, &shape, NULL);
    config.ignore_environment = 1;
    heed_status_t status = heed_context_create(&config, &context);
    if (!status)
        status = heed_cast(context, &desc);
    heed_context_destroy(context);
    return status;
}

static bool numbers_of(const st_tensor_t *tensor, numbers_t *numbers)
{
    memset(numbers, 0, sizeof *numbers);
    if (tensor->dtype->heed == HEED_F64)
        numbers->f64 = tensor->data;
    else if (tensor->dtype->heed == HEED_F32)
        numbers->f32 = tensor->data;
    else if (!(numbers->cast = malloc((size_t)tensor->elements * sizeof(float) + 1)))
        return tool_fail("out of memory") == TOOL_OK;
    else if (cast_to_f32(tensor, numbers->cast))
        return tool_fail("%s is %s: %s", tensor->name, tensor->dtype->name, heed_last_error()) ==
               TOOL_OK;
    else
        numbers->f32 = numbers->cast;
    return true;
}

/* Infinities are right only where both are the same one, and then count for nothing; a NaN on one
 * side makes the error NaN, which no tolerance holds. */
static void measure(const numbers_t *got, const numbers_t *golden, int64_t count, double *worst,
                    double *relative)
{
    double difference = 0, norm = 0;
    *worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double a = number(got, i), b = number(golden, i);
        if (a == b && isinf(a))
            continue;
        double error = fabs(a - b);
        *worst = error > *worst || isnan(error) ? error : *worst;
        if (isnan(error))
            break;
        difference += error * error;
        norm += b * b;
    }
    if (isnan(*worst))
        *relative = NAN;
    else
        *relative = difference > 0 ? sqrt(difference / norm) : 0;
}

static bool same_shape(const st_tensor_t *a, const st_tensor_t *b)
{
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

static int compare(const st_tensor_t *output, const st_tensor_t *golden, double tolerance)
{
    numbers_t got = {0}, known = {0};
    double worst, relative;
    int code = TOOL_FAILED;
    if (numbers_of(output, &got) && numbers_of(golden, &known)) {
        measure(&got, &known, output->elements, &worst, &relative);
        printf("  %s: max abs error %.3g, relative L2 %.3g\n", output->name, worst, relative);
        code = TOOL_OK;
        if (tolerance >= 0 && !(worst <= tolerance))
            code = tool_fail("%s: max abs error %.3g is above the tolerance %g", output->name,
                             worst, tolerance);
    }
    free(got.cast);
    free(known.cast);
    return code;
}

static int compare_all(const st_file_t *golden, const st_tensor_t *outputs, int count,
                       double tolerance)
{
    int code = TOOL_OK, compared = 0;
    char has[128], wants[128];
    for (int i = 0; i < count; i++) {
        const st_tensor_t *known = st_find(golden, outputs[i].name);
        if (!known)
            printf("  %s: not in %s\n", outputs[i].name, st_path(golden));
        else if (!same_shape(&outputs[i], known))
            return tool_fail("%s: %s is %s, but the output is %s", st_path(golden), known->name,
                             st_shape_text(known, has, sizeof has),
                             st_shape_text(&outputs[i], wants, sizeof wants));
        else if (compare(&outputs[i], known, tolerance) != TOOL_OK)
            code = TOOL_FAILED;
        compared += known != NULL;
    }
    if (compared == 0)
        return tool_fail("%s: has none of the outputs", st_path(golden));
    return code;
}

int run_golden(const char *path, const st_tensor_t *outputs, int count, double tolerance)
{
    st_error_t error;
    st_file_t *golden = st_open(path, &error);
    int code =
        golden ? compare_all(golden, outputs, count, tolerance) : tool_fail("%s", error.text);
    st_close(golden);
    return code;
}
