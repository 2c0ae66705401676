/* Writing beside casting: a thread that has one piece of output at a time. */
#define _GNU_SOURCE
#include "convert.h"

#include "safetensors_internal.h"

#include <pthread.h>
#include <stdlib.h>

enum { PARTS = 2 }; /* codes and scales */

struct convert_output {
    st_writer_t *writer;
    convert_piece_t pieces[PARTS]; /* what is being written, or waits to be */
    int count;
    bool over, failed;
    st_error_t error;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static void write_pieces(convert_output_t *output)
{
    for (int i = 0; i < output->count && !output->failed; i++) {
        const convert_piece_t *piece = &output->pieces[i];
        output->failed =
            !st_append(output->writer, piece->index, piece->data, piece->bytes, &output->error);
    }
}

static void *work(void *arg)
{
    convert_output_t *output = arg;
    pthread_mutex_lock(&output->lock);
    while (!output->over || output->count) {
        if (!output->count) {
            pthread_cond_wait(&output->changed, &output->lock);
            continue;
        }
        /* Nobody touches the pieces before count is 0 again. */
        pthread_mutex_unlock(&output->lock);
        write_pieces(output);
        pthread_mutex_lock(&output->lock);
        output->count = 0;
        pthread_cond_signal(&output->changed);
    }
    pthread_mutex_unlock(&output->lock);
    return NULL;
}

convert_output_t *convert_output_new(st_writer_t *writer, st_error_t *error)
{
    convert_output_t *output = calloc(1, sizeof *output);
    if (output) {
        output->writer = writer;
        pthread_mutex_init(&output->lock, NULL);
        pthread_cond_init(&output->changed, NULL);
        if (pthread_create(&output->thread, NULL, work, output) == 0)
            return output;
        pthread_cond_destroy(&output->changed);
        pthread_mutex_destroy(&output->lock);
        free(output);
    }
    st_fail(error, "no thread for writing can be had");
    return NULL;
}

bool convert_output_put(convert_output_t *output, const convert_piece_t *pieces, int count,
                        st_error_t *error)
{
    pthread_mutex_lock(&output->lock);
    while (output->count)
        pthread_cond_wait(&output->changed, &output->lock);
    bool good = !output->failed;
    if (good) {
        for (int i = 0; i < count; i++)
            output->pieces[i] = pieces[i];
        output->count = count;
        pthread_cond_signal(&output->changed);
    } else {
        *error = output->error;
    }
    pthread_mutex_unlock(&output->lock);
    return good;
}

bool convert_output_end(convert_output_t *output, st_error_t *error)
{
    if (!output)
        return false;
    pthread_mutex_lock(&output->lock);
    output->over = true;
    pthread_cond_signal(&output->changed);
    pthread_mutex_unlock(&output->lock);
    pthread_join(output->thread, NULL);
    bool good = !output->failed;
    if (!good)
        *error = output->error;
    pthread_cond_destroy(&output->changed);
    pthread_mutex_destroy(&output->lock);
    free(output);
    return good;
}
