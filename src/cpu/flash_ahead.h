/* Keys and values of the next step on their way into the second cache, a few lines at a time beside
 * the softmax: of rows that tiles read here and there the processor's own prefetcher makes nothing,
 * and a burst of fetches would hold up the loads behind it. For tasks that walk alone: others find
 * what packing has left in the cache, where fetching costs 5 % and brings nothing. */
#ifndef HD_FLASH_AHEAD_H
#define HD_FLASH_AHEAD_H

#include "vec.h"

#include "../common/view.h"

/* Rows of K or V that are to come. */
typedef struct flash_stream {
    const char *row;       /* the next */
    int64_t stride, bytes; /* of a row */
    int64_t at;            /* bytes of it that are on their way */
    int64_t run;           /* rows a stride apart, from this one on */
    const hd_view_t *view; /* the other runs: those of keys key .. end-1 */
    int64_t b, head, key, end;
} flash_stream_t;

typedef struct flash_ahead {
    flash_stream_t k, v;
    int lines; /* of each at a time; 0: nothing is fetched */
} flash_ahead_t;

HD_INLINE flash_stream_t flash_stream(const hd_view_t *view, int64_t b, int64_t head, int64_t key,
                                      int64_t end, int64_t size)
{
    return (flash_stream_t){.stride = view->row,
                            .bytes = view->elem * size,
                            .view = view,
                            .b = b,
                            .head = head,
                            .key = key,
                            .end = end};
}

/* The next run; false: there is none. */
HD_NOINLINE bool flash_stream_turn(flash_stream_t *s)
{
    if (s->key >= s->end)
        return false;
    s->run = hd_view_run(s->view, s->key, s->end - s->key);
    s->row = hd_view_row(s->view, s->b, s->key, s->head);
    s->key += s->run;
    return true;
}

HD_INLINE void flash_stream_fetch(flash_stream_t *s, int lines)
{
    for (; lines > 0; lines--) {
        if (s->run <= 0 && !flash_stream_turn(s))
            return;
        __builtin_prefetch(s->row + s->at, 0, 2);
        s->at += 64;
        if (s->at >= s->bytes) {
            s->at = 0;
            s->row += s->stride;
            s->run--;
        }
    }
}

HD_INLINE void flash_fetch(flash_ahead_t *ahead)
{
    flash_stream_fetch(&ahead->k, ahead->lines);
    flash_stream_fetch(&ahead->v, ahead->lines);
}

#endif
