/* Golden problems: small attentions with results that were computed in float64, and not by Heed.
 * tests/data/attention holds one file of tensors and one of parameters for each. Every usable
 * implementation is judged by the bounds of the kit, and so is the kit's own arithmetic. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit_attention.h"
#include "safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct golden {
    const char *name;
    st_file_t *file;
    heed_attention_desc_t desc;
    int64_t shapes[HEED_ATTENTION_OPERANDS][4];
    int64_t starts_shape[1];
    int32_t starts[64]; /* of documents */
    void *data[HEED_ATTENTION_OPERANDS];
    kit_attention_t x; /* inputs and wanted results; out and lse are the outputs of a run */
    int runs;
} golden_t;

static const char *const names[] = {
    "dense_f32",
    "dense_bf16",
    "dense_f16",
    "head_dim_8",
    "head_dim_17",
    "head_dim_40",
    "head_dim_72",
    "head_dim_80",
    "head_dim_256",
    "dv_differs",
    "dv_larger_causal",
    "scale_given",
    "scale_negative",
    "one_key",
    "decode_gqa",
    "gqa",
    "mqa_bf16",
    "causal_bottom_right_16x16",
    "causal_top_left_7x19",
    "causal_bottom_right_7x19",
    "causal_top_left_19x7",
    "causal_bottom_right_19x7",
    "window_4_0_20x20",
    "window_3_5_20x20",
    "window_open_2_9x14",
    "window_2_open_14x9",
    "window_0_0_12x12",
    "window_causal",
    "mask_bool",
    "mask_key_padding",
    "huge_scores",
    "all_scores_very_negative",
    "repeated_keys",
    "signed_zeros",
    "denormals",
    "f16_near_max",
    "nearly_uniform_512",
    "nan_behind_the_mask",
    "merge_six_parts",
    "softcap",
    "softcap_causal",
    "bias",
    "bias_with_minus_inf",
    "alibi_h4",
    "alibi_h6",
    "alibi_causal",
    "sinks",
    "sinks_causal_empty_rows",
    "off_by_one_softmax",
    "documents_causal",
    "ragged_causal",
    "paged_kv",
    "kv_fp8_e4m3_per_tensor",
    "kv_fp8_e4m3_per_head",
    "kv_fp8_e4m3_per_token_head",
    "kv_fp8_e5m2_per_tensor",
    "kv_int8_per_head",
    "kv_int8_per_token_head",
};

/* ---- reading --------------------------------------------------------------------------------- */

static const st_tensor_t *find(const golden_t *golden, const char *name)
{
    const st_tensor_t *tensor = st_find(golden->file, name);
    if (!tensor)
        print_error("%s has no %s\n", golden->name, name);
    assert_non_null(tensor);
    return tensor;
}

/* The names of operands in files; packed ones lack the axis of the batch. */
static const struct {
    const char *name;
    int operand, ndim; /* ndim 0: as in the file */
    size_t offset;
    bool output;
} operands[] = {
#define OPERAND(name, number, ndim, field, output)                                          \
    {                                                                                       \
        name, HEED_ATTENTION_##number, ndim, offsetof(heed_attention_desc_t, field), output \
    }
    OPERAND("q", Q, 4, q, false),
    OPERAND("k", K, 4, k, false),
    OPERAND("k_pool", K, 4, k, false),
    OPERAND("v", V, 4, v, false),
    OPERAND("v_pool", V, 4, v, false),
    OPERAND("out", OUT, 4, out, true),
    OPERAND("lse", LSE, 3, lse, true),
    OPERAND("bias", BIAS, 4, bias, false),
    OPERAND("mask", MASK, 4, mask, false),
    OPERAND("alibi_slopes", ALIBI_SLOPES, 0, alibi_slopes, false),
    OPERAND("sinks", SINKS, 1, sinks, false),
    OPERAND("cu_seqlens_q", CU_SEQLENS_Q, 1, cu_seqlens_q, false),
    OPERAND("cu_seqlens_k", CU_SEQLENS_K, 1, cu_seqlens_k, false),
    OPERAND("kv_lengths", SEQLENS_K, 1, seqlens_k, false),
    OPERAND("page_table", PAGE_TABLE, 2, page_table, false),
    OPERAND("k_scale", K_SCALE, 0, k_scale, false),
    OPERAND("v_scale", V_SCALE, 0, v_scale, false),
#undef OPERAND
};

static void bind(golden_t *golden, int index)
{
    const st_tensor_t *from = st_find(golden->file, operands[index].name);
    if (!from)
        return;
    int ndim = operands[index].ndim ? operands[index].ndim : from->ndim, lacks = ndim - from->ndim;
    int64_t *shape = golden->shapes[operands[index].operand];
    assert_true(lacks == 0 || lacks == 1);
    shape[0] = 1;
    memcpy(shape + lacks, from->shape, (size_t)from->ndim * sizeof(*shape));
    heed_tensor_t tensor =
        heed_tensor((void *)(uintptr_t)from->data, from->dtype->heed, ndim, shape, NULL);
    memcpy((char *)&golden->desc + operands[index].offset, &tensor, sizeof(tensor));
    golden->data[operands[index].operand] = tensor.data;
}

/* Documents follow each other: those of an id are a sequence. */
static void read_documents(golden_t *golden, const st_tensor_t *ids)
{
    const int32_t *id = ids->data;
    int count = 0;
    for (int32_t i = 0; i < ids->elements; i++)
        if (i == 0 || id[i] != id[i - 1])
            golden->starts[count++] = i;
    golden->starts[count] = (int32_t)ids->elements;
    golden->starts_shape[0] = count + 1;
    golden->desc.cu_seqlens_q =
        heed_tensor(golden->starts, HEED_I32, 1, golden->starts_shape, NULL);
    golden->desc.cu_seqlens_k = golden->desc.cu_seqlens_q;
    golden->data[HEED_ATTENTION_CU_SEQLENS_Q] = golden->starts;
    golden->data[HEED_ATTENTION_CU_SEQLENS_K] = golden->starts;
}

static void read_parameters(golden_t *golden)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof(path), "%s/attention/%s.json", HEED_TEST_DATA, golden->name);
    json_t *all = json_load_file(path, 0, &error);
    if (!all)
        print_error("%s: %s\n", path, error.text);
    assert_non_null(all);
    const json_t *align = json_object_get(all, "align"), *window = json_object_get(all, "window");
    golden->desc.causal = json_is_true(json_object_get(all, "causal"));
    golden->desc.scale = (float)json_number_value(json_object_get(all, "scale"));
    golden->desc.softcap = (float)json_number_value(json_object_get(all, "softcap"));
    golden->desc.off_by_one = json_is_true(json_object_get(all, "off_by_one"));
    if (align && strcmp(json_string_value(align), "top_left") == 0)
        golden->desc.align = HEED_ALIGN_TOP_LEFT;
    if (window) {
        golden->desc.window_left = json_integer_value(json_array_get(window, 0));
        golden->desc.window_right = json_integer_value(json_array_get(window, 1));
    }
    json_decref(all);
}

static void open_golden(golden_t *golden, const char *name)
{
    char path[512];
    st_error_t error;
    memset(golden, 0, sizeof(*golden));
    golden->name = name;
    snprintf(path, sizeof(path), "%s/attention/%s.safetensors", HEED_TEST_DATA, name);
    golden->file = st_open(path, &error);
    if (!golden->file)
        print_error("%s\n", error.text);
    assert_non_null(golden->file);
    golden->desc = heed_attention_desc();
    read_parameters(golden);
    for (size_t i = 0; i < sizeof(operands) / sizeof(operands[0]); i++)
        bind(golden, (int)i);
    if (st_find(golden->file, "document_ids"))
        read_documents(golden, st_find(golden->file, "document_ids"));
    assert_true(kit_attention_gather(&golden->desc, golden->data, &golden->x));
    golden->x.want_out =
        kit_rows_gather(&golden->desc, &golden->x.batch, HEED_ATTENTION_OUT, golden->data);
    golden->x.want_lse =
        kit_rows_gather(&golden->desc, &golden->x.batch, HEED_ATTENTION_LSE, golden->data);
    golden->desc.lse.dtype = HEED_F32;
}

static void close_golden(golden_t *golden)
{
    kit_attention_free(&golden->x);
    st_close(golden->file);
}

/* ---- running --------------------------------------------------------------------------------- */

/* Strides of [B,S,H,D] in memory order b, h, s, d. */
static void swap_heads(const int64_t *shape, int64_t *strides)
{
    strides[3] = 1;
    strides[1] = shape[3];
    strides[2] = shape[3] * shape[1];
    strides[0] = strides[2] * shape[2];
}

static void judge(golden_t *golden, const heed_attention_desc_t *desc, const char *impl)
{
    kit_verdict_t verdict;
    void *data[HEED_ATTENTION_OPERANDS];
    memcpy(data, golden->data, sizeof(data));
    data[HEED_ATTENTION_OUT] = desc->out.data;
    data[HEED_ATTENTION_LSE] = desc->lse.data;
    golden->x.out = kit_rows_gather(desc, &golden->x.batch, HEED_ATTENTION_OUT, data);
    golden->x.lse = kit_rows_gather(desc, &golden->x.batch, HEED_ATTENTION_LSE, data);
    assert_true(golden->x.out && golden->x.lse);
    kit_attention_judge_arrays(desc, &golden->x, &verdict);
    if (verdict.sentence[0])
        print_error("%s, %s, out=%s: %s\n", golden->name, impl, heed_dtype_name(desc->out.dtype),
                    verdict.sentence);
    free(golden->x.out);
    free(golden->x.lse);
    golden->x.out = golden->x.lse = NULL;
    assert_string_equal(verdict.sentence, "");
    golden->runs++;
}

/* One implementation, with this type of output, written in another order than the inputs. */
static void run(golden_t *golden, heed_context_t *context, const char *impl, heed_dtype_t out)
{
    int64_t strides[4];
    heed_attention_desc_t desc = golden->desc;
    desc.out.dtype = out;
    swap_heads(desc.out.shape, strides);
    desc.out.strides = strides;
    desc.out.data = malloc((size_t)heed_tensor_span(&desc.out) * 4);
    desc.lse.data = malloc((size_t)heed_tensor_span(&desc.lse) * 4);
    assert_true(desc.out.data && desc.lse.data);
    memset(desc.out.data, 0xff, (size_t)heed_tensor_span(&desc.out) * 4);
    memset(desc.lse.data, 0xff, (size_t)heed_tensor_span(&desc.lse) * 4);
    heed_status_t status = heed_attention(context, &desc);
    if (status != HEED_ERROR_UNSUPPORTED) {
        expect_ok(status);
        judge(golden, &desc, impl);
    }
    free(desc.out.data);
    free(desc.lse.data);
}

/* Checks every implementation that is wanted; how many took the problem, in both types. */
static int check_golden(const char *name, bool (*wanted)(const heed_impl_t *))
{
    static golden_t golden;
    heed_context_t *all = expect_context(NULL);
    const heed_impl_t *impl;
    open_golden(&golden, name);
    for (int i = 0; (impl = heed_impl_at(all, i)); i++) {
        char only[128];
        if (strcmp(impl->op, "attention") != 0 || !heed_impl_usable(all, impl, NULL) ||
            !wanted(impl))
            continue;
        snprintf(only, sizeof(only), "attention=%s", impl->name);
        heed_context_t *context = expect_context(only);
        run(&golden, context, impl->name, golden.desc.q.dtype);
        run(&golden, context, impl->name, HEED_F32);
        heed_context_destroy(context);
    }
    int runs = golden.runs;
    close_golden(&golden);
    heed_context_destroy(all);
    return runs;
}

static bool is_reference(const heed_impl_t *impl)
{
    return strcmp(impl->name, "cpu:standard") == 0;
}

static bool is_kernel(const heed_impl_t *impl)
{
    return !is_reference(impl);
}

static void the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_true(check_golden(names[i], is_reference) >= 2);
}

static void the_kernels(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)check_golden(names[i], is_kernel);
}

/* ---- parts ----------------------------------------------------------------------------------- */

/* Six ranges of keys, the second of them empty, one after the other into one state. */
static void six_parts(void **state)
{
    static golden_t golden;
    heed_context_t *context = expect_context(NULL);
    (void)state;
    open_golden(&golden, "merge_six_parts");
    const st_tensor_t *cuts = find(&golden, "cuts");
    const int32_t *edges = cuts->data;
    int64_t strides[4], k_shape[4], v_shape[4], in_strides[2][4];
    heed_attention_desc_t desc = golden.desc;
    desc.out.dtype = HEED_F32;
    swap_heads(desc.out.shape, strides);
    desc.out.strides = strides;
    desc.out.data = calloc((size_t)heed_tensor_span(&desc.out), 4);
    desc.lse.data = calloc((size_t)heed_tensor_span(&desc.lse), 4);
    const heed_tensor_t whole[2] = {desc.k, desc.v};
    for (int t = 0; t < 2; t++) {
        const int64_t *s = whole[t].shape;
        const int64_t dense[4] = {s[1] * s[2] * s[3], s[2] * s[3], s[3], 1};
        memcpy(in_strides[t], dense, sizeof(dense));
    }
    for (int64_t p = 0; p + 1 < cuts->elements; p++) {
        memcpy(k_shape, whole[0].shape, sizeof(k_shape));
        memcpy(v_shape, whole[1].shape, sizeof(v_shape));
        k_shape[1] = v_shape[1] = edges[p + 1] - edges[p];
        desc.k = heed_tensor((float *)whole[0].data + edges[p] * in_strides[0][1], HEED_F32, 4,
                             k_shape, in_strides[0]);
        desc.v = heed_tensor((float *)whole[1].data + edges[p] * in_strides[1][1], HEED_F32, 4,
                             v_shape, in_strides[1]);
        desc.merge = p > 0;
        expect_ok(heed_attention(context, &desc));
    }
    desc.k = whole[0];
    desc.v = whole[1];
    desc.merge = 0;
    judge(&golden, &desc, "auto");
    free(desc.out.data);
    free(desc.lse.data);
    close_golden(&golden);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference),
        cmocka_unit_test(the_kernels),
        cmocka_unit_test(six_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
