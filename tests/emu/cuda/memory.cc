/* Address space: shared memory of each slot between guards, stacks, global buffers, faults. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>

#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emu
{

enum { THREADS_MOST = 1024, PAGE = 4096 };
constexpr size_t ROOM = 228 << 10;
constexpr size_t SLOT = GUARD + ROOM;
constexpr size_t STACK_ARENA = SLOTS * THREADS_MOST * STACK;
constexpr size_t GLOBAL_ARENA = (size_t)1 << 34;

static char *shared_arena, *stack_arena, *global_arena;
static size_t global_used;
static bool slot_open[SLOTS];
static int stacks_open[SLOTS];
static struct sigaction old_segv, old_bus;

static char *reserve(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        fprintf(stderr, "emulator: cannot reserve %zu bytes of address space\n", bytes);
        abort();
    }
    return (char *)at;
}

static void open_pages(char *at, size_t bytes)
{
    if (mprotect(at, bytes, PROT_READ | PROT_WRITE)) {
        fprintf(stderr, "emulator: cannot open %zu bytes\n", bytes);
        abort();
    }
}

/* ---- shared memory and stacks ---------------------------------------------------------------- */

char *memory_of_slot(int slot)
{
    char *at = shared_arena + (size_t)slot * SLOT + GUARD;
    if (!slot_open[slot])
        open_pages(at, ROOM);
    slot_open[slot] = true;
#if EMU_ASAN /* the pages end far behind what the block may touch */
    ASAN_UNPOISON_MEMORY_REGION(at, ROOM);
    ASAN_POISON_MEMORY_REGION(at + m.shared_bytes, ROOM - m.shared_bytes);
#endif
    return at;
}

/* The lowest page of each stack stays closed. */
char *stack_of(int slot, int thread)
{
    char *first = stack_arena + (size_t)slot * THREADS_MOST * STACK;
    for (int &i = stacks_open[slot]; i <= thread; i++)
        open_pages(first + (size_t)i * STACK + PAGE, STACK - PAGE);
    return first + (size_t)thread * STACK;
}

bool is_on_stack(const void *at)
{
    return (const char *)at >= stack_arena && (const char *)at < stack_arena + STACK_ARENA;
}

bool is_near_shared(const void *at)
{
    return (const char *)at >= shared_arena &&
           (const char *)at < shared_arena + SLOTS * SLOT + GUARD;
}

size_t shared_offset(const void *at, size_t bytes, const void *site)
{
    size_t offset = (size_t)((const char *)at - m.now->memory);
    if (offset > m.shared_bytes || offset + bytes > m.shared_bytes)
        fatal(site, "shared memory bounds: byte %zd, %zu long, of %zu", (ssize_t)offset, bytes,
              m.shared_bytes);
    return offset;
}

/* ---- global memory --------------------------------------------------------------------------- */

void *global(size_t bytes)
{
    if (!global_arena)
        global_arena = reserve(GLOBAL_ARENA);
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    char *at = global_arena + global_used;
    global_used += pages + PAGE;
    if (global_used > GLOBAL_ARENA) {
        fprintf(stderr, "emulator: out of global memory\n");
        abort();
    }
    if (pages)
        open_pages(at, pages);
    return at + pages - (bytes + 15) / 16 * 16;
}

/* ---- faults ---------------------------------------------------------------------------------- */

static const void *fault_site(const void *context)
{
#if defined(__x86_64__)
    return (const char *)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] + 1;
#else
    (void)context;
    return NULL;
#endif
}

static void on_fault(int, siginfo_t *info, void *context)
{
    if (!m.cur) { /* not a kernel's: let it happen again under the old handler */
        memory_end();
        return;
    }
    const char *at = (const char *)info->si_addr;
    if (is_near_shared(at))
        fatal(fault_site(context), "shared memory bounds: byte %zd of %zu",
              (ssize_t)(at - m.now->memory), m.shared_bytes);
    if (is_on_stack(at))
        fatal(fault_site(context), "stack: a thread needs more than %zu bytes", STACK);
    fatal(fault_site(context), "global memory bounds: address %p", (const void *)at);
}

void memory_begin()
{
    static char *signal_stack;
    if (!shared_arena) {
        shared_arena = reserve(SLOTS * SLOT + GUARD);
        stack_arena = reserve(STACK_ARENA);
        signal_stack = (char *)malloc(64 << 10);
    }
    stack_t stack = {};
    stack.ss_sp = signal_stack;
    stack.ss_size = 64 << 10;
    sigaltstack(&stack, NULL);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &old_segv);
    sigaction(SIGBUS, &action, &old_bus);
}

void memory_end()
{
    sigaction(SIGSEGV, &old_segv, NULL);
    sigaction(SIGBUS, &old_bus, NULL);
}

} // namespace emu
