/* Reading safetensors. Nothing in the file is believed before it is checked. */
#define _GNU_SOURCE
#include "safetensors_internal.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct st_file {
    char *path;
    const unsigned char *map;
    size_t size;
    size_t header; /* bytes before the data */
    json_t *json;
    st_tensor_t *tensors;
    int count;
};

/* ---- one tensor's entry ---------------------------------------------------------------------- */

static const char *json_kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "a truth value";
    }
}

/* The named member of a tensor's entry, of the type asked for; NULL with a sentence otherwise. */
static json_t *member(const char *tensor, const json_t *entry, const char *field, json_type type,
                      st_error_t *error)
{
    json_t *value = json_object_get(entry, field);
    if (!value)
        st_fail(error, "%.64s has no %s", tensor, field);
    else if (json_typeof(value) != type)
        st_fail(error, "%.64s.%s is %s, not %s", tensor, field, json_kind(value),
                type == JSON_STRING ? "a string" : "a list");
    else
        return value;
    return NULL;
}

static bool only_known_members(const char *tensor, json_t *entry, st_error_t *error)
{
    const char *key;
    json_t *value;
    json_object_foreach(
        entry, key,
        value) if (strcmp(key, "dtype") && strcmp(key, "shape") &&
                   strcmp(key,
                          "data_offsets")) return st_fail(error,
                                                          "%.64s.%.32s is no field of the format",
                                                          tensor, key);
    return true;
}

static bool read_integer(const json_t *list, size_t index, const char *tensor, const char *field,
                         int64_t *to, st_error_t *error)
{
    const json_t *value = json_array_get(list, index);
    if (!json_is_integer(value))
        return st_fail(error, "%.64s.%s[%zu] is not an integer", tensor, field, index);
    *to = json_integer_value(value);
    if (*to < 0)
        return st_fail(error, "%.64s.%s[%zu] is %lld; it cannot be negative", tensor, field, index,
                       (long long)*to);
    return true;
}

static bool read_shape(st_tensor_t *tensor, const json_t *list, st_error_t *error)
{
    size_t ndim = json_array_size(list);
    int64_t *shape = calloc(ndim + 1, sizeof *shape);
    if (!shape)
        return st_fail(error, "out of memory for the shape of %.64s", tensor->name);
    tensor->shape = shape;
    tensor->ndim = (int)ndim;
    for (size_t i = 0; i < ndim; i++)
        if (!read_integer(list, i, tensor->name, "shape", &shape[i], error))
            return false;
    return st_measure(tensor, error);
}

static bool read_offsets(st_file_t *file, st_tensor_t *tensor, const json_t *list,
                         st_error_t *error)
{
    int64_t at[2];
    char shape[128];
    size_t room = file->size - file->header;
    const char *name = tensor->name;
    if (json_array_size(list) != 2)
        return st_fail(error, "%.64s.data_offsets has %zu numbers, not 2", name,
                       json_array_size(list));
    for (size_t i = 0; i < 2; i++)
        if (!read_integer(list, i, name, "data_offsets", &at[i], error))
            return false;
    if (at[0] > at[1])
        return st_fail(error, "%.64s.data_offsets is [%lld,%lld]: it ends before it begins", name,
                       (long long)at[0], (long long)at[1]);
    if ((uint64_t)at[1] > room)
        return st_fail(error, "%.64s.data_offsets is [%lld,%lld], but the file has %zu data bytes",
                       name, (long long)at[0], (long long)at[1], room);
    if ((uint64_t)(at[1] - at[0]) != tensor->bytes)
        return st_fail(error,
                       "%.64s.data_offsets is [%lld,%lld], %lld bytes, but shape %s of %s takes "
                       "%zu",
                       name, (long long)at[0], (long long)at[1], (long long)(at[1] - at[0]),
                       st_shape_text(tensor, shape, sizeof shape), tensor->dtype->name,
                       tensor->bytes);
    tensor->offset = (size_t)at[0];
    return true;
}

/* Points into the mapping. An empty tensor has no data to be misaligned: it gets the map's start.
 */
static bool place(st_file_t *file, st_tensor_t *tensor, st_error_t *error)
{
    size_t at = file->header + tensor->offset, element = st_alignment(tensor->dtype);
    tensor->data = tensor->bytes ? file->map + at : file->map;
    if (tensor->bytes && at % element)
        return st_fail(error,
                       "%.64s is misaligned: its data begins at byte %zu of the file, which is no "
                       "multiple of %zu, the size of %s",
                       tensor->name, at, element, tensor->dtype->name);
    return true;
}

static bool read_tensor(st_file_t *file, const char *name, json_t *entry, st_error_t *error)
{
    st_tensor_t *tensor = &file->tensors[file->count++];
    json_t *dtype, *shape, *offsets;
    tensor->name = name;
    if (!json_is_object(entry))
        return st_fail(error, "%.64s is %s, not an object", name, json_kind(entry));
    if (!(dtype = member(name, entry, "dtype", JSON_STRING, error)) ||
        !(shape = member(name, entry, "shape", JSON_ARRAY, error)) ||
        !(offsets = member(name, entry, "data_offsets", JSON_ARRAY, error)) ||
        !only_known_members(name, entry, error))
        return false;
    tensor->dtype = st_dtype_find(json_string_value(dtype));
    if (!tensor->dtype)
        return st_fail_dtype(error, name, json_string_value(dtype));
    return read_shape(tensor, shape, error) && read_offsets(file, tensor, offsets, error) &&
           place(file, tensor, error);
}

/* ---- the whole file -------------------------------------------------------------------------- */

static bool check_metadata(json_t *metadata, st_error_t *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return st_fail(error, "__metadata__ is %s, not an object", json_kind(metadata));
    json_object_foreach(metadata, key, value) if (!json_is_string(value)) return st_fail(
        error, "__metadata__.%.64s is %s, not a string", key, json_kind(value));
    return true;
}

static int by_place(const void *a, const void *b)
{
    const st_tensor_t *left = a, *right = b;
    size_t left_end = left->offset + left->bytes, right_end = right->offset + right->bytes;
    if (left->offset != right->offset)
        return left->offset < right->offset ? -1 : 1;
    return (left_end > right_end) - (left_end < right_end);
}

/* Every data byte belongs to one tensor. Sorts the tensors by place. */
static bool check_cover(st_file_t *file, st_error_t *error)
{
    size_t covered = 0, room = file->size - file->header;
    qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_place);
    for (int i = 0; i < file->count; i++) {
        const st_tensor_t *tensor = &file->tensors[i];
        if (tensor->offset < covered)
            return st_fail(error,
                           "%.64s begins at data byte %zu and overlaps %.64s, which ends at %zu",
                           tensor->name, tensor->offset, file->tensors[i - 1].name, covered);
        if (tensor->offset > covered)
            return st_fail(error, "data bytes %zu to %zu before %.64s belong to no tensor", covered,
                           tensor->offset, tensor->name);
        covered += tensor->bytes;
    }
    if (covered != room)
        return st_fail(error, "%zu trailing data bytes after byte %zu belong to no tensor",
                       room - covered, covered);
    return true;
}

static bool read_entries(st_file_t *file, st_error_t *error)
{
    const char *key;
    json_t *value;
    file->tensors = calloc(json_object_size(file->json) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return st_fail(error, "out of memory for %zu tensors", json_object_size(file->json));
    json_object_foreach(file->json, key, value)
    {
        bool good = strcmp(key, "__metadata__") == 0 ? check_metadata(value, error)
                                                     : read_tensor(file, key, value, error);
        if (!good)
            return false;
    }
    return check_cover(file, error);
}

static bool read_header(st_file_t *file, st_error_t *error)
{
    uint64_t length;
    json_error_t where;
    if (file->size < sizeof length)
        return st_fail(error,
                       "has %zu bytes, but a safetensors file begins with 8 bytes of header "
                       "length",
                       file->size);
    memcpy(&length, file->map, sizeof length);
    length = le64toh(length);
    if (length > ST_MAX_HEADER)
        return st_fail(error, "header length is %llu, over the format's limit of %d",
                       (unsigned long long)length, ST_MAX_HEADER);
    if (length > file->size - sizeof length)
        return st_fail(error, "header length is %llu, but only %zu bytes follow",
                       (unsigned long long)length, file->size - sizeof length);
    if (length == 0 || file->map[sizeof length] != '{')
        return st_fail(error, "header is not a JSON object: it does not begin with {");
    file->header = sizeof length + (size_t)length;
    file->json = json_loadb((const char *)file->map + sizeof length, (size_t)length,
                            JSON_REJECT_DUPLICATES, &where);
    if (!file->json)
        return st_fail(error, "header is not valid JSON: %s (byte %d)", where.text, where.position);
    return read_entries(file, error);
}

static bool map_file(st_file_t *file, st_error_t *error)
{
    struct stat about;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return st_fail(error, "cannot be opened: %s", strerror(errno));
    bool good = fstat(fd, &about) == 0;
    if (!good) {
        st_fail(error, "cannot be read: %s", strerror(errno));
    } else if (!S_ISREG(about.st_mode)) {
        good = st_fail(error, "is not a regular file");
    } else if ((file->size = (size_t)about.st_size) > 0) {
        void *map = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, fd, 0);
        good = map != MAP_FAILED || st_fail(error, "cannot be mapped: %s", strerror(errno));
        file->map = map != MAP_FAILED ? map : NULL;
    }
    close(fd);
    return good;
}

st_file_t *st_open(const char *path, st_error_t *error)
{
    st_file_t *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(path)))
        st_fail(error, "out of memory");
    else if (map_file(file, error) && read_header(file, error))
        return file;
    st_fail_in(error, path);
    st_close(file);
    return NULL;
}

void st_close(st_file_t *file)
{
    if (!file)
        return;
    for (int i = 0; i < file->count; i++)
        free((void *)file->tensors[i].shape);
    free(file->tensors);
    json_decref(file->json);
    if (file->map)
        munmap((void *)file->map, file->size);
    free(file->path);
    free(file);
}

const char *st_path(const st_file_t *file)
{
    return file->path;
}

const st_tensor_t *st_at(const st_file_t *file, int index)
{
    return index >= 0 && index < file->count ? &file->tensors[index] : NULL;
}

const st_tensor_t *st_find(const st_file_t *file, const char *name)
{
    for (int i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

/* Whole pages; a last one that is begun belongs to what follows. */
static void advise(const void *data, size_t bytes, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data;
    uintptr_t first = at / page * page, end = (at + bytes) / page * page;
    if (end > first)
        (void)madvise((char *)data - (at - first), end - first, advice); /* a hint, no more */
}

void st_will_need(const void *data, size_t bytes)
{
    advise(data, bytes, MADV_WILLNEED);
}

void st_is_done(const void *data, size_t bytes)
{
    advise(data, bytes, MADV_DONTNEED);
}

const json_t *st_metadata(const st_file_t *file)
{
    return json_object_get(file->json, "__metadata__");
}
