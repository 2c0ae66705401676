/* Fuzz target: attention of small sizes whose lengths, page tables, starts and scales are whatever
 * the fuzzer says. Operands have exactly their sizes, so that the address sanitizer sees any access
 * beyond; what is refused must be refused before that. */
#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input {
    const uint8_t *at;
    size_t left;
} input_t;

static unsigned take(input_t *in, unsigned below)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->at++ % below;
}

/* Numbers near what is good, and some that are not. */
static void fill(input_t *in, const heed_tensor_t *tensor, void *memory, size_t bytes)
{
    static const int32_t odd[] = {-1, INT32_MIN, INT32_MAX, 1 << 20};
    static const float scales[] = {1, 0.5f, 0, -2, __builtin_nanf(""), __builtin_inff()};
    memset(memory, 0x3c, bytes);
    for (size_t i = 0; tensor->dtype == HEED_I32 && i < bytes / 4; i++) {
        unsigned pick = take(in, 64);
        ((int32_t *)memory)[i] = pick < 4 ? odd[pick] : (int32_t)(pick - 4) / 2;
    }
    for (size_t i = 0; tensor->dtype == HEED_F32 && tensor->ndim < 4 && i < bytes / 4; i++)
        ((float *)memory)[i] = scales[take(in, 24) % 8 % 6];
}

static heed_context_t *get_context(void)
{
    static heed_context_t *context;
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    config.threads = 1;
    if (!context && heed_context_create(&config, &context) != HEED_OK)
        abort();
    return context;
}

static void write_problem(input_t *in, char *text, size_t size)
{
    static const char *const ragged[] = {"none", "q", "k", "qk"};
    static const char *const types[] = {"f32", "bf16", "f16", "e4m3", "e5m2", "i8"};
    static const char *const scales[] = {"none", "tensor", "head", "token"};
    static const char *const pairs[] = {"", "", " bias=f32:hqk", " mask=bk", " bias=f16:qk mask=k"};
    unsigned group = take(in, 3) + 1, b = take(in, 4), sq = take(in, 6), sk = take(in, 40);
    unsigned hk = take(in, 2) + 1, type = take(in, 3), page = take(in, 9);
    snprintf(text, size,
             "attention b=%u sq=%u sk=%u hk=%u hq=%u d=%u dtype=%s k-dtype=%s v-dtype=%s "
             "k-scale=%s v-scale=%s ragged=%s page=%u pages=%u lens=%u causal=%u lse=1 alibi=%s "
             "sinks=%u window=%d,-1%s",
             b, sq, sk, hk, hk * group, take(in, 20) + 1, types[type], types[take(in, 6)],
             types[take(in, 6)], scales[take(in, 4)], scales[take(in, 4)], ragged[take(in, 4)],
             page, take(in, 12), take(in, 2), take(in, 2), take(in, 2) ? "h" : "none", take(in, 2),
             (int)take(in, 12) - 1, pairs[take(in, 5)]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t in = {data, size};
    char text[512];
    heed_problem_t *problem = NULL;
    void *at, *memory[HEED_ATTENTION_OPERANDS] = {NULL};
    write_problem(&in, text, sizeof(text));
    if (heed_problem_parse(text, &problem) == HEED_OK &&
        heed_problem_desc(problem, &at) == HEED_OK) {
        for (int i = 0; i < HEED_ATTENTION_OPERANDS; i++) {
            heed_tensor_t *tensor = heed_problem_tensor(problem, i);
            size_t bytes = (size_t)heed_tensor_span(tensor) * heed_dtype_size(tensor->dtype);
            if (tensor->ndim == 0)
                continue;
            tensor->data = memory[i] = malloc(bytes);
            if (bytes)
                fill(&in, tensor, memory[i], bytes);
        }
        (void)!heed_attention(get_context(), at);
    }
    heed_problem_destroy(problem);
    for (int i = 0; i < HEED_ATTENTION_OPERANDS; i++)
        free(memory[i]);
    return 0;
}
