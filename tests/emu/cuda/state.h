/* What the parts of the emulator share: fibers, blocks, clocks and the shadow of memory.
 *
 * A vector clock has a component for each thread of the block and, behind them, for each unit that
 * works on its own. An epoch is a component and its time; "a happened before b" is
 * time(a) <= clock(b)[component(a)]. */
#ifndef HEED_EMU_STATE_H
#define HEED_EMU_STATE_H

#include "simt_emu.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emu
{

enum { WARPS = 32, BARRIERS = 16, SLOTS = 16, READERS = 3 };
enum { TIME_BITS = 21 };
constexpr size_t SHARED_MOST = 227 << 10; /* what a block may ask for */
constexpr size_t GUARD = 1 << 20;
constexpr size_t STACK = 256 << 10;

using clock_vector = std::vector<uint32_t>;
using epoch = uint32_t;

inline epoch make_epoch(uint32_t component, uint32_t time)
{
    return component << TIME_BITS | time;
}
inline bool is_before(epoch e, const clock_vector &clock)
{
    return (e & ((1u << TIME_BITS) - 1)) <= clock[e >> TIME_BITS];
}
inline void join(clock_vector &into, const clock_vector &other)
{
    for (size_t i = 0, n = into.size(); i < n; i++)
        into[i] = into[i] > other[i] ? into[i] : other[i];
}

} // namespace emu
#include "state_sm90.h"
namespace emu
{

/* The history of two bytes. 0 is no access yet. */
struct cell {
    epoch writer;
    uint32_t site; /* of the write */
    epoch readers[READERS];
};
/* Global memory is seen by several blocks: number is the block's, counted from 1, and stamp the
 * count of atomics at the time of the access. */
struct global_cell {
    cell in_block; /* of the block that wrote or, before any write, read it last */
    uint32_t owner, write_block, write_stamp, write_site, read_block, read_stamp;
};

struct copy_order { /* a cp.async on its way */
    char *to;
    const char *from;
    int bytes, valid;
    const void *site;
};

struct fiber {
    void *stack_pointer, *fake_stack; /* the latter under an address sanitizer */
    place at;
    int id, lane, warp;
    bool done;
    const char *waits_for; /* for the report of a deadlock; "" while it runs */
    int64_t detail;
    clock_vector clock;
    std::vector<copy_order> copies;
    std::deque<std::vector<copy_order>> copy_groups;
    sm90_thread sm90;
};

struct meeting_point { /* a barrier */
    int expected = 0, arrived = 0;
    clock_vector gathered, released;
    std::vector<fiber *> waiters;
};
struct lane_meeting { /* of the lanes of one mask */
    unsigned arrived = 0;
    size_t bytes = 0;
    uint64_t generation = 0;
    char values[2][32 * 64];
    clock_vector gathered;
    std::vector<fiber *> waiters;
};

struct block {
    int slot, threads, left, components;
    uint32_t number; /* counted from 1, in launch order */
    char *memory;
    std::vector<fiber> fibers;
    std::vector<fiber *> ready[WARPS];
    uint32_t ready_warps;
    size_t ready_count;
    uint32_t priority[WARPS];
    meeting_point barriers[BARRIERS];
    std::map<unsigned, lane_meeting> exchanges[WARPS], warp_barriers[WARPS];
    std::map<const void *, clock_vector> atomics;
    std::vector<cell> shadow;
    sm90_block sm90;
};

/* ---- the one launch (launch.cc) -------------------------------------------------------------- */

struct machine {
    config cfg;
    result res;
    std::vector<std::string> messages;
    uint64_t random;
    block *now; /* whose thread runs or ran last */
    fiber *cur; /* NULL in the scheduler */
    void *scheduler;
    void (*thread)(void *);
    void *closure;
    size_t shared_bytes;
    uint64_t spins;
    bool abandoned;
    uint32_t serial;                   /* of the launch */
    uint32_t atomics;                  /* so far */
    std::vector<uint32_t> last_atomic; /* of each block */
};
extern machine m;
extern bool frames_left; /* on stacks, by a launch that ended early */

uint32_t draw(uint32_t below);
void make_ready(fiber *f);
void suspend();
void maybe_yield();
void block_on(std::vector<fiber *> &queue, const char *what, int64_t detail);
void wake(std::vector<fiber *> &queue);
uint32_t component_of_mbarrier(uint32_t index);
uint32_t component_of_warpgroup(int index);
uint32_t component_of_storer(int index);
inline void tick() /* after every release */
{
    m.cur->clock[m.cur->id]++;
}

/* ---- fiber.cc -------------------------------------------------------------------------------- */

void fiber_prepare(fiber *f, char *stack, void (*entry)());
void fiber_begin(fiber *f); /* the first that a thread does */
void fiber_enter(fiber *f); /* from the scheduler; returns at its next fiber_leave */
void fiber_leave(fiber *f);

/* ---- report.cc ------------------------------------------------------------------------------- */

/* Adds a message, once for each place and kind (the text up to the first colon). site is a return
 * address or NULL. */
void report(const void *site, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Reports, and ends the launch. From a fiber only. */
void fatal(const void *site, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));
[[noreturn]] void abandon();
void report_deadlock();
uint32_t site_number(const void *site);
std::string site_text(uint32_t number);
std::string epoch_text(epoch e);

#define EMU_SITE __builtin_return_address(0)

/* ---- memory.cc, shadow.cc -------------------------------------------------------------------- */

void memory_begin(); /* of a launch: maps what is needed, takes over faults */
void memory_end();
char *memory_of_slot(int slot);
char *stack_of(int slot, int thread);

size_t shared_offset(const void *at, size_t bytes, const void *site); /* fatal outside */
bool is_near_shared(const void *at);
bool is_on_stack(const void *at);
/* Any access of the running thread, wherever it lies. */
void saw_read(const void *at, size_t bytes, const void *site);
void saw_write(const void *at, size_t bytes, const void *site);
void saw_global(const void *at, size_t bytes, bool write, bool atomic, const void *site);

/* Who touches memory, and what comes before that: a thread, or a unit working in the background. */
struct accessor {
    const char *name;
    epoch now;
    const clock_vector *clock;
    const clock_vector *fence; /* of a unit: as of the latest proxy fence of its thread */
    const void *site;
};
/* A unit reads or writes shared memory. */
void saw_unit(const void *at, size_t bytes, bool write, const accessor &who);

void cp_async_end(fiber *f); /* complains of what is still on its way */

/* ---- mbarrier.cc, tma.cc, wgmma.cc ----------------------------------------------------------- */

void sm90_start(block *b);
void sm90_start(block *b, fiber *f);
void sm90_end(fiber *f); /* likewise */
void sm90_end(block *b);
mbarrier &find_mbarrier(uint64_t *at, bool unit, const void *site);
void try_complete(mbarrier &barrier);
/* Brings a load on its way, of the block that is running, to its end. From the scheduler. */
void tma_land(block *b);
void tma_end(fiber *f);
void wgmma_end(fiber *f);

} // namespace emu
#endif
