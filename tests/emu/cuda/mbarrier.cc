/* mbarriers, the fences between ordinary accesses and those of units, register reallocation, and
 * where Hopper's state begins and ends. */
#include "state.h"

#include <algorithm>

namespace emu
{

constexpr uint64_t MBARRIER = 0x7265697272616273; /* what the 64 bits of an initialised one hold */

/* ---- beginning and end ----------------------------------------------------------------------- */

/* A kernel starts with an equal share of the 64 Ki registers; more for one thread come from others.
 */
static int registers_at_start(int threads)
{
    return std::min(256, 65536 / threads / 8 * 8);
}

void sm90_start(block *b)
{
    b->sm90.mbarriers.reserve(MBARRIERS); /* references to them stay good */
    b->sm90.mbarrier_at.assign(m.shared_bytes / 8 + 1, -1);
    b->sm90.free_registers = 0;
}

void sm90_start(block *b, fiber *f)
{
    f->sm90.registers = registers_at_start(b->threads);
    f->sm90.fence.assign((size_t)b->components, 0);
    f->sm90.storer = -1;
    f->sm90.registers_free = true;
}

void sm90_end(fiber *f)
{
    tma_end(f);
    wgmma_end(f);
}

/* Whether some thread waited for the latest load on this mbarrier. */
static bool saw_last_load(const block *b, uint32_t index)
{
    const uint32_t loads = b->sm90.mbarriers[index].loads;
    for (const fiber &f : b->fibers)
        if (f.clock[component_of_mbarrier(index)] == loads)
            return true;
    return false;
}

void sm90_end(block *b)
{
    for (uint32_t i = 0; i < b->sm90.mbarriers.size(); i++) {
        const mbarrier &barrier = b->sm90.mbarriers[i];
        ssize_t at = (char *)barrier.at - b->memory;
        if (!saw_last_load(b, i))
            report(NULL, "TMA load: the block ended without waiting for mbarrier shared+%zd", at);
        else if (barrier.bytes)
            report(NULL, "mbarrier: shared+%zd ended with %lld bytes missing", at,
                   (long long)barrier.bytes);
    }
}

uint32_t component_of_mbarrier(uint32_t index)
{
    return (uint32_t)m.now->threads + index;
}
uint32_t component_of_warpgroup(int index)
{
    return (uint32_t)(m.now->threads + MBARRIERS + index);
}
uint32_t component_of_storer(int index)
{
    return (uint32_t)(m.now->threads + MBARRIERS + WARPGROUPS + index);
}

/* ---- mbarriers ------------------------------------------------------------------------------- */

mbarrier &find_mbarrier(uint64_t *at, bool unit, const void *site)
{
    size_t offset = shared_offset(at, 8, site);
    int index = offset % 8 ? -1 : m.now->sm90.mbarrier_at[offset / 8];
    if (index < 0)
        fatal(site, "mbarrier: shared+%zu was never initialised", offset);
    if (*at != MBARRIER)
        fatal(site, "mbarrier: shared+%zu was overwritten", offset);
    mbarrier &barrier = m.now->sm90.mbarriers[(size_t)index];
    if (!is_before(barrier.made, m.cur->clock))
        report(site, "race: mbarrier shared+%zu used before its initialisation by %s is visible",
               offset, epoch_text(barrier.made).c_str());
    if (unit && !barrier.fenced)
        report(site, "proxy fence missing: mbarrier shared+%zu given to TMA without a fence",
               offset);
    return barrier;
}

/* The phase ends with the last arrival and the last byte. */
void try_complete(mbarrier &barrier)
{
    if (barrier.pending || barrier.bytes)
        return;
    join(barrier.released, barrier.gathered);
    barrier.phase++;
    barrier.pending = barrier.count;
    m.spins = 0;
    wake(barrier.waiters);
}

void mbarrier_init(uint64_t *at, uint32_t count)
{
    const void *site = EMU_SITE;
    size_t offset = shared_offset(at, 8, site);
    sm90_block &sm90 = m.now->sm90;
    if (offset % 8)
        fatal(site, "mbarrier: shared+%zu is not aligned to 8 bytes", offset);
    if (sm90.mbarrier_at[offset / 8] >= 0)
        fatal(site, "mbarrier: shared+%zu is initialised twice", offset);
    if (sm90.mbarriers.size() == MBARRIERS)
        fatal(site, "mbarrier: a block has more than %d", (int)MBARRIERS);
    if (!count || count >= 1u << 20)
        fatal(site, "mbarrier: a count of %u", count);
    saw_write(at, 8, site);
    *at = MBARRIER;
    sm90.mbarrier_at[offset / 8] = (int16_t)sm90.mbarriers.size();
    mbarrier barrier = {};
    barrier.at = at;
    barrier.count = count;
    barrier.pending = count;
    barrier.made = make_epoch((uint32_t)m.cur->id, m.cur->clock[(size_t)m.cur->id]);
    barrier.gathered.assign((size_t)m.now->components, 0);
    barrier.released = barrier.gathered;
    sm90.mbarriers.push_back(barrier);
}

void mbarrier_arrive(uint64_t *at, uint32_t bytes)
{
    const void *site = EMU_SITE;
    maybe_yield();
    mbarrier &barrier = find_mbarrier(at, false, site);
    if (bytes >= 1u << 20)
        fatal(site, "mbarrier: %u bytes expected at once", bytes);
    if (barrier.pending <= 0)
        report(site, "mbarrier: shared+%zd has more arrivals than its count %u in one phase",
               (char *)at - m.now->memory, barrier.count);
    join(barrier.gathered, m.cur->clock);
    tick();
    barrier.bytes += bytes;
    barrier.pending--;
    try_complete(barrier);
}

void mbarrier_wait(uint64_t *at, uint32_t parity)
{
    const void *site = EMU_SITE;
    maybe_yield();
    mbarrier &barrier = find_mbarrier(at, false, site);
    int64_t index = &barrier - m.now->sm90.mbarriers.data();
    if (parity > 1)
        fatal(site, "mbarrier: parity %u", parity);
    while ((barrier.phase & 1) == parity)
        block_on(barrier.waiters, "mbarrier", index << 1 | parity);
    join(m.cur->clock, barrier.released);
}

/* ---- fences between proxies ------------------------------------------------------------------ */

static void mark_mbarriers()
{
    for (mbarrier &barrier : m.now->sm90.mbarriers)
        if (barrier.made >> TIME_BITS == (uint32_t)m.cur->id)
            barrier.fenced = true;
}

void fence_mbarrier_init()
{
    maybe_yield();
    mark_mbarriers();
}

/* Speaks for what this thread wrote until now, and for what it was ordered after. */
void fence_async()
{
    maybe_yield();
    mark_mbarriers();
    m.cur->sm90.fence = m.cur->clock;
    m.cur->sm90.fences.push_back(m.cur->clock[(size_t)m.cur->id]);
    tick();
}

/* ---- warps ----------------------------------------------------------------------------------- */

/* Any lane may be the one. All must come. */
bool elect()
{
    char none = 0, all[32];
    exchange(~0u, &none, 1, all);
    unsigned lanes = lanes_of_warp();
    return m.cur->lane == (int)(m.cfg.seed % 32) % __builtin_popcount(lanes);
}

void set_registers(int registers, bool up)
{
    const void *site = EMU_SITE;
    maybe_yield();
    int more = registers - m.cur->sm90.registers;
    if (up ? more < 0 : more > 0)
        report(site, "setmaxnreg: from %d to %d registers is the wrong direction",
               m.cur->sm90.registers, registers);
    sm90_block &sm90 = m.now->sm90;
    while (more > sm90.free_registers)
        block_on(sm90.register_waiters, "registers (setmaxnreg)", registers);
    sm90.free_registers -= more;
    m.cur->sm90.registers = registers;
    wake(sm90.register_waiters);
}

} // namespace emu
