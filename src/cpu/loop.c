/* A loop over independent items by a team. */
#include "../common/loop.h"
#include "parallel.h"

#include <stdatomic.h>

typedef struct loop {
    hd_loop_fn item;
    void *arg;
    int64_t count;
    _Atomic int64_t next;
} loop_t;

static void member(const hd_team_t *team, void *at)
{
    loop_t *loop = at;
    int64_t i;
    while ((i = atomic_fetch_add(&loop->next, 1)) < loop->count)
        loop->item(loop->arg, team->rank, i);
}

void hd_loop(int threads, int64_t count, hd_loop_fn item, void *arg)
{
    loop_t loop = {.item = item, .arg = arg, .count = count};
    atomic_init(&loop.next, 0);
    hd_parallel(count < threads ? (int)count : threads, member, &loop);
}
