/* The race detector. Each two bytes that a kernel touches have a cell that knows the last write and
 * a few reads since; every access is compared with it by vector clocks, so that a race is found
 * whichever way the threads happened to run. */
#include "state.h"

#include <algorithm>
#include <unordered_map>

namespace emu
{

static accessor running_thread(const void *site)
{
    return {"thread", make_epoch((uint32_t)m.cur->id, m.cur->clock[(size_t)m.cur->id]),
            &m.cur->clock, NULL, site};
}

/* ---- one block ------------------------------------------------------------------------------- */

static void report_race(const accessor &who, const char *verb, const char *space, size_t at,
                        const cell &c)
{
    report(who.site, "race: %s %s %s+%zu written by %s at %s without synchronisation", who.name,
           verb, space, at, epoch_text(c.writer).c_str(), site_text(c.site).c_str());
}

/* A unit sees what a thread wrote if the thread made a fence behind it that the unit was ordered
 * after, or if the unit's thread made one after it was ordered behind the write. */
static void check_proxy(const cell &c, size_t at, const accessor &who)
{
    uint32_t writer = c.writer >> TIME_BITS, time = c.writer & ((1u << TIME_BITS) - 1);
    if (!c.writer || writer >= (uint32_t)m.now->threads || is_before(c.writer, *who.fence))
        return;
    const std::vector<uint32_t> &fences = m.now->fibers[writer].sm90.fences;
    auto behind = std::lower_bound(fences.begin(), fences.end(), time);
    if (behind == fences.end() || *behind > (*who.clock)[writer])
        report(who.site, "proxy fence missing: %s touches shared+%zu stored by %s at %s", who.name,
               at, epoch_text(c.writer).c_str(), site_text(c.site).c_str());
}

static void read_cell(cell &c, const char *space, size_t at, const accessor &who)
{
    epoch *forgotten = &c.readers[0];
    if (c.readers[0] == who.now) /* nothing happened since */
        return;
    if (c.writer && !is_before(c.writer, *who.clock))
        report_race(who, "reads", space, at, c);
    for (epoch &reader : c.readers) {
        if (!reader || reader >> TIME_BITS == who.now >> TIME_BITS) {
            reader = who.now;
            return;
        }
        if (is_before(reader, *who.clock)) /* a write that follows us follows it */
            forgotten = &reader;
    }
    *forgotten = who.now;
}

static void write_cell(cell &c, const char *space, size_t at, const accessor &who)
{
    if (c.writer && !is_before(c.writer, *who.clock))
        report_race(who, "overwrites", space, at, c);
    for (epoch reader : c.readers)
        if (reader && !is_before(reader, *who.clock))
            report(who.site, "race: %s overwrites %s+%zu still read by %s", who.name, space, at,
                   epoch_text(reader).c_str());
    c = cell();
    c.writer = who.now;
    c.site = site_number(who.site);
}

static void visit_shared(cell &c, bool write, size_t at, const accessor &who)
{
    if (who.fence)
        check_proxy(c, at, who);
    if (write) {
        write_cell(c, "shared", at, who);
        return;
    }
    if (!c.writer && is_instrumented())
        report(who.site, "uninitialised: %s reads shared+%zu, which nobody wrote", who.name, at);
    read_cell(c, "shared", at, who);
}

/* The cells of one access mostly share their history: then the first speaks for all. */
static void saw_shared(const void *at, size_t bytes, bool write, const accessor &who)
{
    size_t offset = shared_offset(at, bytes, who.site), last = (offset + bytes - 1) / 2;
    cell *cells = m.now->shadow.data(), before = cells[offset / 2];
    visit_shared(cells[offset / 2], write, offset / 2 * 2, who);
    for (size_t i = offset / 2 + 1; i <= last; i++) {
        if (memcmp(&cells[i], &before, sizeof(before)) == 0)
            cells[i] = cells[offset / 2];
        else
            visit_shared(cells[i], write, 2 * i, who);
    }
}

void saw_unit(const void *at, size_t bytes, bool write, const accessor &who)
{
    saw_shared(at, bytes, write, who);
}

/* ---- several blocks -------------------------------------------------------------------------- */

enum { PAGE_CELLS = 2048 };
struct shadow_page {
    uint32_t serial; /* of the launch whose accesses it holds */
    global_cell cells[PAGE_CELLS];
};
static std::unordered_map<uintptr_t, std::unique_ptr<shadow_page>> pages;

static global_cell &global_cell_of(uintptr_t half)
{
    static uintptr_t latest = ~(uintptr_t)0;
    static shadow_page *page;
    if (half / PAGE_CELLS != latest) {
        std::unique_ptr<shadow_page> &slot = pages[latest = half / PAGE_CELLS];
        if (!slot)
            slot.reset(new shadow_page());
        page = slot.get();
    }
    if (page->serial != m.serial) {
        memset((void *)page, 0, sizeof(*page));
        page->serial = m.serial;
    }
    return page->cells[half % PAGE_CELLS];
}

/* Blocks are ordered only through atomics: the other one did one after its access, and this one
 * did one since. */
static bool is_ordered_after(uint32_t other, uint32_t stamp)
{
    return m.last_atomic[other] > stamp && m.last_atomic[m.now->number] >= m.last_atomic[other];
}

static void check_blocks(global_cell &g, bool write, const void *at, const void *site)
{
    uint32_t me = m.now->number;
    if (g.write_block && g.write_block != me && !is_ordered_after(g.write_block, g.write_stamp))
        report(site, "race between blocks: %s %p written by block number %u at %s",
               write ? "overwrites" : "reads", at, g.write_block - 1,
               site_text(g.write_site).c_str());
    if (write && g.read_block && g.read_block != me &&
        !is_ordered_after(g.read_block, g.read_stamp))
        report(site, "race between blocks: overwrites %p read by block number %u", at,
               g.read_block - 1);
}

void saw_global(const void *at, size_t bytes, bool write, bool atomic, const void *site)
{
    uint32_t me = m.now->number, stamp = m.atomics - atomic;
    accessor who = running_thread(site);
    for (uintptr_t i = (uintptr_t)at / 2; i <= ((uintptr_t)at + bytes - 1) / 2; i++) {
        global_cell &g = global_cell_of(i);
        check_blocks(g, write, (const void *)(2 * i), site);
        if (g.owner != me) { /* clocks of another block say nothing here */
            g.in_block = cell();
            g.owner = me;
        }
        if (write) {
            write_cell(g.in_block, "global", 2 * i, who);
            g.write_block = me;
            g.write_stamp = stamp;
            g.write_site = site_number(site);
        } else {
            read_cell(g.in_block, "global", 2 * i, who);
            g.read_block = me;
            g.read_stamp = stamp;
        }
    }
}

/* ---- any access ------------------------------------------------------------------------------ */

static void saw(const void *at, size_t bytes, bool write, const void *site)
{
    if (!m.cur || !bytes || is_on_stack(at))
        return;
    if (is_near_shared(at))
        saw_shared(at, bytes, write, running_thread(site));
    else
        saw_global(at, bytes, write, false, site);
}

void saw_read(const void *at, size_t bytes, const void *site)
{
    saw(at, bytes, false, site);
}

void saw_write(const void *at, size_t bytes, const void *site)
{
    saw(at, bytes, true, site);
}

} // namespace emu
