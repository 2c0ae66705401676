/* The scheduler: which blocks are alive, which thread runs next. */
#include "emulated.h"
#include "state.h"

#include <algorithm>

namespace emu
{

machine m;
static config next_config;
static bool any_failed;
static uint64_t macs; /* since they were last asked for */

enum { SPINS_MOST = 200000 };

uint32_t draw(uint32_t below)
{
    m.random ^= m.random << 13;
    m.random ^= m.random >> 7;
    m.random ^= m.random << 17;
    return (uint32_t)(m.random >> 32) % below;
}

/* ---- threads --------------------------------------------------------------------------------- */

void make_ready(fiber *f)
{
    m.now->ready[f->warp].push_back(f);
    m.now->ready_warps |= 1u << f->warp;
    m.now->ready_count++;
}

void suspend()
{
    fiber_leave(m.cur);
}

void maybe_yield()
{
    if (draw(4))
        return;
    make_ready(m.cur);
    suspend();
}

void block_on(std::vector<fiber *> &queue, const char *what, int64_t detail)
{
    fiber *f = m.cur;
    f->waits_for = what;
    f->detail = detail;
    queue.push_back(f);
    suspend();
    f->waits_for = "";
}

void wake(std::vector<fiber *> &queue)
{
    for (fiber *f : queue)
        make_ready(f);
    queue.clear();
}

void relax()
{
    if (++m.spins > SPINS_MOST)
        fatal(EMU_SITE, "livelock: threads poll and nothing else happens");
    make_ready(m.cur);
    suspend();
}

static void thread_main()
{
    fiber_begin(m.cur);
    m.thread(m.closure);
    cp_async_end(m.cur);
    sm90_end(m.cur);
    m.cur->done = true;
    suspend();
}

/* Even seeds give every warp the same chance. Odd ones follow priorities that rarely change, so
 * that some warps run far ahead of others. */
static int pick_warp(block *b)
{
    uint32_t warps = b->ready_warps;
    if (m.cfg.seed % 2 == 0) {
        for (uint32_t skip = draw((uint32_t)__builtin_popcount(warps)); skip > 0; skip--)
            warps &= warps - 1;
        return __builtin_ctz(warps);
    }
    if (draw(256) == 0)
        b->priority[draw(WARPS)] = draw(1u << 30);
    int best = __builtin_ctz(warps);
    for (; warps; warps &= warps - 1) {
        int warp = __builtin_ctz(warps);
        if (b->priority[warp] > b->priority[best])
            best = warp;
    }
    return best;
}

static fiber *pick(block *b)
{
    int warp = pick_warp(b);
    std::vector<fiber *> &queue = b->ready[warp];
    size_t index = draw((uint32_t)queue.size());
    fiber *f = queue[index];
    queue[index] = queue.back();
    queue.pop_back();
    b->ready_count--;
    if (queue.empty())
        b->ready_warps &= ~(1u << warp);
    return f;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static dim3 position(uint64_t index, dim3 size)
{
    return dim3((unsigned)(index % size.x), (unsigned)(index / size.x % size.y),
                (unsigned)(index / size.x / size.y));
}

static void start_thread(block *b, int id, dim3 grid, dim3 threads)
{
    fiber *f = &b->fibers[(size_t)id];
    f->id = id;
    f->lane = id % 32;
    f->warp = id / 32;
    f->done = false;
    f->waits_for = "";
    f->at = {position((uint64_t)id, threads), position(b->number - 1, grid), threads, grid};
    f->clock.assign((size_t)b->components, 0);
    f->clock[(size_t)id] = 1;
    sm90_start(b, f);
    fiber_prepare(f, stack_of(b->slot, id), thread_main);
    make_ready(f);
}

static std::unique_ptr<block> start_block(dim3 grid, dim3 threads, uint64_t index, int slot)
{
    std::unique_ptr<block> made(new block());
    block *b = m.now = made.get();
    b->slot = slot;
    b->number = (uint32_t)index + 1;
    b->threads = b->left = (int)(threads.x * threads.y * threads.z);
    b->components = (b->threads + UNITS + 15) / 16 * 16;
    b->memory = memory_of_slot(slot);
    b->shadow.assign(m.shared_bytes / 2 + 1, cell());
    /* NaN as f16, bf16, f32 and E4M3. */
    memset(b->memory, 0xff, m.shared_bytes);
    for (uint32_t &p : b->priority)
        p = draw(1u << 30);
    for (meeting_point &point : b->barriers)
        point.gathered.assign((size_t)b->components, 0);
    sm90_start(b);
    b->fibers.resize((size_t)b->threads);
    for (int i = 0; i < b->threads; i++)
        start_thread(b, i, grid, threads);
    return made;
}

using alive_blocks = std::vector<std::unique_ptr<block>>;

static bool can_run(const block *b)
{
    return b->ready_count || !b->sm90.loads.empty();
}

/* Mostly stays with the block it is in. False: nothing can happen in any. */
static bool choose_block(const alive_blocks &alive)
{
    if (m.now && can_run(m.now) && draw(64))
        return true;
    size_t first = draw((uint32_t)alive.size());
    for (size_t i = 0; i < alive.size(); i++) {
        m.now = alive[(first + i) % alive.size()].get();
        if (can_run(m.now))
            return true;
    }
    return false;
}

/* Loads arrive late: when no thread can run, or rarely before. */
static bool should_land()
{
    if (m.now->sm90.loads.empty())
        return false;
    return !m.now->ready_count || !draw(m.cfg.seed % 4 < 2 ? 64 : 4096);
}

static void remove_block(alive_blocks &alive, std::vector<int> &slots)
{
    sm90_end(m.now);
    for (std::unique_ptr<block> &b : alive) {
        if (b.get() != m.now)
            continue;
        slots.push_back(b->slot);
        std::swap(b, alive.back());
        break;
    }
    alive.pop_back();
    m.now = NULL;
}

static void run_thread()
{
    m.cur = pick(m.now);
    m.res.switches++;
    fiber_enter(m.cur);
    m.now->left -= m.cur->done;
    m.spins = m.cur->done ? 0 : m.spins;
    m.cur = NULL;
}

/* Blocks that fit the card are alive together, and may wait for each other. */
static int slots_of(uint64_t total)
{
    int resident = std::max(m.cfg.resident, 1);
    if (total <= (uint64_t)m.cfg.multiprocessors)
        resident = (int)total;
    return std::min(resident, (int)SLOTS);
}

static void run_grid(dim3 grid, dim3 threads)
{
    uint64_t next = 0, total = (uint64_t)grid.x * grid.y * grid.z;
    alive_blocks alive;
    std::vector<int> slots;
    for (int i = 0; i < slots_of(total); i++)
        slots.push_back(i);
    while (!m.abandoned) {
        for (; !slots.empty() && next < total; next++, slots.pop_back())
            alive.push_back(start_block(grid, threads, next, slots.back()));
        if (alive.empty())
            return;
        if (!choose_block(alive)) {
            report_deadlock();
            return;
        }
        if (should_land())
            tma_land(m.now);
        else
            run_thread();
        if (m.now->left == 0)
            remove_block(alive, slots);
    }
}

/* ---- a launch -------------------------------------------------------------------------------- */

int shared_limit()
{
    return next_config.shared_limit;
}
void set_config(const config &config)
{
    next_config = config;
}

static bool is_launchable(dim3 grid, dim3 threads)
{
    uint64_t count = (uint64_t)threads.x * threads.y * threads.z;
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
        report(NULL, "launch: grid %u, %u, %u", grid.x, grid.y, grid.z);
    else if (!count || count > 1024 || threads.z > 64)
        report(NULL, "launch: block %u, %u, %u", threads.x, threads.y, threads.z);
    else if (m.shared_bytes > SHARED_MOST)
        report(NULL, "launch: %zu bytes of shared memory, more than 227 KiB", m.shared_bytes);
    else
        return true;
    return false;
}

result launch(dim3 grid, dim3 threads, size_t shared_bytes, void (*thread)(void *), void *closure)
{
    uint32_t serial = m.serial + 1;
    m = machine();
    m.serial = serial;
    m.cfg = next_config;
    m.random = (m.cfg.seed + 1) * 0x9e3779b97f4a7c15u | 1;
    m.thread = thread;
    m.closure = closure;
    m.shared_bytes = shared_bytes;
    if (is_launchable(grid, threads)) {
        m.last_atomic.assign((size_t)grid.x * grid.y * grid.z + 1, 0);
        memory_begin();
        run_grid(grid, threads);
        memory_end();
    }
    m.now = NULL;
    m.cur = NULL;
    m.res.messages = (int)m.messages.size();
    macs += m.res.tensor_macs;
    any_failed = any_failed || !m.res.ok();
    return m.res;
}

const char *message(int index)
{
    return (size_t)index < m.messages.size() ? m.messages[(size_t)index].c_str() : NULL;
}

bool said(const char *text)
{
    for (const std::string &message : m.messages)
        if (message.find(text) != message.npos)
            return true;
    return false;
}

bool take_failed()
{
    bool failed = any_failed;
    any_failed = false;
    return failed;
}

uint64_t take_macs()
{
    uint64_t taken = macs;
    macs = 0;
    return taken;
}

/* ---- the running thread ---------------------------------------------------------------------- */

const place &here()
{
    return m.cur->at;
}
void *shared()
{
    return m.now->memory;
}
int lane()
{
    return m.cur->lane;
}
unsigned lanes_of_warp()
{
    int lanes = m.now->threads - 32 * m.cur->warp;
    return lanes >= 32 ? ~0u : (1u << lanes) - 1;
}

} // namespace emu
