/* Writing safetensors: everything goes to a file beside the target, which takes the target's name
 * only when it is complete and on disk. */
#define _GNU_SOURCE
#include "safetensors_internal.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct slot {
    char *name;
    size_t start; /* in the file */
    size_t bytes;
    size_t written;
} slot_t;

struct st_writer {
    char *path;      /* as given, for sentences */
    char *target;    /* with symbolic links followed */
    char *temporary; /* NULL: not created, or gone */
    int fd;
    slot_t *slots;
    int count;
};

/* ---- header ---------------------------------------------------------------------------------- */

/* Larger elements first: each tensor then begins at a multiple of its element. Stable. */
static int *order_tensors(const st_tensor_t *tensors, int count)
{
    int *order = calloc((size_t)count + 1, sizeof *order);
    for (int i = 0; order && i < count; i++) {
        int at = i;
        for (; at > 0 && tensors[order[at - 1]].dtype->bits < tensors[i].dtype->bits; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    return order;
}

static json_t *tensor_entry(const st_tensor_t *tensor, const slot_t *slot)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->ndim; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", tensor->dtype->name, "shape", shape,
                     "data_offsets", (json_int_t)slot->start,
                     (json_int_t)(slot->start + slot->bytes));
}

/* Measures a tensor and gives it the next place in the data, at *end. */
static bool place_tensor(slot_t *slot, const st_tensor_t *from, size_t *end, json_t *header,
                         st_error_t *error)
{
    st_tensor_t tensor = *from;
    if (!st_measure(&tensor, error))
        return false;
    slot->name = strdup(tensor.name);
    slot->start = *end;
    slot->bytes = tensor.bytes;
    if (__builtin_add_overflow(*end, tensor.bytes, end) || *end > INT64_MAX)
        return st_fail(error, "%.64s makes the file too large", tensor.name);
    if (strcmp(tensor.name, "__metadata__") == 0 || json_object_get(header, tensor.name))
        return st_fail(error, "the name %.64s is taken", tensor.name);
    if (!slot->name || json_object_set_new(header, tensor.name, tensor_entry(&tensor, slot)))
        return st_fail(error, "the entry of %.64s cannot be made: is its name UTF-8?", tensor.name);
    return true;
}

static json_t *build_header(st_writer_t *writer, const st_tensor_t *tensors, const json_t *metadata,
                            st_error_t *error)
{
    json_t *header = json_object();
    int *order = order_tensors(tensors, writer->count);
    size_t end = 0;
    bool good = header && order;
    if (!good)
        st_fail(error, "out of memory for the header");
    if (good && metadata)
        json_object_set_new(header, "__metadata__", json_deep_copy(metadata));
    for (int i = 0; good && i < writer->count; i++)
        good = place_tensor(&writer->slots[order[i]], &tensors[order[i]], &end, header, error);
    free(order);
    if (!good)
        json_decref(header);
    return good ? header : NULL;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static bool write_at(const st_writer_t *writer, const void *data, size_t bytes, size_t at,
                     st_error_t *error)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t wrote =
            pwrite(writer->fd, (const char *)data + done, bytes - done, (off_t)(at + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return st_fail(error, "cannot be written: %s", strerror(wrote ? errno : ENOSPC));
        done += (size_t)wrote;
    }
    return true;
}

/* Length, JSON, and spaces up to a multiple of 8, so that the data is aligned. */
static bool write_header(st_writer_t *writer, const json_t *header, st_error_t *error)
{
    char *text = json_dumps(header, JSON_COMPACT);
    size_t length = text ? strlen(text) : 0, padded = (length + 7) / 8 * 8;
    char *bytes = text && padded <= ST_MAX_HEADER ? malloc(8 + padded) : NULL;
    bool good = bytes != NULL;
    if (good) {
        uint64_t little = htole64(padded);
        memcpy(bytes, &little, 8);
        memcpy(bytes + 8, text, length);
        memset(bytes + 8 + length, ' ', padded - length);
        good = write_at(writer, bytes, 8 + padded, 0, error);
    } else {
        st_fail(error, "the header of %zu bytes cannot be made", padded);
    }
    for (int i = 0; i < writer->count; i++)
        writer->slots[i].start += 8 + padded;
    free(bytes);
    free(text);
    return good;
}

/* ---- the file beside the target -------------------------------------------------------------- */

/* A device or folder must not be replaced by a file. */
static bool resolve_target(st_writer_t *writer, const char *path, st_error_t *error)
{
    struct stat about;
    writer->target = realpath(path, NULL);
    if (!writer->target)
        writer->target = strdup(path);
    if (!writer->target)
        return st_fail(error, "out of memory");
    if (stat(writer->target, &about) == 0 && !S_ISREG(about.st_mode))
        return st_fail(error, "is not a regular file");
    return true;
}

static bool open_temporary(st_writer_t *writer, st_error_t *error)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        char *name;
        if (asprintf(&name, "%s.%ld-%d.tmp", writer->target, (long)getpid(), attempt) < 0)
            return st_fail(error, "out of memory");
        writer->fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->fd >= 0) {
            writer->temporary = name;
            return true;
        }
        free(name);
        if (errno != EEXIST)
            break;
    }
    return st_fail(error, "cannot be created: %s", strerror(errno));
}

static void sync_folder(const char *target)
{
    char *folder = strdup(target);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (slash)
        slash[slash == folder] = '\0';
    int fd = folder ? open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd); /* not every file system can; the file itself is on disk already */
        close(fd);
    }
    free(folder);
}

/* ---- interface ------------------------------------------------------------------------------- */

st_writer_t *st_create(const char *path, const st_tensor_t *tensors, int count,
                       const json_t *metadata, st_error_t *error)
{
    st_writer_t *writer = calloc(1, sizeof *writer);
    json_t *header = NULL;
    bool good = false;
    if (writer) {
        writer->fd = -1;
        writer->count = count;
        writer->path = strdup(path);
        writer->slots = calloc((size_t)count + 1, sizeof *writer->slots);
    }
    if (!writer || !writer->path || !writer->slots)
        st_fail(error, "out of memory");
    else
        good = (header = build_header(writer, tensors, metadata, error)) &&
               resolve_target(writer, path, error) && open_temporary(writer, error) &&
               write_header(writer, header, error);
    json_decref(header);
    if (good)
        return writer;
    st_fail_in(error, path);
    st_discard(writer);
    return NULL;
}

bool st_put(st_writer_t *writer, int index, size_t at, const void *data, size_t bytes,
            st_error_t *error)
{
    slot_t *slot = &writer->slots[index];
    if (at > slot->bytes || bytes > slot->bytes - at || bytes > slot->bytes - slot->written) {
        st_fail(error, "%.64s takes %zu bytes, not %zu", slot->name, slot->bytes,
                (at > slot->written ? at : slot->written) + bytes);
        return st_fail_in(error, writer->path);
    }
    if (!write_at(writer, data, bytes, slot->start + at, error))
        return st_fail_in(error, writer->path);
    /* On its way to the disk already, so that little is left for the end. A hint: it may fail. */
    sync_file_range(writer->fd, (off_t)(slot->start + slot->written), (off_t)bytes,
                    SYNC_FILE_RANGE_WRITE);
    slot->written += bytes;
    return true;
}

bool st_append(st_writer_t *writer, int index, const void *data, size_t bytes, st_error_t *error)
{
    return st_put(writer, index, writer->slots[index].written, data, bytes, error);
}

static bool commit(st_writer_t *writer, st_error_t *error)
{
    for (int i = 0; i < writer->count; i++)
        if (writer->slots[i].written != writer->slots[i].bytes)
            return st_fail(error, "%.64s has %zu of its %zu bytes", writer->slots[i].name,
                           writer->slots[i].written, writer->slots[i].bytes);
    bool synced = fsync(writer->fd) == 0;
    int problem = errno;
    bool closed = close(writer->fd) == 0;
    writer->fd = -1;
    if (!synced || !closed)
        return st_fail(error, "cannot be written: %s", strerror(synced ? errno : problem));
    if (rename(writer->temporary, writer->target))
        return st_fail(error, "cannot be put in place: %s", strerror(errno));
    free(writer->temporary);
    writer->temporary = NULL;
    sync_folder(writer->target);
    return true;
}

bool st_commit(st_writer_t *writer, st_error_t *error)
{
    bool good = commit(writer, error) || st_fail_in(error, writer->path);
    st_discard(writer);
    return good;
}

void st_discard(st_writer_t *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->temporary)
        unlink(writer->temporary);
    for (int i = 0; writer->slots && i < writer->count; i++)
        free(writer->slots[i].name);
    free(writer->slots);
    free(writer->temporary);
    free(writer->target);
    free(writer->path);
    free(writer);
}
