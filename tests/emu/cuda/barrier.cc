/* Where threads wait for each other: barriers, warp barriers, exchanges between lanes, atomics. */
#include "state.h"

#include <algorithm>

namespace emu
{

static void open_barrier(meeting_point &point)
{
    point.released = point.gathered;
    std::fill(point.gathered.begin(), point.gathered.end(), 0);
    point.arrived = 0;
    m.spins = 0;
    for (fiber *f : point.waiters)
        join(f->clock, point.released);
    wake(point.waiters);
}

void barrier(int id, int threads, bool wait)
{
    const void *site = EMU_SITE;
    /* __syncthreads counts every thread, in warps that need not be whole. */
    bool whole = id == 0 && threads == m.now->threads;
    if (id < 0 || id >= BARRIERS || threads <= 0 || (threads % 32 && !whole))
        fatal(site, "barrier: number %d with %d threads", id, threads);
    maybe_yield();
    meeting_point &point = m.now->barriers[id];
    if (point.arrived && point.expected != threads)
        report(site, "barrier: number %d waits for %d threads and for %d at once", id,
               point.expected, threads);
    point.expected = threads;
    join(point.gathered, m.cur->clock);
    tick();
    if (++point.arrived < threads) {
        if (wait)
            block_on(point.waiters, "barrier", id);
        return;
    }
    open_barrier(point);
    if (wait)
        join(m.cur->clock, point.released);
}

/* The meeting of the lanes in mask; fatal where the calling lane is not one of them. */
static lane_meeting &join_lanes(std::map<unsigned, lane_meeting> &meetings, unsigned mask,
                                const char *what, const void *site)
{
    if (!(mask >> m.cur->lane & 1))
        fatal(site, "%s: lane %d is not in its own mask %08x", what, m.cur->lane, mask);
    lane_meeting &meeting = meetings[mask];
    meeting.arrived |= 1u << m.cur->lane;
    return meeting;
}

void sync_warp(unsigned mask)
{
    const void *site = EMU_SITE;
    maybe_yield();
    lane_meeting &meeting = join_lanes(m.now->warp_barriers[m.cur->warp], mask, "__syncwarp", site);
    meeting.gathered.resize((size_t)m.now->components);
    join(meeting.gathered, m.cur->clock);
    tick();
    if (meeting.arrived != (mask & lanes_of_warp())) {
        block_on(meeting.waiters, "__syncwarp with mask", mask);
        return;
    }
    for (fiber *f : meeting.waiters)
        join(f->clock, meeting.gathered);
    join(m.cur->clock, meeting.gathered);
    meeting.arrived = 0;
    meeting.gathered.clear();
    wake(meeting.waiters);
}

void exchange(unsigned mask, const void *mine, size_t bytes, void *all)
{
    const void *site = EMU_SITE;
    if (bytes > 64)
        fatal(site, "exchange: %zu bytes a lane", bytes);
    maybe_yield();
    lane_meeting &meeting = join_lanes(m.now->exchanges[m.cur->warp], mask, "warp operation", site);
    char *values = meeting.values[meeting.generation % 2];
    if (meeting.waiters.empty())
        meeting.bytes = bytes;
    if (meeting.bytes != bytes)
        fatal(site, "warp operation: lanes of one warp are at different ones (%zu and %zu bytes)",
              meeting.bytes, bytes);
    memcpy(values + (size_t)m.cur->lane * bytes, mine, bytes);
    if (meeting.arrived != (mask & lanes_of_warp())) {
        block_on(meeting.waiters, "a warp operation (shuffle, vote, matrix) with mask", mask);
    } else {
        meeting.arrived = 0;
        meeting.generation++;
        wake(meeting.waiters);
    }
    memcpy(all, values, 32 * bytes);
}

/* ---- atomics and fences ---------------------------------------------------------------------- */

/* An atomic acquires what earlier atomics on the same place released, and releases what its thread
 * did. The device orders less: without __threadfence around it, nothing. */
void atomic(void *at, size_t bytes)
{
    const void *site = EMU_SITE;
    maybe_yield();
    if (bytes > 8 || (uintptr_t)at % bytes)
        fatal(site, "atomic: %p is not aligned to %zu bytes", at, bytes);
    clock_vector &order = m.now->atomics[at];
    order.resize((size_t)m.now->components);
    join(m.cur->clock, order);
    order = m.cur->clock;
    if (is_near_shared(at)) {
        shared_offset(at, bytes, site);
        saw_write(at, bytes, site);
    } else {
        m.last_atomic[m.now->number] = ++m.atomics;
        saw_global(at, bytes, true, true, site);
    }
    tick();
}

void fence_memory()
{
    maybe_yield();
}

/* Memory that a twin touches on behalf of an instruction that was already checked. */
void copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

} // namespace emu
