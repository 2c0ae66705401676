/* Parts of tensors and models: what is cut fits together again, for every policy, shape and number
 * of ranks; meshes; what is refused. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdlib.h>

/* ---- ranges ---------------------------------------------------------------------------------- */

enum { MOST_PARTS = 64 };

static void expect_counts(int64_t n, int32_t parts, heed_split_policy_t policy, int64_t align,
                          const int64_t *counts)
{
    heed_range_t ranges[MOST_PARTS];
    expect_ok(heed_split(n, parts, policy, align, ranges));
    for (int i = 0; i < parts; i++)
        assert_int_equal(ranges[i].count, counts[i]);
}

static void test_known(void **state)
{
    (void)state;
    expect_counts(8, 4, HEED_SPLIT_EQUAL, 1, (int64_t[]){2, 2, 2, 2});
    expect_counts(10, 3, HEED_SPLIT_CEIL, 1, (int64_t[]){4, 4, 2});
    expect_counts(10, 6, HEED_SPLIT_CEIL, 1, (int64_t[]){2, 2, 2, 2, 2, 0});
    expect_counts(10, 3, HEED_SPLIT_BALANCED, 1, (int64_t[]){4, 3, 3});
    expect_counts(40, 3, HEED_SPLIT_ALIGNED, 8, (int64_t[]){16, 16, 8});
    expect_counts(INT64_C(1) << 62, 2, HEED_SPLIT_CEIL, 1,
                  (int64_t[]){INT64_C(1) << 61, INT64_C(1) << 61});
}

/* What each policy promises, said of the counts. */
static void expect_promise(int64_t n, int32_t parts, heed_split_policy_t policy, int64_t align,
                           const heed_range_t *ranges)
{
    int64_t at = 0, low = n, high = 0;
    for (int i = 0; i < parts; i++) {
        assert_int_equal(ranges[i].first, at);
        assert_true(ranges[i].count >= 0);
        assert_int_equal(ranges[i].count % align, 0);
        at += ranges[i].count;
        low = ranges[i].count < low ? ranges[i].count : low;
        high = ranges[i].count > high ? ranges[i].count : high;
        heed_range_t alone;
        expect_ok(heed_split_part(n, parts, policy, align, i, &alone));
        assert_memory_equal(&alone, &ranges[i], sizeof(alone));
    }
    assert_int_equal(at, n);
    if (policy == HEED_SPLIT_EQUAL)
        assert_int_equal(low, high);
    else if (policy != HEED_SPLIT_CEIL)
        assert_true(high - low <= align);
    else
        for (int i = 0; i < parts; i++)
            assert_true(ranges[i].count == high || ranges[i].first + ranges[i].count == n);
    assert_int_equal(high, align * ((n / align + parts - 1) / parts)); /* the least that goes */
}

static void test_policies(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 40; n++)
        for (int32_t parts = 1; parts <= n + 1; parts++)
            for (int policy = 0; policy <= HEED_SPLIT_ALIGNED; policy++)
                for (int64_t align = 1; align <= (policy == HEED_SPLIT_ALIGNED ? 7 : 1); align++) {
                    heed_range_t ranges[MOST_PARTS];
                    bool good = parts * align <= n && n % align == 0 &&
                                (policy != HEED_SPLIT_EQUAL || n % parts == 0);
                    heed_status_t status =
                        heed_split(n, parts, (heed_split_policy_t)policy, align, ranges);
                    assert_int_equal(status, good ? HEED_OK : HEED_ERROR_VALUE);
                    if (good)
                        expect_promise(n, parts, (heed_split_policy_t)policy, align, ranges);
                }
}

/* ---- tensors --------------------------------------------------------------------------------- */

enum { MOST_BYTES = 1 << 16 };

static const heed_dtype_t dtypes[] = {HEED_I8, HEED_BF16, HEED_F32, HEED_F64};

/* A tensor with its axes in memory in any order, and gaps between them. */
static void draw_strides(kit_random_t *random, int ndim, const int64_t *shape, int64_t *strides)
{
    int order[HEED_MAX_NDIM];
    for (int i = 0; i < ndim; i++) {
        int j = (int)kit_random_int(random, 0, i);
        order[i] = order[j];
        order[j] = i;
    }
    int64_t reach = kit_random_int(random, 1, 2);
    for (int i = 0; i < ndim; i++) {
        strides[order[i]] = reach;
        reach = reach * (shape[order[i]] ? shape[order[i]] : 1) + kit_random_int(random, 0, 2);
    }
}

static int64_t offset_of(const heed_tensor_t *tensor, int64_t index)
{
    int64_t at = 0;
    for (int i = tensor->ndim - 1; i >= 0; index /= tensor->shape[i--])
        at += index % tensor->shape[i] * tensor->strides[i];
    return at;
}

static int64_t elements_of(const heed_tensor_t *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->ndim; i++)
        count *= tensor->shape[i];
    return count;
}

static char *element(const heed_tensor_t *tensor, int64_t index)
{
    return (char *)tensor->data + tensor->byte_offset +
           offset_of(tensor, index) * (int64_t)heed_dtype_size(tensor->dtype);
}

/* Every element of `to` is as in `from`, and no other byte of its memory was touched. */
static void expect_same(const heed_tensor_t *from, const heed_tensor_t *to, unsigned char *memory)
{
    size_t size = heed_dtype_size(from->dtype);
    for (int64_t i = 0; i < elements_of(from); i++) {
        assert_memory_equal(element(from, i), element(to, i), size);
        memset(element(to, i), 0xa5, size);
    }
    for (int i = 0; i < MOST_BYTES; i++)
        assert_int_equal(memory[i], 0xa5);
}

static void split_and_gather(kit_random_t *random, const heed_tensor_t *whole, int axis,
                             heed_split_policy_t policy)
{
    static unsigned char memory[MOST_BYTES];
    heed_range_t ranges[MOST_PARTS];
    heed_view_t views[MOST_PARTS];
    heed_tensor_t parts[MOST_PARTS], back = *whole;
    int64_t strides[HEED_MAX_NDIM], n = whole->shape[axis];
    int64_t align = policy == HEED_SPLIT_ALIGNED && n % 2 == 0 ? 2 : 1;
    int32_t count = (int32_t)kit_random_int(random, 1, n / align);
    if (heed_split(n, count, policy, align, ranges))
        return; /* no equal parts */
    for (int i = 0; i < count; i++) {
        expect_ok(heed_split_view(whole, axis, ranges[i], &views[i]));
        parts[i] = views[i].tensor;
        assert_ptr_equal(parts[i].data, whole->data); /* a view: no copy */
        assert_int_equal(parts[i].shape[axis], ranges[i].count);
    }
    memset(memory, 0xa5, sizeof(memory));
    draw_strides(random, whole->ndim, whole->shape, strides);
    back.data = memory;
    back.byte_offset = 16;
    back.strides = strides;
    expect_ok(heed_split_gather(parts, count, axis, &back));
    expect_same(whole, &back, memory);
}

static void test_tensors(void **state)
{
    static unsigned char memory[MOST_BYTES];
    kit_random_t random = {8};
    (void)state;
    for (int i = 0; i < MOST_BYTES; i++)
        memory[i] = (unsigned char)kit_random_next(&random);
    for (int round = 0; round < 4000; round++) {
        int64_t shape[HEED_MAX_NDIM], strides[HEED_MAX_NDIM];
        int ndim = (int)kit_random_int(&random, 1, 5);
        for (int i = 0; i < ndim; i++)
            shape[i] = kit_random_int(&random, 1, ndim > 3 ? 5 : 11);
        draw_strides(&random, ndim, shape, strides);
        heed_tensor_t whole = heed_tensor(memory, dtypes[round % 4], ndim, shape, strides);
        whole.byte_offset = 8;
        split_and_gather(&random, &whole, (int)kit_random_int(&random, 0, ndim - 1),
                         (heed_split_policy_t)kit_random_int(&random, 0, 3));
    }
}

/* Dense, without strides; a view of a view; empty parts. */
static void test_views(void **state)
{
    float data[4 * 6] = {0};
    int64_t shape[] = {4, 6};
    heed_tensor_t tensor = heed_tensor(data, HEED_F32, 2, shape, NULL);
    heed_view_t rows, both;
    (void)state;
    expect_ok(heed_split_view(&tensor, 0, (heed_range_t){1, 2}, &rows));
    expect_ok(heed_split_view(&rows.tensor, 1, (heed_range_t){4, 2}, &both));
    assert_int_equal(both.tensor.byte_offset, (6 + 4) * sizeof(float));
    assert_int_equal(both.strides[0], 6);
    assert_int_equal(both.shape[0] * 10 + both.shape[1], 22);
    expect_ok(heed_split_view(&tensor, 1, (heed_range_t){6, 0}, &both));
    heed_tensor_t parts[] = {both.tensor, tensor, both.tensor};
    float copy[4 * 6];
    heed_tensor_t whole = heed_tensor(copy, HEED_F32, 2, shape, NULL);
    data[23] = 5;
    expect_ok(heed_split_gather(parts, 3, 1, &whole));
    assert_memory_equal(copy, data, sizeof(data));
}

static void test_tensors_refused(void **state)
{
    float data[24], more[24];
    int64_t shape[] = {4, 6}, other[] = {4, 5}, three[] = {4, 2, 3}, overlap[] = {1, 1};
    heed_tensor_t tensor = heed_tensor(data, HEED_F32, 2, shape, NULL), whole = tensor;
    heed_view_t view;
    (void)state;
    whole.data = more;
    expect_fails(heed_split_view(NULL, 0, (heed_range_t){0, 1}, &view), HEED_ERROR_NULL, "tensor");
    expect_fails(heed_split_view(&tensor, 0, (heed_range_t){0, 1}, NULL), HEED_ERROR_NULL, "view");
    expect_fails(heed_split_view(&tensor, 2, (heed_range_t){0, 1}, &view), HEED_ERROR_VALUE,
                 "axis=2: tensor has axes 0 to 1");
    expect_fails(heed_split_view(&tensor, 1, (heed_range_t){4, 3}, &view), HEED_ERROR_VALUE,
                 "range.first=4, count=3 reaches beyond tensor.shape[1]=6");
    expect_fails(heed_split_view(&tensor, 1, (heed_range_t){INT64_MAX, 1}, &view), HEED_ERROR_VALUE,
                 "reaches beyond");
    expect_fails(heed_split_gather(NULL, 1, 0, &whole), HEED_ERROR_NULL, "parts");
    expect_fails(heed_split_gather(&tensor, 0, 0, &whole), HEED_ERROR_VALUE, "count=0");
    expect_fails(heed_split_gather(&tensor, 1, -1, &whole), HEED_ERROR_VALUE, "axis=-1");
    heed_tensor_t part = tensor;
    part.shape = other;
    expect_fails(heed_split_gather(&part, 1, 1, &whole), HEED_ERROR_SHAPE,
                 "add up to 5, whole has");
    expect_fails(heed_split_gather(&part, 1, 0, &whole), HEED_ERROR_SHAPE,
                 "parts[0].shape[1]=5, but whole.shape[1]=6");
    heed_tensor_t twice[] = {tensor, tensor};
    expect_fails(heed_split_gather(twice, 2, 0, &whole), HEED_ERROR_SHAPE, "has no room");
    part = heed_tensor(data, HEED_F32, 3, three, NULL);
    expect_fails(heed_split_gather(&part, 1, 0, &whole), HEED_ERROR_SHAPE, "has 3 axes");
    part = heed_tensor(data, HEED_I32, 2, shape, NULL);
    expect_fails(heed_split_gather(&part, 1, 0, &whole), HEED_ERROR_DTYPE, "of i32, whole");
    part = heed_tensor(NULL, HEED_F32, 2, shape, NULL);
    expect_fails(heed_split_gather(&part, 1, 0, &whole), HEED_ERROR_NULL, "parts[0].data");
    part = tensor;
    part.device.type = HEED_DEVICE_CUDA;
    expect_fails(heed_split_gather(&part, 1, 0, &whole), HEED_ERROR_VALUE, "not the CPU");
    whole.strides = overlap;
    expect_fails(heed_split_gather(&tensor, 1, 0, &whole), HEED_ERROR_STRIDE, "share an address");
}

/* ---- queries, keys and values ---------------------------------------------------------------- */

enum { DIM = 2, DIM_V = 3, MOST_HEADS = 12, MOST_ROWS = 3 * MOST_HEADS * DIM_V };

/* What a row of a fused weight is: 0 q, 1 k, 2 v. */
typedef struct row {
    int kind, head, at;
} row_t;

static void add_head(row_t *rows, int *count, int kind, int head)
{
    for (int at = 0; at < (kind == 2 ? DIM_V : DIM); at++)
        rows[(*count)++] = (row_t){kind, head, at};
}

/* The rows of the heads in q and k, as a weight of these heads alone has them. */
static int write_rows(heed_fused_layout_t layout, int group, heed_range_t q, heed_range_t k,
                      row_t *rows)
{
    int count = 0;
    int64_t q_end = q.first + q.count, k_end = k.first + k.count;
    if (layout == HEED_FUSED_CONCATENATED) {
        for (int64_t h = q.first; h < q_end; h++)
            add_head(rows, &count, 0, (int)h);
        for (int kind = 1; kind <= 2; kind++)
            for (int64_t h = k.first; h < k_end; h++)
                add_head(rows, &count, kind, (int)h);
        return count;
    }
    for (int64_t g = k.first; g < k_end; g++) {
        for (int64_t h = g * group; h < (g + 1) * group; h++)
            if (h >= q.first && h < q_end)
                add_head(rows, &count, 0, (int)h);
        add_head(rows, &count, 1, (int)g);
        add_head(rows, &count, 2, (int)g);
    }
    return count;
}

/* One rank's rows, cut out of the weight as views and put together; notes what it has. */
static void expect_rank(const heed_qkv_t *qkv, int ranks, int rank, int seen[3][MOST_HEADS])
{
    row_t whole[MOST_ROWS], wanted[MOST_ROWS], got[MOST_ROWS];
    heed_qkv_slice_t slice;
    int group = (int)(qkv->heads / qkv->kv_heads);
    int64_t count = write_rows(qkv->layout, group, (heed_range_t){0, qkv->heads},
                               (heed_range_t){0, qkv->kv_heads}, whole);
    expect_ok(heed_qkv_slice(qkv, ranks, rank, &slice));
    int64_t shape[] = {count, (int64_t)(sizeof(row_t) / sizeof(int))}, own[] = {0, shape[1]};
    heed_tensor_t weight = heed_tensor(whole, HEED_I32, 2, shape, NULL), parts[3];
    heed_view_t views[3];
    for (int i = 0; i < slice.row_count; i++) {
        expect_ok(heed_split_view(&weight, 0, slice.rows[i], &views[i]));
        parts[i] = views[i].tensor;
        own[0] += slice.rows[i].count;
    }
    int expected = write_rows(qkv->layout, group, slice.q_heads, slice.kv_heads, wanted);
    assert_int_equal(own[0], expected);
    heed_tensor_t to = heed_tensor(got, HEED_I32, 2, own, NULL);
    expect_ok(heed_split_gather(parts, slice.row_count, 0, &to));
    assert_memory_equal(got, wanted, (size_t)expected * sizeof(row_t));
    for (int64_t h = 0; h < slice.q_heads.count; h++) {
        int64_t head = slice.q_heads.first + h, key = head / group;
        seen[0][head]++;
        assert_true(key >= slice.kv_heads.first &&
                    key - slice.kv_heads.first < slice.kv_heads.count);
    }
    assert_true(slice.q_heads.count > 0 && slice.kv_heads.count > 0);
    for (int64_t h = slice.kv_heads.first; h < slice.kv_heads.first + slice.kv_heads.count; h++) {
        assert_int_equal(slice.copy, seen[1][h]++); /* neighbours, counted */
        seen[2][h] = slice.copies;
    }
}

/* Every rank's slices of a problem: all query heads once, all key heads as often as is said. */
static void expect_qkv(const heed_qkv_t *qkv, int ranks)
{
    int seen[3][MOST_HEADS] = {{0}};
    for (int rank = 0; rank < ranks; rank++)
        expect_rank(qkv, ranks, rank, seen);
    for (int h = 0; h < qkv->heads; h++)
        assert_int_equal(seen[0][h], 1);
    for (int h = 0; h < qkv->kv_heads; h++) {
        assert_int_equal(seen[1][h], seen[2][h]);
        if (ranks <= qkv->kv_heads)
            assert_int_equal(seen[1][h], 1);
    }
}

static void test_qkv(void **state)
{
    int problems = 0;
    (void)state;
    for (int heads = 1; heads <= MOST_HEADS; heads++)
        for (int kv = 1; kv <= heads; kv++)
            for (int ranks = 1; ranks <= heads; ranks++)
                for (int way = 0; way < 4; way++) {
                    heed_qkv_t qkv = {heads,
                                      kv,
                                      DIM,
                                      DIM_V,
                                      (heed_fused_layout_t)(way & 1),
                                      way & 2 ? HEED_SPLIT_BALANCED : HEED_SPLIT_EQUAL};
                    heed_qkv_slice_t slice;
                    bool good =
                        heads % kv == 0 &&
                        (way & 2 || (heads % ranks == 0 && (kv % ranks == 0 || (ranks % kv == 0))));
                    heed_status_t status = heed_qkv_slice(&qkv, ranks, 0, &slice);
                    assert_int_equal(status, good ? HEED_OK : HEED_ERROR_VALUE);
                    if (good)
                        expect_qkv(&qkv, ranks);
                    problems += good;
                }
    assert_int_equal(problems, 754);
}

/* The rows that Megatron gives out: t = 2 of 8 heads on 4, and t = 4 of 8 on 2, head size 1. */
static void test_qkv_known(void **state)
{
    heed_qkv_t qkv = {8, 4, 1, 1, HEED_FUSED_INTERLEAVED, HEED_SPLIT_EQUAL};
    heed_qkv_slice_t slice;
    (void)state;
    expect_ok(heed_qkv_slice(&qkv, 2, 1, &slice));
    assert_int_equal(slice.row_count, 1);
    assert_int_equal(slice.rows[0].first, 8);
    assert_int_equal(slice.rows[0].count, 8);
    qkv.kv_heads = 2;
    expect_ok(heed_qkv_slice(&qkv, 4, 2, &slice)); /* group 1 is rows 6 .. 11 */
    assert_int_equal(slice.row_count, 2);
    assert_int_equal(slice.rows[0].first * 10 + slice.rows[0].count, 62);
    assert_int_equal(slice.rows[1].first * 10 + slice.rows[1].count, 102);
    assert_int_equal(slice.copies * 10 + slice.copy, 20);
    qkv.layout = HEED_FUSED_CONCATENATED;
    expect_ok(heed_qkv_slice(&qkv, 4, 2, &slice));
    assert_int_equal(slice.rows[1].first, 9);
    assert_int_equal(slice.rows[2].first, 11);
}

static void test_qkv_refused(void **state)
{
    heed_qkv_t qkv = {8, 2, 64, 64, HEED_FUSED_CONCATENATED, HEED_SPLIT_EQUAL}, bad;
    heed_qkv_slice_t slice;
    (void)state;
    expect_fails(heed_qkv_slice(NULL, 1, 0, &slice), HEED_ERROR_NULL, "qkv");
    expect_fails(heed_qkv_slice(&qkv, 1, 0, NULL), HEED_ERROR_NULL, "slice");
    expect_fails(heed_qkv_slice(&qkv, 4, 4, &slice), HEED_ERROR_VALUE, "rank=4 is not 0");
    expect_fails(heed_qkv_slice(&qkv, 0, 0, &slice), HEED_ERROR_VALUE, "ranks=0");
    expect_fails(heed_qkv_slice(&qkv, 3, 0, &slice), HEED_ERROR_VALUE,
                 "heads=8, kv_heads=2 do not divide into ranks=3 equal parts");
    expect_fails(heed_qkv_slice(&qkv, 16, 0, &slice), HEED_ERROR_VALUE,
                 "ranks=16, but there are heads=8");
    bad = qkv;
    bad.kv_heads = 3;
    expect_fails(heed_qkv_slice(&bad, 1, 0, &slice), HEED_ERROR_VALUE,
                 "heads=8 is no multiple of kv_heads=3");
    bad = qkv;
    bad.dim_v = 0;
    expect_fails(heed_qkv_slice(&bad, 1, 0, &slice), HEED_ERROR_VALUE, "dim_v=0");
    bad = qkv;
    bad.policy = HEED_SPLIT_CEIL;
    expect_fails(heed_qkv_slice(&bad, 1, 0, &slice), HEED_ERROR_VALUE, "policy=1");
    bad = qkv;
    bad.layout = (heed_fused_layout_t)2;
    expect_fails(heed_qkv_slice(&bad, 1, 0, &slice), HEED_ERROR_VALUE, "layout=2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),           cmocka_unit_test(test_policies),
        cmocka_unit_test(test_tensors),         cmocka_unit_test(test_views),
        cmocka_unit_test(test_tensors_refused), cmocka_unit_test(test_qkv),
        cmocka_unit_test(test_qkv_known),       cmocka_unit_test(test_qkv_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
