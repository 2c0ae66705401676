/* Rows that are to be read or written soon, on their way into the second cache a few lines at a
 * time beside arithmetic: of rows that tiles read here and there the processor's own prefetcher
 * makes nothing, and a burst of fetches would hold up the loads behind it. What is fetched is said
 * in flash_next.h, of the next step of a task that walks alone in flash_task.h. */
#ifndef HD_FLASH_AHEAD_H
#define HD_FLASH_AHEAD_H

#include "vec.h"

#include "../common/attention.h"

typedef struct flash_stream {
    const char *row;       /* the next */
    int64_t stride, bytes; /* of a row */
    int64_t at;            /* bytes of it that are on their way */
    int64_t run;           /* rows a stride apart, from this one on */
    const hd_view_t *view; /* the other runs: those of rows first .. end-1 */
    int64_t b, head, first, end;
    bool write;
} flash_stream_t;

/* Streams at most; bytes of operands that a core's second cache is expected to have kept; lines at
 * a time at most, or loads wait for the buffers that fetches take. */
enum { AHEAD_STREAMS = 12, AHEAD_BYTES = 1 << 20, MOST_LINES = 16 };

typedef struct flash_ahead {
    flash_stream_t streams[AHEAD_STREAMS]; /* one after the other */
    int at, count;
    int lines; /* fetched at a time beside the softmax of AMX */
    int every; /* multiply-adds of vectors, elsewhere, for each line */
} flash_ahead_t;

/* Adds rows first .. end-1 of `size` elements, where there is room. */
static void flash_add_rows(flash_ahead_t *ahead, const hd_view_t *view, int64_t b, int64_t head,
                           int64_t first, int64_t end, int size, bool write)
{
    if (ahead->count == AHEAD_STREAMS || first >= end)
        return;
    ahead->streams[ahead->count++] = (flash_stream_t){.stride = view->row,
                                                      .bytes = view->elem * size,
                                                      .view = view,
                                                      .b = b,
                                                      .head = head,
                                                      .first = first,
                                                      .end = end,
                                                      .write = write};
}

/* Whether rows of whole lines lie apart: each may be a page of its own to look up, and the
 * processor does not fetch the next by itself. */
static inline bool flash_rows_apart(const hd_view_t *view, int size)
{
    int64_t bytes = view->elem * size;
    return view->row != bytes && bytes % 64 == 0;
}

/* The next run; false: there is none. */
HD_NOINLINE bool flash_stream_turn(flash_stream_t *s)
{
    if (s->first >= s->end)
        return false;
    s->run = hd_view_run(s->view, s->first, s->end - s->first);
    s->row = hd_view_row(s->view, s->b, s->first, s->head);
    s->first += s->run;
    return true;
}

/* The next lines of a stream; returns how many of `lines` it lacks. */
HD_INLINE int flash_stream_fetch(flash_stream_t *s, int lines)
{
    for (; lines > 0; lines--) {
        if (s->run <= 0 && !flash_stream_turn(s))
            return lines;
        if (s->write)
            __builtin_prefetch(s->row + s->at, 1, 2);
        else
            __builtin_prefetch(s->row + s->at, 0, 2);
        s->at += 64;
        if (s->at >= s->bytes) {
            s->at = 0;
            s->row += s->stride;
            s->run--;
        }
    }
    return 0;
}

/* The next lines of all streams. */
HD_INLINE void flash_fetch(flash_ahead_t *ahead, int lines)
{
    while (ahead->at < ahead->count && lines > 0) {
        lines = flash_stream_fetch(&ahead->streams[ahead->at], lines);
        ahead->at += lines > 0;
    }
}

/* The same before `count` multiply-adds of vectors. */
HD_INLINE void flash_fetch_beside(flash_ahead_t *ahead, int count)
{
    if (ahead->at < ahead->count)
        flash_fetch(ahead, count / ahead->every);
}

/* Shares the lines of all streams out among `times` calls of flash_fetch. */
static inline void flash_share_out(flash_ahead_t *ahead, int64_t times)
{
    int64_t lines = 0;
    for (int i = 0; i < ahead->count; i++) {
        const flash_stream_t *s = &ahead->streams[i];
        lines += hd_ceil_div(s->bytes, 64) * (s->end - s->first);
    }
    ahead->lines = (int)hd_min(hd_ceil_div(lines, times), MOST_LINES);
}

#endif
