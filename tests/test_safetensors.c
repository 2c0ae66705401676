/* The safetensors reader of the heed command, on good files and on malformed ones. */
#define _GNU_SOURCE
#include "st_folder.h"

#include <endian.h>

/* A file with this header, its length, and `data` bytes behind it. Returns the whole size. */
static size_t make_file(unsigned char *to, const char *header, size_t data)
{
    uint64_t length = htole64(strlen(header));
    memcpy(to, &length, 8);
    memcpy(to + 8, header, strlen(header));
    for (size_t i = 0; i < data; i++)
        to[8 + strlen(header) + i] = (unsigned char)(i * 7 + 1);
    return 8 + strlen(header) + data;
}

/* The header with spaces up to a multiple of 8. */
static const char *padded(const char *header)
{
    static char text[512];
    snprintf(text, sizeof text, "%s%.*s", header, (int)((8 - strlen(header) % 8) % 8), "        ");
    return text;
}

static void expect_refused(const unsigned char *bytes, size_t size, const char *sentence)
{
    st_error_t error = {""};
    const char *path = path_of("bad");
    write_bytes(path, bytes, size);
    st_file_t *file = st_open(path, &error);
    if (file || !strstr(error.text, sentence) || strncmp(error.text, path, strlen(path)))
        fail_msg("should say \"%s\", says \"%s\"", sentence, file ? "nothing" : error.text);
}

/* ---- good files ------------------------------------------------------------------------------ */

static const int64_t shape_23[] = {2, 3}, shape_5[] = {5}, shape_304[] = {3, 0, 4};

static void check_tensor(const st_file_t *file, const char *name, const char *dtype, int ndim,
                         const int64_t *shape, const void *data, size_t bytes)
{
    const st_tensor_t *tensor = st_find(file, name);
    assert_non_null(tensor);
    assert_string_equal(tensor->dtype->name, dtype);
    assert_int_equal(tensor->ndim, ndim);
    for (int i = 0; i < ndim; i++)
        assert_int_equal(tensor->shape[i], shape[i]);
    assert_int_equal(tensor->bytes, bytes);
    assert_non_null(tensor->data);
    assert_memory_equal(tensor->data, data, bytes);
    if (tensor->dtype->bits >= 8)
        assert_int_equal((uintptr_t)tensor->data % (uintptr_t)(tensor->dtype->bits / 8), 0);
}

/* Small elements first, an empty tensor, a single element, one written in two pieces. */
static void round_trip(void **state)
{
    (void)state;
    st_error_t error = {""};
    const st_tensor_t tensors[] = {
        TENSOR("bytes", "U8", 1, shape_5),          TENSOR("halves", "BF16", 2, shape_23),
        TENSOR("doubles", "F64", 2, shape_23),      TENSOR("empty", "F32", 3, shape_304),
        TENSOR("one \"\xc3\xa9\"", "I16", 0, NULL), TENSOR("codes", "F8_E4M3", 1, shape_5),
    };
    const unsigned char bytes[] = {1, 2, 3, 4, 5}, codes[] = {9, 8, 7, 6, 5};
    const uint16_t halves[] = {1, 2, 3, 4, 5, 6}, one = 77;
    const double doubles[] = {1, 2, 3, 4, 5, 6};
    json_t *metadata = json_pack("{s:s}", "made by", "a test");
    st_writer_t *writer = st_create(path_of("good"), tensors, 6, metadata, &error);
    json_decref(metadata);
    assert_non_null(writer);
    assert_true(st_append(writer, 5, codes, 5, &error));
    assert_true(st_append(writer, 2, doubles, 8, &error));
    assert_true(st_append(writer, 0, bytes, 5, &error));
    assert_true(st_append(writer, 2, doubles + 1, 40, &error));
    assert_true(st_append(writer, 4, &one, 2, &error));
    assert_true(st_append(writer, 1, halves, 12, &error));
    assert_true(st_commit(writer, &error));

    st_file_t *file = st_open(path_of("good"), &error);
    if (!file)
        fail_msg("%s", error.text);
    check_tensor(file, "bytes", "U8", 1, shape_5, bytes, 5);
    check_tensor(file, "halves", "BF16", 2, shape_23, halves, 12);
    check_tensor(file, "doubles", "F64", 2, shape_23, doubles, 48);
    check_tensor(file, "empty", "F32", 3, shape_304, "", 0);
    check_tensor(file, "one \"\xc3\xa9\"", "I16", 0, NULL, &one, 2);
    check_tensor(file, "codes", "F8_E4M3", 1, shape_5, codes, 5);
    for (int i = 0; i < 5; i++)
        assert_true(st_at(file, i)->offset <= st_at(file, i + 1)->offset);
    assert_null(st_at(file, 6));
    assert_null(st_at(file, -1));
    assert_null(st_find(file, "nothing"));
    assert_string_equal(json_string_value(json_object_get(st_metadata(file), "made by")), "a test");
    st_close(file);
}

static void header_is_padded(void **state)
{
    (void)state;
    st_error_t error;
    uint64_t length;
    const st_tensor_t tensor = TENSOR("x", "U8", 1, shape_5);
    st_writer_t *writer = st_create(path_of("padded"), &tensor, 1, NULL, &error);
    assert_non_null(writer);
    assert_true(st_append(writer, 0, "abcde", 5, &error));
    assert_true(st_commit(writer, &error));
    FILE *file = fopen(path_of("padded"), "rb");
    assert_non_null(file);
    assert_int_equal(fread(&length, 8, 1, file), 1);
    fclose(file);
    assert_int_equal(le64toh(length) % 8, 0);
}

static void no_tensors(void **state)
{
    (void)state;
    st_error_t error;
    st_writer_t *writer = st_create(path_of("none"), NULL, 0, NULL, &error);
    assert_non_null(writer);
    assert_true(st_commit(writer, &error));
    st_file_t *file = st_open(path_of("none"), &error);
    assert_non_null(file);
    assert_null(st_at(file, 0));
    assert_null(st_metadata(file));
    st_close(file);
}

/* ---- malformed files ------------------------------------------------------------------------- */

#define ONE(dtype, shape, offsets) \
    "{\"q\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define F32_AT(name, offsets) \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" offsets "}"

static const struct {
    const char *header;
    size_t data;
    const char *sentence;
} malformed[] = {
    {"", 4, "header is not a JSON object"},
    {"[]", 0, "header is not a JSON object"},
    {" {}", 0, "header is not a JSON object"},
    {"{", 0, "header is not valid JSON"},
    {"{} {}", 0, "header is not valid JSON"},
    {"{\"q\":1", 0, "header is not valid JSON"},
    {"{\"q\\u0000\":1}", 0, "header is not valid JSON"},
    {"{" F32_AT("q", "[0,8]") "," F32_AT("q", "[8,16]") "}", 16, "duplicate object key"},
    {"{\"q\":1}", 0, "q is a number, not an object"},
    {"{\"q\":[]}", 0, "q is a list, not an object"},
    {"{\"q\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "q has no dtype"},
    {"{\"q\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "q has no shape"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "q has no data_offsets"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"more\":1}}", 8,
     "q.more is no field"},
    {ONE("7", "[2]", "[0,8]"), 8, "q.dtype is a number, not a string"},
    {ONE("\"F33\"", "[2]", "[0,8]"), 8, "q.dtype is \"F33\"; known are F64, F32"},
    {ONE("\"F32\"", "2", "[0,8]"), 8, "q.shape is a number, not a list"},
    {ONE("\"F32\"", "[2,-3]", "[0,8]"), 8, "q.shape[1] is -3"},
    {ONE("\"F32\"", "[2.0]", "[0,8]"), 8, "q.shape[0] is not an integer"},
    {ONE("\"F32\"", "[true]", "[0,8]"), 8, "q.shape[0] is not an integer"},
    {ONE("\"F32\"", "[\"2\"]", "[0,8]"), 8, "q.shape[0] is not an integer"},
    {ONE("\"F32\"", "[99999999999999999999]", "[0,8]"), 8, "header is not valid JSON"},
    {ONE("\"F32\"", "[4294967296,4294967296]", "[0,8]"), 8, "[4294967296,4294967296], too large"},
    {ONE("\"F32\"", "[4611686018427387904]", "[0,8]"), 8, "too large to count its bytes"},
    {ONE("\"F4\"", "[3]", "[0,2]"), 2, "ends within a byte"},
    {ONE("\"F32\"", "[2]", "8"), 8, "q.data_offsets is a number, not a list"},
    {ONE("\"F32\"", "[2]", "[0]"), 8, "q.data_offsets has 1 numbers, not 2"},
    {ONE("\"F32\"", "[2]", "[0,8,8]"), 8, "q.data_offsets has 3 numbers, not 2"},
    {ONE("\"F32\"", "[2]", "[-8,0]"), 8, "q.data_offsets[0] is -8"},
    {ONE("\"F32\"", "[2]", "[0,null]"), 8, "q.data_offsets[1] is not an integer"},
    {ONE("\"F32\"", "[2]", "[8,0]"), 8, "q.data_offsets is [8,0]: it ends before it begins"},
    {ONE("\"F32\"", "[2]", "[0,16]"), 8, "[0,16], but the file has 8 data bytes"},
    {ONE("\"F32\"", "[2]", "[9223372036854775800,9223372036854775807]"), 8,
     "but the file has 8 data bytes"},
    {ONE("\"F32\"", "[2]", "[0,4]"), 8, "[0,4], 4 bytes, but shape [2] of F32 takes 8"},
    {ONE("\"F16\"", "[2]", "[0,8]"), 8, "[0,8], 8 bytes, but shape [2] of F16 takes 4"},
    {ONE("\"F32\"", "[0]", "[0,8]"), 8, "8 bytes, but shape [0] of F32 takes 0"},
    {ONE("\"F32\"", "[2]", "[0,8]"), 12, "4 trailing data bytes after byte 8"},
    {"{" F32_AT("q", "[0,8]") "," F32_AT("k", "[4,12]") "}", 12,
     "k begins at data byte 4 and overlaps q, which ends at 8"},
    {"{" F32_AT("q", "[0,8]") "," F32_AT("k", "[0,8]") "}", 8, "overlaps"},
    {"{" F32_AT("q", "[0,8]") "," F32_AT("k", "[12,20]") "}", 20,
     "data bytes 8 to 12 before k belong to no tensor"},
    {"{" F32_AT("q", "[4,12]") "}", 12, "data bytes 0 to 4 before q belong to no tensor"},
    {"{}", 3, "3 trailing data bytes"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is a list, not an object"},
    {"{\"__metadata__\":{\"x\":1}}", 0, "__metadata__.x is a number, not a string"},
    {"{\"a\\u001b[2Jb\":3}", 0, "a?[2Jb is a number"},
};

static void malformed_headers(void **state)
{
    (void)state;
    unsigned char bytes[512];
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        size_t size = make_file(bytes, padded(malformed[i].header), malformed[i].data);
        expect_refused(bytes, size, malformed[i].sentence);
    }
}

static void misaligned_data(void **state)
{
    (void)state;
    unsigned char bytes[256];
    const char *good = ONE("\"F32\"", "[2]", "[0,8]");
    for (size_t pad = 0; pad < 8; pad++) {
        char header[128];
        snprintf(header, sizeof header, "%s%.*s", good, (int)pad, "        ");
        size_t size = make_file(bytes, header, 8), begin = size - 8;
        st_error_t error;
        if (begin % 4) {
            expect_refused(bytes, size, "q is misaligned");
            continue;
        }
        write_bytes(path_of("aligned"), bytes, size);
        st_file_t *file = st_open(path_of("aligned"), &error);
        assert_non_null(file);
        st_close(file);
    }
}

static void wrong_lengths(void **state)
{
    (void)state;
    unsigned char bytes[64] = {0};
    for (size_t size = 0; size < 8; size++)
        expect_refused(bytes, size, "begins with 8 bytes of header length");
    uint64_t length = htole64(100000001);
    memcpy(bytes, &length, 8);
    expect_refused(bytes, 64, "header length is 100000001, over the format's limit of 100000000");
    length = htole64(UINT64_MAX);
    memcpy(bytes, &length, 8);
    expect_refused(bytes, 64, "header length is 18446744073709551615");
    length = htole64(57);
    memcpy(bytes, &length, 8);
    expect_refused(bytes, 64, "header length is 57, but only 56 bytes follow");
}

static void not_a_file(void **state)
{
    (void)state;
    st_error_t error;
    assert_null(st_open(path_of("nowhere"), &error));
    assert_non_null(strstr(error.text, "cannot be opened: No such file"));
    assert_null(st_open(folder, &error));
    assert_non_null(strstr(error.text, "is not a regular file"));
    assert_null(st_open("/dev/zero", &error));
    assert_non_null(strstr(error.text, "is not a regular file"));
}

static size_t good_file(unsigned char *bytes)
{
    return make_file(
        bytes,
        padded("{\"__metadata__\":{\"a\":\"b\"}," F32_AT(
            "q", "[0,8]") ","
                          "\"v\":{\"dtype\":\"U8\",\"shape\":[1,3],\"data_offsets\":[8,11]}}"),
        11);
}

static void truncated_anywhere(void **state)
{
    (void)state;
    unsigned char bytes[512];
    size_t size = good_file(bytes);
    st_error_t error;
    write_bytes(path_of("whole"), bytes, size);
    st_file_t *file = st_open(path_of("whole"), &error);
    if (!file)
        fail_msg("%s", error.text);
    st_close(file);
    for (size_t cut = 0; cut < size; cut++)
        expect_refused(bytes, cut, "");
}

static uint64_t random_state = 20240229;

static uint64_t random_next(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Whatever a file says: it is refused, or all that it tells can be read. */
static void flipped_bytes(void **state)
{
    (void)state;
    unsigned char good[512], bytes[512];
    size_t size = good_file(good);
    int accepted = 0;
    for (int round = 0; round < 8000; round++) {
        st_error_t error;
        memcpy(bytes, good, size);
        for (uint64_t flips = 1 + random_next() % 3; flips > 0; flips--)
            bytes[random_next() % size] =
                (unsigned char)(random_next() % 2 ? '0' + random_next() % 10 : random_next());
        write_bytes(path_of("fuzz"), bytes, size);
        st_file_t *file = st_open(path_of("fuzz"), &error);
        if (!file)
            continue;
        unsigned sum = 0;
        const st_tensor_t *tensor;
        for (int i = 0; (tensor = st_at(file, i)); i++)
            for (size_t at = 0; at < tensor->bytes; at++)
                sum += ((const unsigned char *)tensor->data)[at];
        accepted += sum > 0;
        st_close(file);
    }
    assert_in_range(accepted, 1, 7999);
}

static void dtypes(void **state)
{
    (void)state;
    static const char *const names[] = {"F64", "F32", "F16", "BF16", "I64",     "I32",
                                        "I16", "I8",  "U8",  "BOOL", "F8_E4M3", "U16",
                                        "U32", "U64", "F4",  "C64",  "F8_E5M2", "F8_E8M0"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const st_dtype_t *dtype = st_dtype_find(names[i]);
        assert_non_null(dtype);
        assert_string_equal(dtype->name, names[i]);
        if (dtype->heed) {
            assert_int_equal(heed_dtype_size(dtype->heed) * 8, dtype->bits);
            assert_ptr_equal(st_dtype_of(dtype->heed), dtype);
        }
    }
    assert_null(st_dtype_find("f32"));
    assert_null(st_dtype_of(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),      cmocka_unit_test(header_is_padded),
        cmocka_unit_test(no_tensors),      cmocka_unit_test(malformed_headers),
        cmocka_unit_test(misaligned_data), cmocka_unit_test(wrong_lengths),
        cmocka_unit_test(not_a_file),      cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(flipped_bytes),   cmocka_unit_test(dtypes),
    };
    return cmocka_run_group_tests_name("safetensors", tests, make_folder, remove_folder);
}
