/* The race detector. Each two bytes that a kernel touches have a cell that knows the last write and
 * a few reads since; every access is compared with it by vector clocks, so that a race is found
 * whichever way the threads happened to run. */
#include "state.h"

#include <unordered_map>

namespace emu
{

static epoch my_epoch()
{
    return make_epoch((uint32_t)m.cur->id, m.cur->clock[(size_t)m.cur->id]);
}

/* ---- one block ------------------------------------------------------------------------------- */

static void report_race(const char *verb, const char *space, size_t at, epoch writer,
                        uint32_t writer_site, const void *site)
{
    report(site, "race: thread %s %s+%zu written by %s at %s without synchronisation", verb, space,
           at, epoch_text(writer).c_str(), site_text(writer_site).c_str());
}

static void read_cell(cell &c, const char *space, size_t at, const void *site)
{
    const clock_vector &clock = m.cur->clock;
    epoch mine = my_epoch(), *forgotten = &c.readers[0];
    if (c.readers[0] == mine) /* nothing happened since */
        return;
    if (c.writer && !is_before(c.writer, clock))
        report_race("reads", space, at, c.writer, c.site, site);
    for (epoch &reader : c.readers) {
        if (!reader || reader >> TIME_BITS == mine >> TIME_BITS) {
            reader = mine;
            return;
        }
        if (is_before(reader, clock)) /* a write that follows us follows it */
            forgotten = &reader;
    }
    *forgotten = mine;
}

static void write_cell(cell &c, const char *space, size_t at, const void *site)
{
    const clock_vector &clock = m.cur->clock;
    if (c.writer && !is_before(c.writer, clock))
        report_race("overwrites", space, at, c.writer, c.site, site);
    for (epoch reader : c.readers)
        if (reader && !is_before(reader, clock))
            report(site, "race: thread overwrites %s+%zu still read by %s", space, at,
                   epoch_text(reader).c_str());
    c = cell();
    c.writer = my_epoch();
    c.site = site_number(site);
}

static void visit_shared(cell &c, bool write, size_t at, const void *site)
{
    if (write) {
        write_cell(c, "shared", at, site);
        return;
    }
    if (!c.writer)
        report(site, "uninitialised: thread reads shared+%zu, which nobody wrote", at);
    read_cell(c, "shared", at, site);
}

/* The cells of one access mostly share their history: then the first speaks for all. */
static void saw_shared(const void *at, size_t bytes, bool write, const void *site)
{
    size_t offset = shared_offset(at, bytes, site), last = (offset + bytes - 1) / 2;
    cell *cells = m.now->shadow.data(), before = cells[offset / 2];
    visit_shared(cells[offset / 2], write, offset / 2 * 2, site);
    for (size_t i = offset / 2 + 1; i <= last; i++) {
        if (memcmp(&cells[i], &before, sizeof(before)) == 0)
            cells[i] = cells[offset / 2];
        else
            visit_shared(cells[i], write, 2 * i, site);
    }
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
    for (uintptr_t i = (uintptr_t)at / 2; i <= ((uintptr_t)at + bytes - 1) / 2; i++) {
        global_cell &g = global_cell_of(i);
        check_blocks(g, write, (const void *)(2 * i), site);
        if (g.owner != me) { /* clocks of another block say nothing here */
            g.in_block = cell();
            g.owner = me;
        }
        if (write) {
            write_cell(g.in_block, "global", 2 * i, site);
            g.write_block = me;
            g.write_stamp = stamp;
            g.write_site = site_number(site);
        } else {
            read_cell(g.in_block, "global", 2 * i, site);
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
        saw_shared(at, bytes, write, site);
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
