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

enum { TILE = 64 };

/* A mask [B|1, H|1, Sq|1, Sk] as one partial tile for each batch entry and head. */
typedef struct mask {
    heed_tile_list_t tiles;
    int64_t row_start[64];
    int32_t column[64], number[64];
    uint64_t bits[64][TILE];
} mask_t;

typedef struct golden {
    const char *name;
    st_file_t *file;
    heed_attention_desc_t desc;
    int64_t shapes[4][4], lse_shape[3];
    mask_t mask;
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

static double *numbers(const st_tensor_t *tensor)
{
    double *values = calloc((size_t)tensor->elements + 1, sizeof(*values));
    assert_non_null(values);
    for (int64_t i = 0; i < tensor->elements; i++)
        values[i] = tensor->dtype->heed == HEED_F64
                        ? ((const double *)tensor->data)[i]
                        : kit_load(tensor->dtype->heed, tensor->data, i);
    return values;
}

static heed_tensor_t tensor_of(golden_t *golden, int operand, const char *name)
{
    const st_tensor_t *from = find(golden, name);
    assert_int_equal(from->ndim, 4);
    memcpy(golden->shapes[operand], from->shape, sizeof(golden->shapes[operand]));
    return heed_tensor((void *)(uintptr_t)from->data, from->dtype->heed, 4, golden->shapes[operand],
                       NULL);
}

/* How far the mask's axis reaches: an axis of length 1 serves all. */
static int64_t stretched(const st_tensor_t *mask, int axis, int64_t at)
{
    return mask->shape[axis] == 1 ? 0 : at;
}

static void read_mask(golden_t *golden, const st_tensor_t *from)
{
    mask_t *mask = &golden->mask;
    int64_t b = golden->shapes[0][0], h = golden->shapes[0][2];
    int64_t queries = golden->shapes[0][1], keys = golden->shapes[1][1];
    assert_int_equal(from->ndim, 4);
    assert_true(b * h < 64 && queries <= TILE && keys <= TILE);
    for (int64_t t = 0; t < b * h; t++) {
        mask->row_start[t + 1] = t + 1;
        mask->number[t] = (int32_t)t;
        for (int64_t p = 0; p < queries * keys; p++) {
            int64_t i = p / keys, j = p % keys, at = stretched(from, 0, t / h);
            at = at * from->shape[1] + stretched(from, 1, t % h);
            at = at * from->shape[2] + stretched(from, 2, i);
            at = at * from->shape[3] + stretched(from, 3, j);
            mask->bits[t][j] |= (uint64_t)(((const uint8_t *)from->data)[at] != 0) << i;
        }
    }
    mask->tiles = (heed_tile_list_t){.struct_size = sizeof(mask->tiles),
                                     .tile_q = TILE,
                                     .tile_k = TILE,
                                     .batches = b,
                                     .heads = h,
                                     .rows = 1,
                                     .row_start = mask->row_start,
                                     .column = mask->column,
                                     .mask = mask->number,
                                     .bits = &mask->bits[0][0],
                                     .masks = b * h};
    golden->desc.tiles = &mask->tiles;
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
    golden->desc.q = tensor_of(golden, HEED_ATTENTION_Q, "q");
    golden->desc.k = tensor_of(golden, HEED_ATTENTION_K, "k");
    golden->desc.v = tensor_of(golden, HEED_ATTENTION_V, "v");
    golden->desc.out = tensor_of(golden, HEED_ATTENTION_OUT, "out");
    const st_tensor_t *lse = find(golden, "lse");
    memcpy(golden->lse_shape, lse->shape, sizeof(golden->lse_shape));
    golden->desc.lse = heed_tensor(NULL, HEED_F32, 3, golden->lse_shape, NULL);
    if (st_find(golden->file, "mask"))
        read_mask(golden, st_find(golden->file, "mask"));
    golden->x.q = numbers(find(golden, "q"));
    golden->x.k = numbers(find(golden, "k"));
    golden->x.v = numbers(find(golden, "v"));
    golden->x.want_out = numbers(find(golden, "out"));
    golden->x.want_lse = numbers(lse);
}

static void close_golden(golden_t *golden)
{
    double *arrays[] = {golden->x.q, golden->x.k, golden->x.v, golden->x.want_out,
                        golden->x.want_lse};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        free(arrays[i]);
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
    heed_tensor_t out = desc->out;
    heed_tensor_t lse = desc->lse;
    int64_t strides[4], lse_strides[3] = {lse.shape[1] * lse.shape[2], lse.shape[2], 1};
    swap_heads(out.shape, strides);
    out.strides = strides;
    lse.strides = lse_strides;
    golden->x.out = kit_gather(&out, out.data);
    golden->x.lse = kit_gather(&lse, lse.data);
    assert_true(golden->x.out && golden->x.lse);
    kit_attention_judge_arrays(desc, &golden->x, &verdict);
    if (verdict.sentence[0])
        print_error("%s, %s, out=%s: %s\n", golden->name, impl, heed_dtype_name(out.dtype),
                    verdict.sentence);
    free(golden->x.out);
    free(golden->x.lse);
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

static void check_golden(const char *name, bool (*wanted)(const heed_impl_t *))
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
    assert_true(golden.runs >= 2);
    close_golden(&golden);
    heed_context_destroy(all);
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
        check_golden(names[i], is_reference);
}

static void the_kernels(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        check_golden(names[i], is_kernel);
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
