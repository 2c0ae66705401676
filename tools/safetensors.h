/* The safetensors file format: 8 bytes of header length (little endian), a JSON object that gives
 * every tensor's dtype, shape and place, then the data without holes.
 *
 * Files are read through a read-only mapping and checked in full before a tensor is handed out;
 * they are written under another name first, and appear whole or not at all. */
#ifndef TOOLS_SAFETENSORS_H
#define TOOLS_SAFETENSORS_H

#include <heed/heed.h>

#include <jansson.h>
#include <stdbool.h>

/* One sentence that begins with the file's path. Control characters of the file do not get in. */
typedef struct st_error {
    char text[512];
} st_error_t;

typedef struct st_dtype {
    const char *name;  /* the format's own word, "BF16" */
    int bits;          /* of one element */
    heed_dtype_t heed; /* 0 where Heed has no such dtype */
} st_dtype_t;

/* By the format's name and by Heed's dtype; NULL: none. */
const st_dtype_t *st_dtype_find(const char *name);
const st_dtype_t *st_dtype_of(heed_dtype_t dtype);

typedef struct st_tensor {
    const char *name;
    const st_dtype_t *dtype;
    int ndim; /* 0: one element */
    const int64_t *shape;
    int64_t elements;
    size_t bytes;
    size_t offset;    /* from the end of the header */
    const void *data; /* in the mapping, aligned to the element; never NULL in a file read */
} st_tensor_t;

/* Fills elements and bytes from dtype and shape. False where that cannot be: *error says why,
 * without a path. */
bool st_measure(st_tensor_t *tensor, st_error_t *error);

/* Writes "[2,3]" and returns text. */
const char *st_shape_text(const st_tensor_t *tensor, char *text, size_t size);

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct st_file st_file_t;

/* NULL after an error. The file must not be shortened while it is open. */
st_file_t *st_open(const char *path, st_error_t *error);
void st_close(st_file_t *file); /* NULL is fine */

const char *st_path(const st_file_t *file);

/* Tensors in the order of their data. NULL past the end, or where no tensor has that name. */
const st_tensor_t *st_at(const st_file_t *file, int index);
const st_tensor_t *st_find(const st_file_t *file, const char *name);

/* Part of a tensor's data will be read soon, or not again for long. What is read in turns like this
 * takes memory for its parts alone, however large the file is. */
void st_will_need(const void *data, size_t bytes);
void st_is_done(const void *data, size_t bytes);

/* The file's own remarks, an object of strings; NULL: none. */
const json_t *st_metadata(const st_file_t *file);

/* ---- writing --------------------------------------------------------------------------------- */

typedef struct st_writer st_writer_t;

/* Begins a file with these tensors, of which name, dtype and shape are read, and writes its header.
 * metadata may be NULL. NULL after an error. */
st_writer_t *st_create(const char *path, const st_tensor_t *tensors, int count,
                       const json_t *metadata, st_error_t *error);

/* Appends to the data of tensor number `index`. Tensors may be written in any order and in pieces.
 */
bool st_append(st_writer_t *writer, int index, const void *data, size_t bytes, st_error_t *error);

/* Writes bytes anywhere into the data of tensor number `index`; each is to be written once. */
bool st_put(st_writer_t *writer, int index, size_t at, const void *data, size_t bytes,
            st_error_t *error);

/* Puts the complete file in its place. Ends the writer, also where it fails. */
bool st_commit(st_writer_t *writer, st_error_t *error);

/* Ends the writer without a trace; NULL is fine. */
void st_discard(st_writer_t *writer);

#endif
