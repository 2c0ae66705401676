/* Fuzz target: problem strings, and the descriptors that they make, planned and printed. What is
 * printed must read back to what prints the same. */
#include <heed/heed.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT = 4096 };

static heed_context_t *get_context(void)
{
    static heed_context_t *context;
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    if (!context && heed_context_create(&config, &context) != HEED_OK)
        abort();
    return context;
}

static void check_round_trip(const heed_problem_t *problem)
{
    static char once[TEXT], twice[TEXT];
    heed_problem_t *again = NULL;
    if (heed_problem_text(problem, once, TEXT) >= TEXT)
        return;
    if (heed_problem_parse(once, &again) != HEED_OK)
        abort();
    heed_problem_text(again, twice, TEXT);
    if (strcmp(once, twice) != 0)
        abort();
    heed_problem_destroy(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[TEXT], printed[TEXT];
    heed_problem_t *problem = NULL;
    heed_plan_t *plan = NULL;
    void *desc;
    if (size >= TEXT)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    /* A list of tiles takes memory by the square of the lengths. */
    if (strstr(text, "tiles") || heed_problem_parse(text, &problem) != HEED_OK)
        return 0;
    check_round_trip(problem);
    if (heed_problem_desc(problem, &desc) == HEED_OK &&
        heed_plan_create(get_context(), heed_problem_op(problem), desc, &plan) == HEED_OK)
        heed_plan_problem(plan, printed, TEXT);
    heed_plan_destroy(plan);
    heed_problem_destroy(problem);
    return 0;
}
