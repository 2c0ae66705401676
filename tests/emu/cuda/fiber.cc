/* Switching between fibers: seven registers on x86-64, ucontext elsewhere. */
#include "state.h"

/* An address sanitizer keeps books about stacks, and wants to know of each change. */
#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

namespace emu
{

static const void *home; /* the scheduler's stack */
static size_t home_size;
static void *home_fake;

/* What the last thread there left behind says nothing about the next one: its outermost frames, or
 * all of them where it was abandoned. */
static void forget_frames(char *stack)
{
    enum { OUTER = 8192 };
    size_t bytes = frames_left ? STACK : (size_t)OUTER;
    __asan_unpoison_memory_region(stack + STACK - bytes, bytes);
}
static void change_to_fiber(fiber *f)
{
    __sanitizer_start_switch_fiber(&home_fake, stack_of(m.now->slot, f->id), STACK);
}
static void changed_to_scheduler()
{
    __sanitizer_finish_switch_fiber(home_fake, NULL, NULL);
}
static void change_to_scheduler(fiber *f)
{
    __sanitizer_start_switch_fiber(&f->fake_stack, home, home_size);
}
static void changed_to_fiber(fiber *f)
{
    __sanitizer_finish_switch_fiber(f->fake_stack, &home, &home_size);
}

} // namespace emu

#else

namespace emu
{

static inline void forget_frames(char *)
{
}
static inline void change_to_fiber(fiber *)
{
}
static inline void changed_to_scheduler()
{
}
static inline void change_to_scheduler(fiber *)
{
}
static inline void changed_to_fiber(fiber *)
{
}

} // namespace emu

#endif

namespace emu
{

/* Called by a thread's first instructions. */
void fiber_begin(fiber *f)
{
    changed_to_fiber(f);
}

} // namespace emu

#if defined(__x86_64__)

/* emu_switch(&save, load): pushes what a call must keep, changes stacks, pops. */
extern "C" void emu_switch(void **save, void *load);
asm(".text\n"
    ".globl emu_switch\n"
    ".type emu_switch, @function\n"
    "emu_switch:\n"
    "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
    "ret\n"
    ".size emu_switch, .-emu_switch\n");

namespace emu
{

void fiber_prepare(fiber *f, char *stack, void (*entry)())
{
    forget_frames(stack);
    f->fake_stack = NULL;
    /* As if entry had been called: the stack is 8 off alignment to 16. */
    void **top = (void **)(stack + STACK) - 2;
    top[0] = (void *)entry;
    top[1] = NULL;
    f->stack_pointer = top - 6;
    memset(f->stack_pointer, 0, 6 * sizeof(void *));
}

void fiber_enter(fiber *f)
{
    change_to_fiber(f);
    emu_switch(&m.scheduler, f->stack_pointer);
    changed_to_scheduler();
}

void fiber_leave(fiber *f)
{
    change_to_scheduler(f);
    emu_switch(&f->stack_pointer, m.scheduler);
    changed_to_fiber(f);
}

} // namespace emu

#else

#include <ucontext.h>

namespace emu
{

static ucontext_t scheduler;

void fiber_prepare(fiber *f, char *stack, void (*entry)())
{
    forget_frames(stack);
    f->fake_stack = NULL;
    ucontext_t *context = (ucontext_t *)stack; /* the far end, which no kernel reaches */
    getcontext(context);
    context->uc_stack.ss_sp = stack + sizeof(*context);
    context->uc_stack.ss_size = STACK - sizeof(*context);
    makecontext(context, entry, 0);
    f->stack_pointer = context;
}

void fiber_enter(fiber *f)
{
    change_to_fiber(f);
    swapcontext(&scheduler, (ucontext_t *)f->stack_pointer);
    changed_to_scheduler();
}

void fiber_leave(fiber *f)
{
    change_to_scheduler(f);
    swapcontext((ucontext_t *)f->stack_pointer, &scheduler);
    changed_to_fiber(f);
}

} // namespace emu

#endif
